//! How many relays a fleet should have.
//!
//! Out at once, on what is announced or what is seen; in only after the *seen* demand stayed low
//! for a dwell, and then only to the most that was wanted during that dwell. A forecast alone can
//! therefore start relays, and never stops one.

use std::time::Duration;

use crate::Time;

/// Time constant of the smoothing of observed demand: requests in flight come and go in
/// milliseconds, relays in seconds.
const IN_FLIGHT_TAU_S: f64 = 2.0;

/// Utilisation of a relay's slots to aim at, unless the operator says otherwise.
pub const UTILISATION_TARGET: f64 = 0.7;

/// Most relays that are ever asked for.
pub const RELAYS_MAX: usize = 10_000;

/// Bounds and pace of a fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScalePolicy {
    /// Relays that always run.
    pub min: usize,
    /// Relays that are never exceeded, at most [`RELAYS_MAX`].
    pub max: usize,
    /// Slots of one relay, at least 1.
    pub relay_slots: usize,
    /// Utilisation of a relay's slots to aim at, in (0, 1]. Default 0.7.
    pub target: f64,
    /// How long demand must stay low before a relay stops. Default 5 s.
    pub dwell: Duration,
}

impl ScalePolicy {
    /// Default pace between `min` and `max` relays of `relay_slots` slots.
    #[must_use]
    pub fn new(min: usize, max: usize, relay_slots: usize) -> Self {
        Self {
            min,
            max,
            relay_slots,
            target: UTILISATION_TARGET,
            dwell: Duration::from_secs(5),
        }
    }
}

/// The demand on a fleet, in slots.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Requests running and queued on relays now.
    pub in_flight: f64,
    /// Slots announced by all agents.
    pub reserved: f64,
}

/// Turns demand into a number of relays.
#[derive(Debug)]
pub struct Scaler {
    policy: ScalePolicy,
    in_flight: f64,
    seen: Option<Time>,
    low: Option<Low>,
}

/// A spell of low demand.
#[derive(Clone, Copy, Debug)]
struct Low {
    since: Time,
    /// The most relays wanted since then.
    wanted_max: usize,
}

impl Scaler {
    /// A scaler that has seen nothing yet. Values out of range are clamped.
    #[must_use]
    pub fn new(mut policy: ScalePolicy) -> Self {
        policy.max = policy.max.min(RELAYS_MAX);
        policy.min = policy.min.min(policy.max);
        policy.relay_slots = policy.relay_slots.max(1);
        policy.target = if policy.target.is_finite() {
            policy.target.clamp(0.05, 1.0)
        } else {
            UTILISATION_TARGET
        };
        Self {
            policy,
            in_flight: 0.0,
            seen: None,
            low: None,
        }
    }

    /// The number of relays wanted now, of which `current` run or start. Call it about every
    /// [`crate::TICK`]; relays that drain are not counted.
    pub fn desired(&mut self, now: Time, demand: Demand, current: usize) -> usize {
        let in_flight = finite(demand.in_flight);
        let elapsed = self
            .seen
            .map_or(f64::INFINITY, |seen| now.seconds_since(seen));
        self.seen = Some(now);
        self.in_flight += (in_flight - self.in_flight) * -(-elapsed / IN_FLIGHT_TAU_S).exp_m1();

        let ScalePolicy {
            min,
            max,
            relay_slots,
            target,
            dwell,
        } = self.policy;
        let slots = relay_slots as f64 * target;
        let wanted = whole_up(self.in_flight.max(finite(demand.reserved)) / slots).clamp(min, max);
        if wanted >= current {
            self.low = None;
            return wanted;
        }
        let low = self.low.get_or_insert(Low {
            since: now,
            wanted_max: wanted,
        });
        low.wanted_max = low.wanted_max.max(wanted);
        if current > max {
            return max;
        }
        if now.0.saturating_sub(low.since.0) < dwell {
            return current;
        }
        let wanted = low.wanted_max;
        self.low = None;
        wanted
    }
}

fn finite(value: f64) -> f64 {
    if value.is_finite() {
        value.max(0.0)
    } else {
        0.0
    }
}

/// The next whole number, at most [`RELAYS_MAX`]. A hair above a whole number is that number, so
/// that rounding errors buy no relay.
fn whole_up(value: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "clamped to RELAYS_MAX first"
    )]
    let whole = (value - 1e-9).ceil().clamp(0.0, RELAYS_MAX as f64) as usize;
    whole
}
