//! Bounds how many requests are in the process at once, wherever they run.
//!
//! The queue of the slots bounds the work that waits for this device; it does not bound requests in
//! flight to relays. All of them together are bounded here, and the bytes that they hold by the front
//! that reads them. A [`Ticket`] is the proof of a place, and gives it back when it is dropped, also
//! where the client went away. Refusal is at once: nobody waits for a ticket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tidegate_inference::{Failure, FailureKind};

/// When to try again where nothing better is known: long enough for a full queue of the default
/// length to move, short enough that a client does not give up.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// The agent is stopping.
    #[error("this agent is draining")]
    Draining,
    /// As many requests as allowed are in the process.
    #[error("too many requests are in progress")]
    Full,
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let kind = match denied {
            Denied::Draining => FailureKind::Unavailable,
            Denied::Full => FailureKind::Overloaded,
        };
        Self::new(kind, denied.to_string()).retry_after(RETRY_AFTER)
    }
}

/// The places for requests.
#[derive(Debug)]
pub(crate) struct Admission {
    taken: AtomicUsize,
    requests_max: usize,
    draining: AtomicBool,
}

impl Admission {
    pub(crate) fn new(requests_max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            requests_max,
            draining: AtomicBool::new(false),
        })
    }

    /// A place for one request.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Ticket, Denied> {
        if self.is_draining() {
            return Err(Denied::Draining);
        }
        let one_more = |taken: usize| Some(taken + 1).filter(|sum| *sum <= self.requests_max);
        self.taken
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, one_more)
            .map(|_| Ticket(Arc::clone(self)))
            .map_err(|_| Denied::Full)
    }

    /// Refuses every request from now on.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Requests in the process now.
    pub(crate) fn requests(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

/// A place, given back on drop.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Admission>);

impl Drop for Ticket {
    fn drop(&mut self) {
        let before = self.0.taken.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "more was given back than taken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_run_out_and_come_back_on_drop() {
        let admission = Admission::new(2);
        let (first, second) = (admission.admit().unwrap(), admission.admit().unwrap());
        assert_eq!(admission.admit().unwrap_err(), Denied::Full);
        assert_eq!(admission.requests(), 2);
        drop(first);
        assert_eq!(admission.requests(), 1);
        let third = admission.admit().unwrap();
        assert_eq!(admission.admit().unwrap_err(), Denied::Full);
        drop((second, third));
        assert_eq!(admission.requests(), 0);
    }

    #[test]
    fn draining_refuses_also_when_places_come_back() {
        let admission = Admission::new(1);
        let ticket = admission.admit().unwrap();
        admission.drain();
        assert_eq!(admission.admit().unwrap_err(), Denied::Draining);
        drop(ticket);
        assert_eq!(admission.admit().unwrap_err(), Denied::Draining);
        assert_eq!(admission.requests(), 0);
    }

    #[test]
    fn threads_never_pass_the_bound() {
        let admission = Admission::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let ticket = admission.admit();
                        assert!(admission.requests() <= 3);
                        drop(ticket);
                    }
                });
            }
        });
        assert_eq!(admission.requests(), 0);
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        for (denied, kind) in [
            (Denied::Draining, FailureKind::Unavailable),
            (Denied::Full, FailureKind::Overloaded),
        ] {
            let failure = Failure::from(denied);
            assert_eq!(failure.kind, kind);
            assert_eq!(failure.retry_after, Some(RETRY_AFTER));
        }
    }
}
