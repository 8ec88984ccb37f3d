//! Time as the caller counts it, and the numbers that name models and relays.

use std::time::Duration;

/// Period of [`crate::Controller::observe`].
pub const TICK: Duration = Duration::from_millis(250);

/// Time since an origin that the caller chooses (the daemon's start, a trace's first arrival).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Duration);

impl Time {
    /// From `earlier` to this time, in seconds; 0 if `earlier` is later.
    pub(crate) fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0).as_secs_f64()
    }

    /// This time and `wait` more, saturating.
    pub(crate) fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }
}

/// A model, as the caller numbers them from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelIndex(pub usize);

/// A relay, as the caller numbers them; a number is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelayId(pub u64);

/// Longest duration that arithmetic here gives: a century, far above any deadline or wait.
const SECONDS_MAX: f64 = 3.2e9;

/// A duration from seconds, clamped to 0 and a century; 0 for NaN.
pub(crate) fn duration(seconds: f64) -> Duration {
    let seconds = if seconds.is_nan() {
        0.0
    } else {
        seconds.clamp(0.0, SECONDS_MAX)
    };
    Duration::from_secs_f64(seconds)
}
