//! The lead time: from asking for a relay until one is ready, as measured.

use std::time::Duration;

use crate::predict::HORIZON_TICKS_MAX;
use crate::time::duration;
use crate::{TICK, Time};

/// Weight of a new lead time that is shorter than the last; a longer one counts in full.
const SHORTER_ALPHA: f64 = 0.5;

/// The lead time in use, and the request for relays that is open.
#[derive(Debug)]
pub(crate) struct Lead {
    seconds: f64,
    measured: bool,
    asked: Option<Time>,
}

impl Lead {
    pub(crate) fn new(prior: Duration) -> Self {
        Self {
            seconds: clamp(prior.as_secs_f64()),
            measured: false,
            asked: None,
        }
    }

    /// Notes whether more is reserved than the relays that are ready can carry.
    pub(crate) fn tick(&mut self, now: Time, lacking: bool) {
        self.asked = lacking.then(|| self.asked.unwrap_or(now));
    }

    /// A relay became ready. It answers the open request; the next starts at the next tick.
    pub(crate) fn ready(&mut self, now: Time) {
        if let Some(asked) = self.asked.take() {
            let seen = clamp(now.seconds_since(asked));
            let blended = self.seconds + SHORTER_ALPHA * (seen - self.seconds);
            self.seconds = if self.measured {
                blended.max(seen)
            } else {
                seen
            };
            self.measured = true;
        }
    }

    pub(crate) fn duration(&self) -> Duration {
        duration(self.seconds)
    }

    /// The same in ticks, rounded up.
    pub(crate) fn ticks(&self) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "clamped to the horizon's bound"
        )]
        let ticks = (self.seconds / TICK.as_secs_f64() - 1e-9).ceil() as usize;
        ticks.clamp(1, HORIZON_TICKS_MAX)
    }
}

/// Between one tick and the furthest horizon.
fn clamp(seconds: f64) -> f64 {
    seconds.clamp(
        TICK.as_secs_f64(),
        TICK.as_secs_f64() * HORIZON_TICKS_MAX as f64,
    )
}
