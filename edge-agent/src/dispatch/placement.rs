//! Runs a job where it was routed, and elsewhere when that fails or stays silent.
//!
//! A relay that dies takes its answer with it, and the link to it notices late. So a job that a relay
//! has not answered when [`PATIENCE`] of its time has passed gets a second placement beside the first,
//! if the controller knows one that meets the deadline; the first answer wins and the other attempt
//! is dropped, which cancels it. Inference has no side effects, so running twice is safe.

use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use tidegate_control::{Outcome, RelayId, Route};
use tidegate_inference::{Failure, FailureKind, Placement, Reason, Reply, Timings};
use tidegate_runtime::Denied;

use super::{Job, Service};
use crate::admission::RETRY_AFTER;
use crate::brain::{Brain, Question};
use crate::burst::BurstError;

/// Part of the time left that a relay has before a second placement is tried beside it. Above half,
/// so that a relay that is merely busy is not asked twice; below three quarters, so that the second
/// placement has time for a run.
const PATIENCE: f64 = 0.6;

/// Most placements of one job: a relay, another, and this device.
const ATTEMPTS_MAX: usize = 3;

/// What a queue counts as that refused the job or holds it already: more than any deadline has time
/// for.
const BACKLOG_FULL: usize = 1 << 24;

/// Where a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On a slot of this device.
    Here,
    /// On this relay.
    Relay(RelayId),
}

/// A placement that gave no outputs.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    /// Whether another place may do better.
    pub(super) elsewhere: bool,
}

/// One placement under way. Dropping it cancels the run.
type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Reply, Failed>> + Send + 'a>>;

impl Service {
    /// What the controller needs to know of `job` now.
    pub(super) fn question(&self, job: &Job) -> Question {
        let load = self.slots.load();
        Question {
            model: job.served.index,
            time_left: job.deadline.saturating_duration_since(Instant::now()),
            bytes: job
                .inputs
                .iter()
                .map(|input| input.tensor.data().len())
                .sum(),
            backlog: load.queued + load.busy,
        }
    }

    /// Runs `job` at `place` and, where that fails, elsewhere.
    pub(crate) async fn place(
        &self,
        job: &Job,
        place: Place,
        reason: Reason,
    ) -> Result<Reply, Failure> {
        let mut tried = vec![place];
        let mut under_way = vec![self.attempt(job, place, reason)];
        let mut patience = patience(place, job.deadline);
        loop {
            let failed = tokio::select! {
                result = first_done(&mut under_way) => match result {
                    Ok(reply) => return Ok(reply),
                    Err(failed) if !failed.elsewhere => return Err(failed.failure),
                    Err(failed) => Some(failed.failure),
                },
                () = until(patience) => None,
                () = tokio::time::sleep_until(job.deadline.into()) => return Err(too_late()),
            };
            match (self.next_place(job, &tried, failed.is_some()), failed) {
                (Some((next, reason)), _) => {
                    tried.push(next);
                    under_way.push(self.attempt(job, next, reason));
                    patience = self::patience(next, job.deadline);
                }
                (None, Some(failure)) if under_way.is_empty() => return Err(failure),
                (None, _) => patience = None,
            }
        }
    }

    /// Another place that would meet the deadline, if the controller knows one. Where the attempt
    /// before has `failed`, and is not just silent, this device is the last resort.
    fn next_place(&self, job: &Job, tried: &[Place], failed: bool) -> Option<(Place, Reason)> {
        if tried.len() == ATTEMPTS_MAX || job.deadline <= Instant::now() {
            return None;
        }
        let mut question = self.question(job);
        if tried.contains(&Place::Here) {
            question.backlog = BACKLOG_FULL;
        }
        let next = match self.brain.route_again(question) {
            Route::Local(reason) => (Place::Here, reason),
            Route::Burst(relay, reason) if tried.contains(&Place::Relay(relay)) => {
                self.brain.finished(&Outcome::RelayDropped { relay });
                (failed.then_some(Place::Here)?, reason)
            }
            Route::Burst(relay, reason) => (Place::Relay(relay), reason),
            Route::Shed { .. } => return None,
        };
        Some(next).filter(|(next, _)| !tried.contains(next))
    }

    fn attempt<'a>(&'a self, job: &'a Job, place: Place, reason: Reason) -> Attempt<'a> {
        let brain = &self.brain;
        match place {
            Place::Here => {
                let model = job.served.index;
                let run = Unfinished::new(brain, Outcome::LocalDropped { model });
                Box::pin(self.run_here(run, job, reason))
            }
            Place::Relay(relay) => {
                let run = Unfinished::new(brain, Outcome::RelayDropped { relay });
                Box::pin(self.run_on(relay, run, job, reason))
            }
        }
    }

