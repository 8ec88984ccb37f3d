//! When a run must stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tidegate_inference::{Failure, FailureKind};

/// When a run must stop: at an instant, or when its caller goes away.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Past this the run is interrupted.
    pub deadline: Instant,
    /// Set when nobody waits for the answer any more.
    pub cancelled: Arc<AtomicBool>,
}

impl Budget {
    /// A run until `deadline` that nobody cancels.
    #[must_use]
    pub fn until(deadline: Instant) -> Self {
        Self {
            deadline,
            cancelled: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Fails if the run must stop now.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(Stop::Cancelled)
        } else if Instant::now() >= self.deadline {
            Err(Stop::DeadlineExceeded)
        } else {
            Ok(())
        }
    }
}

/// Why a run was made to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The request's deadline passed.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The caller went away.
    #[error("the caller went away")]
    Cancelled,
    /// The module's own `compute-ms`, or the host's limit on a run.
    #[error("the module ran longer than it may")]
    TooLong,
}

impl From<Stop> for Failure {
    fn from(stop: Stop) -> Self {
        let kind = match stop {
            Stop::DeadlineExceeded => FailureKind::DeadlineExceeded,
            Stop::Cancelled => FailureKind::Cancelled,
            Stop::TooLong => FailureKind::Module,
        };
        Self::new(kind, stop.to_string())
    }
}
