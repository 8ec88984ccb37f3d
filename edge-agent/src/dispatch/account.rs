//! Counts a request exactly once, however it ends.

use std::sync::Arc;
use std::time::Instant;

use tidegate_inference::{Failure, Reply};

use crate::metrics::Metrics;

/// An open account is closed with its result, or counts as cancelled when it is dropped: then the
/// front dropped the request because its client went away.
#[derive(Debug)]
pub(super) struct Account<'a> {
    metrics: &'a Metrics,
    model: Arc<str>,
    opened: Instant,
    closed: bool,
}

impl<'a> Account<'a> {
    /// `model` is the name of a loaded model, or empty: it becomes a label.
    pub(super) fn open(metrics: &'a Metrics, model: Arc<str>) -> Self {
        Self {
            metrics,
            model,
            opened: Instant::now(),
            closed: false,
        }
    }

    pub(super) fn close(mut self, result: &Result<Reply, Failure>) {
        self.closed = true;
        self.metrics
            .answered(&self.model, result, self.opened.elapsed());
    }
}

impl Drop for Account<'_> {
    fn drop(&mut self) {
        if !self.closed {
            self.metrics.cancelled(&self.model);
        }
    }
}