    async fn run_on(
        &self,
        relay: RelayId,
        run: Unfinished<'_>,
        job: &Job,
        reason: Reason,
    ) -> Result<Reply, Failed> {
        let unknown = || Failed::from(BurstError::Unknown { relay });
        let burst = self.burst.as_ref().ok_or_else(unknown)?;
        let name = burst.relay_name(relay).ok_or_else(unknown)?;
        let in_flight = self.metrics.burst_sent();
        let result = burst
            .infer(
                relay,
                &job.served,
                job.pin,
                job.inputs.clone(),
                job.outputs.clone(),
                job.priority,
                job.deadline,
            )
            .await;
        drop(in_flight);
        let reply = match result {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(relay = name, %error, "no reply from a relay");
                if is_fault_of_relay(&error) {
                    run.finish(&Outcome::RelayFailed { relay });
                }
                return Err(error.into());
            }
        };
        let answer = reply.answer;
        run.finish(&Outcome::Relay {
            relay,
            model: job.served.index,
            sojourn: reply.sojourn,
            queue: answer.queue,
            service: answer.service,
            bytes: reply.bytes,
        });
        Ok(Reply {
            version: reply.served.metadata().version.clone(),
            outputs: answer.outputs,
            placement: Placement::Relay(name),
            reason,
            timings: Timings {
                queue: answer.queue,
                infer: answer.service,
            },
        })
    }
}

impl From<Denied> for Failed {
    fn from(denied: Denied) -> Self {
        let (kind, message) = match denied {
            Denied::QueueFull => (FailureKind::Overloaded, "the queue of this device is full"),
        };
        Self {
            failure: Failure::new(kind, message).retry_after(RETRY_AFTER),
            elsewhere: true,
        }
    }
}

impl From<BurstError> for Failed {
    fn from(error: BurstError) -> Self {
        Self {
            elsewhere: error.is_worth_retrying(),
            failure: error.into(),
        }
    }
}

/// Whether a relay that gave no outputs should be asked less; not where any relay would have failed.
fn is_fault_of_relay(error: &BurstError) -> bool {
    match error {
        BurstError::Unknown { .. }
        | BurstError::NoCredit { .. }
        | BurstError::Lost { .. }
        | BurstError::Decode { .. }
        | BurstError::Deadline { .. } => true,
        BurstError::NotOffered { .. } | BurstError::Encode { .. } => false,
        BurstError::Refused { failure, .. } => {
            failure.is_worth_retrying() || failure.kind == FailureKind::DeadlineExceeded
        }
    }
}

/// The answer when the deadline passes first, also in a queue whose head does not move.
fn too_late() -> Failure {
    let message = "the deadline passed before the outputs were there";
    Failure::new(FailureKind::DeadlineExceeded, message)
}

/// When a silent attempt at `place` gets another beside it; never for this device, whose queue is
/// known.
fn patience(place: Place, deadline: Instant) -> Option<Instant> {
    let now = Instant::now();
    match place {
        Place::Here => None,
        Place::Relay(_) => Some(now + deadline.saturating_duration_since(now).mul_f64(PATIENCE)),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// The first result among `attempts`, which is taken out of them. Pending for ever on none.
async fn first_done(attempts: &mut Vec<Attempt<'_>>) -> Result<Reply, Failed> {
    std::future::poll_fn(|context| {
        let done = attempts
            .iter_mut()
            .enumerate()
            .find_map(|(index, attempt)| match attempt.as_mut().poll(context) {
                Poll::Ready(result) => Some((index, result)),
                Poll::Pending => None,
            });
        done.map_or(Poll::Pending, |(index, result)| {
            drop(attempts.swap_remove(index));
            Poll::Ready(result)
        })
    })
    .await
}

/// Tells the controller how a run ended, also where its future is dropped.
#[derive(Debug)]
pub(super) struct Unfinished<'a> {
    brain: &'a Brain,
    outcome: Outcome,
}

impl<'a> Unfinished<'a> {
    /// Reports `otherwise` unless the run finishes.
    fn new(brain: &'a Brain, otherwise: Outcome) -> Self {
        Self {
            brain,
            outcome: otherwise,
        }
    }

    pub(super) fn finish(mut self, outcome: &Outcome) {
        self.outcome = *outcome;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.brain.finished(&self.outcome);
    }
}
