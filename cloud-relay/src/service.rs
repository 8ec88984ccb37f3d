//! What every connection shares, and one request from its message to its answer.
//!
//! Knows no QUIC: [`crate::accept`] brings messages and takes answers away. A request holds its bytes
//! in [`Held`] from before they are read until its reply is written. Dropping the future of
//! [`Service::infer`] cancels the job, queued or running.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tidegate_inference::{Failure, FailureKind, TIME_MAX, select_outputs};
use tidegate_runtime::{Denied, Model, Slots};
use tidegate_wire::{Answer, LoadReport, RequestMessage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::load::{self, ServiceTime, Stage};
use crate::metrics::Metrics;
use crate::reservation::{ConnectionId, Reservations};
use crate::store::Store;

/// When to come back to a relay that has no room for a request's bytes.
const HELD_RETRY_AFTER: Duration = Duration::from_millis(100);

/// What every connection shares.
#[derive(Debug)]
pub(crate) struct Service {
    /// Where requests run.
    pub(crate) slots: Arc<Slots>,
    /// The modules that they run.
    pub(crate) store: Arc<Store>,
    /// Demand that agents announced.
    pub(crate) reservations: Reservations,
    /// Counters and gauges.
    pub(crate) metrics: Metrics,
    /// Cancelled when the relay is to stop.
    pub(crate) draining: CancellationToken,
    service_time: ServiceTime,
    held: Arc<Semaphore>,
    held_bytes_max: usize,
    connections: AtomicU64,
}

impl Service {
    pub(crate) fn new(slots: Arc<Slots>, store: Arc<Store>, held_bytes_max: usize) -> Self {
        let held_bytes_max = held_bytes_max.min(Semaphore::MAX_PERMITS);
        Self {
            slots,
            store,
            reservations: Reservations::default(),
            metrics: Metrics::new(),
            draining: CancellationToken::new(),
            service_time: ServiceTime::default(),
            held: Arc::new(Semaphore::new(held_bytes_max)),
            held_bytes_max,
            connections: AtomicU64::new(0),
        }
    }

    /// A number that no other connection has.
    pub(crate) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }

    /// The bytes that one connection may hold: half of all, so that no peer can take them all.
    pub(crate) fn connection_bytes(&self) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(self.held_bytes_max / 2))
    }

    /// How loaded the relay is now.
    pub(crate) fn load(&self) -> LoadReport {
        let stage = if self.draining.is_cancelled() {
            Stage::Draining
        } else {
            Stage::Serving
        };
        let reserved = self.reservations.total(Instant::now());
        load::report(self.slots.load(), self.service_time.mean(), reserved, stage)
    }

    /// Room for `bytes` of one request on a connection, or at once why not.
    pub(crate) fn hold(&self, own: &Arc<Semaphore>, bytes: usize) -> Result<Held, Failure> {
        let full = || {
            let message = "the relay holds as many bytes of requests as it may";
            Failure::new(FailureKind::Overloaded, message).retry_after(HELD_RETRY_AFTER)
        };
        let count = u32::try_from(bytes).map_err(|_| full())?;
        let take = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_many_owned(count);
        let own = take(own).map_err(|_| full())?;
        let all = take(&self.held).map_err(|_| full())?;
        Ok(Held {
            _own: own,
            _all: all,
        })
    }

    /// Runs one request that was received at `received`.
    pub(crate) async fn infer(
        &self,
        model: Arc<Model>,
        message: RequestMessage,
        received: Instant,
    ) -> Result<Answer, Failure> {
        model.metadata().check_inputs(&message.inputs)?;
        model.metadata().check_outputs(&message.outputs)?;
        let deadline = received + message.time_left.min(TIME_MAX);
        let running = self
            .slots
            .submit(model, message.inputs, message.priority, deadline)
            .map_err(|denied| match denied {
                Denied::QueueFull => Failure::new(FailureKind::Overloaded, "the queue is full")
                    .retry_after(self.load().wait),
            })?;
        let done = running.await?;
        self.service_time.record(done.service);
        Ok(Answer {
            outputs: select_outputs(done.outputs, &message.outputs),
            queue: done.queue,
            service: done.service,
        })
    }
}

/// Bytes that are taken until this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}
