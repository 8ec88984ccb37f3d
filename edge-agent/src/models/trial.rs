//! One run as a rollout counts it, however it ends.

use std::sync::Arc;
use std::time::Duration;

use tidegate_control::rollout::Ran;
use tidegate_runtime::RunClock;

use super::{Models, Pin, Served};

/// A run of a version that the rollout picked. One that is dropped while it runs counts as given up:
/// its deadline passed, or its caller went away. One that the caller picked itself counts for nothing,
/// since callers are no fair dice.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    models: &'a Models,
    served: Arc<Served>,
    pin: Pin,
    clock: Option<RunClock>,
}

impl<'a> Trial<'a> {
    /// Picks the version for a request that was matched with `served`.
    pub(crate) fn begin(models: &'a Models, served: &Arc<Served>, pin: Pin) -> Self {
        let served = match pin {
            Pin::Any => models.pick(served),
            Pin::This => Arc::clone(served),
        };
        Self {
            models,
            served,
            pin,
            clock: None,
        }
    }

    pub(crate) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    /// The job is queued; `clock` tells when it leaves the queue.
    pub(crate) fn queued(&mut self, clock: RunClock) {
        self.clock = Some(clock);
    }

    pub(crate) fn answered(self, service: Duration) {
        self.end(Ran::Answered { service });
    }

    pub(crate) fn failed(self) {
        self.end(Ran::Failed);
    }

    /// The run says nothing of the version, unless more is told: it did not begin, or the request may
    /// have been wrong.
    pub(crate) fn forget(&mut self) {
        self.clock = None;
    }

    fn end(mut self, ran: Ran) {
        self.clock = None;
        self.tell(ran);
    }

    fn tell(&self, ran: Ran) {
        if self.pin == Pin::Any {
            self.models.ran(&self.served, ran);
        }
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(service) = self.clock.as_ref().and_then(RunClock::running_for) {
            self.tell(Ran::GivenUp { service });
        }
    }
}
