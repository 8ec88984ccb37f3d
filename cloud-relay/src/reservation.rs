//! Slots that agents say they will need, by connection, until they expire.
//!
//! A reservation is replaced by the next one on the same connection and forgotten with the
//! connection. Agents repeat theirs every second, so one that is not repeated was lost with its
//! agent: it expires [`GRACE`] after its horizon.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a reservation outlives its horizon, unless it is said again.
const GRACE: Duration = Duration::from_secs(5);

/// Furthest horizon; no forecast of load reaches so far. More counts as this.
const HORIZON_MAX: Duration = Duration::from_secs(3600);

/// Most slots that count of one agent, so that none can ask for a fleet of its own.
const SLOTS_MAX: f64 = 4096.0;

/// One connection's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionId(pub(crate) u64);

/// What is reserved on this relay.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    held: Mutex<HashMap<ConnectionId, Held>>,
}

#[derive(Debug)]
struct Held {
    slots: f64,
    expires: Instant,
}

impl Reservations {
    /// Replaces what `connection` reserves. `slots` are finite and not negative, as the protocol
    /// reads them; more than [`SLOTS_MAX`] count as that, and a horizon beyond an hour as an hour.
    pub(crate) fn set(
        &self,
        connection: ConnectionId,
        slots: f64,
        horizon: Duration,
        now: Instant,
    ) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if slots == 0.0 {
            held.remove(&connection);
        } else {
            let slots = slots.min(SLOTS_MAX);
            let expires = now + horizon.min(HORIZON_MAX) + GRACE;
            held.insert(connection, Held { slots, expires });
        }
    }

    /// Forgets what `connection` reserved.
    pub(crate) fn remove(&self, connection: ConnectionId) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.remove(&connection);
    }

    /// Slots reserved by all connections together.
    pub(crate) fn total(&self, now: Instant) -> f64 {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, held| held.expires > now);
        // Not `sum`, which is -0.0 of nothing.
        held.values().fold(0.0, |total, held| total + held.slots)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn reservations_add_up_until_they_expire_or_their_connection_goes() {
        let start = Instant::now();
        let all = Reservations::default();
        let [a, b] = [ConnectionId(1), ConnectionId(2)];
        all.set(a, 1.5, SECOND, start);
        all.set(b, 2.0, 9 * SECOND, start);
        assert_eq!(all.total(start), 3.5);
        all.set(a, 1.0, SECOND, start);
        assert_eq!(all.total(start + 5 * SECOND), 3.0);
        assert_eq!(all.total(start + 6 * SECOND), 2.0);
        all.remove(b);
        assert_eq!(all.total(start), 0.0);
    }

    #[test]
    fn a_horizon_beyond_an_hour_counts_as_an_hour() {
        let start = Instant::now();
        let all = Reservations::default();
        all.set(ConnectionId(1), 2.0, Duration::MAX, start);
        assert_eq!(all.total(start + 3604 * SECOND), 2.0);
        assert_eq!(all.total(start + 3605 * SECOND), 0.0);
    }

    #[test]
    fn slots_beyond_the_bound_count_as_the_bound_and_none_ends_it() {
        let start = Instant::now();
        let all = Reservations::default();
        all.set(ConnectionId(1), 1e6, SECOND, start);
        all.set(ConnectionId(2), 1.0, SECOND, start);
        assert_eq!(all.total(start), 4097.0);
        all.set(ConnectionId(1), 0.0, SECOND, start);
        assert_eq!(all.total(start), 1.0);
    }
}
