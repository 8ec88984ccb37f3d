//! The one failure that every layer reports, and that each edge translates once.
//!
//! REST, gRPC and QUIC codes are derived from a [`Failure`] where it leaves the process. What a
//! caller may do about it is decided here: whether trying again is sensible.

use std::time::Duration;

/// What went wrong, in the coarse terms that a status code can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// The request is malformed, or does not fit the model's inputs.
    Invalid,
    /// No such model or version.
    NotFound,
    /// The request is larger than a limit.
    TooLarge,
    /// No place in a queue, or no placement that meets the deadline.
    Overloaded,
    /// The daemon is stopping, or the model is not ready yet.
    Unavailable,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// The model module trapped, reported an error, or broke its limits.
    Module,
    /// A fault of this daemon.
    Internal,
}

impl FailureKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 9] = [
        Self::Invalid,
        Self::NotFound,
        Self::TooLarge,
        Self::Overloaded,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Module,
        Self::Internal,
    ];

    /// A stable name for logs, metrics and the wire, such as `deadline-exceeded`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::TooLarge => "too-large",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::Cancelled => "cancelled",
            Self::Module => "module",
            Self::Internal => "internal",
        }
    }
}

/// A request that got no outputs, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The class of the failure.
    pub kind: FailureKind,
    /// What and where, for a person. Says nothing of other callers or of the host's files.
    pub message: String,
    /// When a new try may succeed, where that is known.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure of `kind` with nothing said about a retry.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The same failure, worth trying again after `wait`.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Whether the same request may succeed elsewhere or later. Inference has no side effects, so a
    /// retry is always safe; this says whether it is sensible.
    #[must_use]
    pub fn is_worth_retrying(&self) -> bool {
        match self.kind {
            FailureKind::Overloaded | FailureKind::Unavailable | FailureKind::Internal => true,
            FailureKind::Invalid
            | FailureKind::NotFound
            | FailureKind::TooLarge
            | FailureKind::DeadlineExceeded
            | FailureKind::Cancelled
            | FailureKind::Module => false,
        }
    }
}
