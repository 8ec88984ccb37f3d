//! How carefully a new version comes in.

use std::time::Duration;

/// Bounds of [`RolloutPolicy::canary_share`]: above a half the new version would be the rule.
pub const SHARE_MIN: f64 = 0.01;
/// See [`SHARE_MIN`].
pub const SHARE_MAX: f64 = 0.5;

/// How carefully a new version comes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RolloutPolicy {
    /// Share of the requests that the new version serves in the canary, and the old one in the watch;
    /// [`SHARE_MIN`] to [`SHARE_MAX`].
    pub canary_share: f64,
    /// Requests that the new version finishes before it can be promoted early; at least 1.
    pub requests_min: u64,
    /// Longest canary.
    pub canary_max: Duration,
    /// How long the old version is kept, and compared with, after the promotion.
    pub watch: Duration,
}

impl Default for RolloutPolicy {
    /// A tenth is small enough to be borne and large enough to be told apart within a hundred requests.
    fn default() -> Self {
        Self {
            canary_share: 0.1,
            requests_min: 100,
            canary_max: Duration::from_secs(600),
            watch: Duration::from_secs(300),
        }
    }
}

impl RolloutPolicy {
    pub(super) fn clamped(self) -> Self {
        let share = self.canary_share;
        Self {
            canary_share: match share.is_nan() {
                true => SHARE_MIN,
                false => share.clamp(SHARE_MIN, SHARE_MAX),
            },
            requests_min: self.requests_min.max(1),
            ..self
        }
    }
}
