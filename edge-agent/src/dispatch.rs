//! One request, from the front to its reply: admit, route, run, reply.
//!
//! Every request that is admitted gets exactly one answer. Where a placement fails in a way that says
//! nothing about the request (a relay is lost or full, the queue is full), the request is tried
//! elsewhere while its deadline leaves time ([`placement`]). Dropping the future, as the front does
//! when the client goes away, cancels the job or the stream that it waits for.

mod account;
mod local;
mod placement;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_control::{Outcome, Route};
use tidegate_inference::{
    Failure, FailureKind, ModelMetadata, NamedTensor, Priority, Reason, Reply, Request, TIME_MAX,
};
use tidegate_open_inference::Infer;
use tidegate_runtime::Slots;

use self::account::Account;
pub(crate) use self::placement::Place;
use crate::admission::Admission;
use crate::brain::Brain;
use crate::burst::Burst;
use crate::metrics::Metrics;
use crate::models::{Models, Pin, Served};
use crate::supply::Memory;

/// What answers requests: the agent without its listeners and loops.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) admission: Arc<Admission>,
    pub(crate) models: Models,
    /// Where each model's module comes from, as the configuration says it.
    pub(crate) sources: Vec<String>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) brain: Brain,
    pub(crate) slots: Arc<Slots>,
    pub(crate) burst: Option<Burst>,
    pub(crate) metrics: Arc<Metrics>,
    /// Time that a request has when it does not say.
    pub(crate) slo: Duration,
    /// Requests refused for want of capacity since the start.
    pub(crate) refused: AtomicU64,
    /// How long the job waited that ran here last.
    pub(crate) queue_delay_us: AtomicU64,
}

/// An admitted request that fits its model.
#[derive(Debug)]
pub(crate) struct Job {
    /// What the request was checked against; a live version with the same interface may answer it.
    served: Arc<Served>,
    pin: Pin,
    inputs: Vec<NamedTensor>,
    outputs: Vec<String>,
    priority: Priority,
    deadline: Instant,
}

impl Infer for Service {
    async fn infer(&self, request: Request) -> Result<Reply, Failure> {
        let account = Account::open(&self.metrics, self.models.known_name(&request.model));
        let answer = async {
            let _ticket = self.admission.admit()?;
            let job = self.accept(request)?;
            match self.brain.route(self.question(&job)) {
                Route::Local(reason) => self.place(&job, Place::Here, reason).await,
                Route::Burst(relay, _) if self.is_only_here(&job) => {
                    self.brain.finished(&Outcome::RelayDropped { relay });
                    self.place(&job, Place::Here, Reason::NoRelay).await
                }
                Route::Burst(relay, reason) => self.place(&job, Place::Relay(relay), reason).await,
                Route::Shed { retry_after } => Err(shed(retry_after)),
            }
        };
        let result = answer.await;
        self.note(&result);
        account.close(&result);
        result
    }

    fn model(&self, name: &str, version: Option<&str>) -> Result<ModelMetadata, Failure> {
        Ok(self.models.find(name, version)?.0.metadata().clone())
    }

    fn model_names(&self) -> Vec<String> {
        let current = self.models.current();
        let name = |served: &Arc<Served>| served.metadata().name.clone();
        current.iter().map(name).collect()
    }

    fn model_versions(&self, name: &str) -> Vec<String> {
        let Some(index) = self.models.index(name) else {
            return Vec::new();
        };
        let live = self.models.live(index);
        let mut versions: Vec<_> = live
            .iter()
            .map(|live| live.served.metadata().version.clone())
            .collect();
        // A version that was built again without a new number is still one.
        versions.dedup();
        versions
    }

    fn takes_requests(&self) -> bool {
        !self.admission.is_draining()
    }

    fn is_ready(&self) -> bool {
        self.takes_requests() && self.models.empty_seats() == 0
    }
}

impl Service {
    /// Matches a request with its model.
    pub(crate) fn accept(&self, request: Request) -> Result<Job, Failure> {
        let (served, pin) = self
            .models
            .find(&request.model, request.version.as_deref())?;
        served.metadata().check_inputs(&request.inputs)?;
        served.metadata().check_outputs(&request.outputs)?;
        let now = Instant::now();
        let deadline = request
            .deadline
            .map_or(now + self.slo, |deadline| deadline.min(now + TIME_MAX));
        if deadline <= now {
            let message = "the deadline passed before the request could be placed";
            return Err(Failure::new(FailureKind::DeadlineExceeded, message));
        }
        Ok(Job {
            served,
            pin,
            inputs: request.inputs,
            outputs: request.outputs,
            priority: request.priority,
            deadline,
        })
    }

    /// Whether only this device has the version that the job wants: relays run what is current.
    fn is_only_here(&self, job: &Job) -> bool {
        job.pin == Pin::This && !self.models.is_current(&job.served)
    }

    /// How long jobs wait for a slot: as long as the one that ran last, while any waits.
    pub(crate) fn queue_delay(&self, queued: usize) -> Duration {
        match queued {
            0 => Duration::ZERO,
            _ => Duration::from_micros(self.queue_delay_us.load(Ordering::Relaxed)),
        }
    }

    fn waited(&self, queue: Duration) {
        let micros = u64::try_from(queue.as_micros()).unwrap_or(u64::MAX);
        self.queue_delay_us.store(micros, Ordering::Relaxed);
    }

    /// Counts a refusal, which the controller must hear of. A fault of this daemon is reported where
    /// it happens, since a relay's looks the same here.
    fn note(&self, result: &Result<Reply, Failure>) {
        let Err(failure) = result else {
            return;
        };
        match failure.kind {
            FailureKind::Overloaded => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            FailureKind::Invalid
            | FailureKind::NotFound
            | FailureKind::TooLarge
            | FailureKind::Unavailable
            | FailureKind::DeadlineExceeded
            | FailureKind::Cancelled
            | FailureKind::Module
            | FailureKind::Internal => tracing::debug!(%failure, "request failed"),
        }
    }
}

/// The answer where no placement would meet the deadline.
fn shed(retry_after: Duration) -> Failure {
    let message = "no placement would meet the deadline";
    Failure::new(FailureKind::Overloaded, message).retry_after(retry_after)
}
