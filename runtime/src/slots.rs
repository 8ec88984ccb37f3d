//! The threads that run requests, behind a bounded queue that serves high priority first, and within a
//! priority every model its share.
//!
//! A slot is a thread: as many requests run at once as there are slots, and others wait, at most so
//! many. A job that can no longer help is not run: its deadline passed while it waited, or the future
//! that waits for it was dropped, which also ends it if it runs. A run that panics fails alone.
//!
//! Dropping the slots stops them: waiting jobs fail, running ones are interrupted, and the threads are
//! joined. All of them fail as `Unavailable`.

mod queue;
mod shares;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tidegate_inference::{Failure, FailureKind, NamedTensor, Priority};
use tokio::sync::oneshot;

use self::queue::{Job, Queue};
use crate::budget::Budget;
use crate::limits::SLOTS_MAX;
use crate::model::Model;
use tidegate_graph::panic_text;

/// Stack of a slot's thread: the guest's, and the graph engine's below it.
const STACK_BYTES: usize = 8 << 20;

/// Worker threads, one per slot, behind a bounded queue that serves high priority first.
#[derive(Debug)]
pub struct Slots {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

/// Why a job was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// As many jobs wait as may.
    QueueFull,
}

/// What a finished job produced and took.
#[derive(Debug)]
pub struct Completed {
    /// The outputs, in the manifest's order.
    pub outputs: Vec<NamedTensor>,
    /// From submit to start.
    pub queue: Duration,
    /// The run, wall clock.
    pub service: Duration,
    /// The run, CPU time of the slot's thread.
    pub cpu: Duration,
}

/// How full the slots are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotLoad {
    /// Worker threads.
    pub slots: usize,
    /// Running jobs.
    pub busy: usize,
    /// Waiting jobs.
    pub queued: usize,
}

impl Slots {
    /// Starts `slots` threads, 1 to [`SLOTS_MAX`]; at most `queue_len_max` jobs wait beside those that run.
    pub fn new(slots: usize, queue_len_max: usize) -> std::io::Result<Arc<Self>> {
        if !(1..=SLOTS_MAX).contains(&slots) {
            let message = format!("there can be 1 to {SLOTS_MAX} slots, not {slots}");
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                message,
            ));
        }
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue::new(slots, queue_len_max)),
            ready: Condvar::new(),
        });
        let mut started = Self {
            shared,
            threads: Vec::with_capacity(slots),
        };
        for index in 0..slots {
            let shared = Arc::clone(&started.shared);
            let thread = std::thread::Builder::new()
                .name(format!("tidegate-slot-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || work(&shared))?;
            started.threads.push(thread);
        }
        Ok(Arc::new(started))
    }

    /// Queues a job, or says at once why not. A job whose deadline passes in the queue fails with
    /// `DeadlineExceeded` without running; one that the slots stop for, with `Unavailable`.
    pub fn submit(
        &self,
        model: Arc<Model>,
        inputs: Vec<NamedTensor>,
        priority: Priority,
        deadline: Instant,
    ) -> Result<Running, Denied> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let clock = RunClock::default();
        let (reply, answer) = oneshot::channel();
        let submitted = Instant::now();
        let id = self.shared.lock().push(Job {
            id: 0,
            model,
            inputs,
            priority,
            budget: Budget {
                deadline,
                cancelled: Arc::clone(&cancelled),
            },
            submitted,
            clock: clock.clone(),
            reply,
        })?;
        self.shared.ready.notify_one();
        Ok(Running {
            shared: Arc::clone(&self.shared),
            id,
            cancelled,
            clock,
            answer,
            is_done: false,
        })
    }

    /// How full the slots are now.
    #[must_use]
    pub fn load(&self) -> SlotLoad {
        self.shared.lock().load()
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        self.shared.lock().stop();
        self.shared.ready.notify_all();
        for thread in self.threads.drain(..) {
            // A slot's thread catches every panic of a job, so there is nothing to learn from it.
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job, waiting for one; none once the slots stop.
    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.pop() {
                return Some(job);
            }
            if queue.is_stopped() {
                return None;
            }
            queue = self
                .ready
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A job that was queued. Await it for the result; dropping it cancels the job, queued or running.
#[derive(Debug)]
#[must_use = "dropping it cancels the job"]
pub struct Running {
    shared: Arc<Shared>,
    id: u64,
    cancelled: Arc<AtomicBool>,
    clock: RunClock,
    answer: oneshot::Receiver<Result<Completed, Failure>>,
    is_done: bool,
}

/// When a job left the queue, for whoever gives it up.
#[derive(Clone, Debug, Default)]
pub struct RunClock(Arc<OnceLock<Instant>>);

impl RunClock {
    /// How long ago the job began to run; `None` while it waits.
    #[must_use]
    pub fn running_for(&self) -> Option<Duration> {
        self.0.get().map(Instant::elapsed)
    }
}

impl Running {
    /// Tells when the job began to run, also after this is dropped.
    #[must_use]
    pub fn clock(&self) -> RunClock {
        self.clock.clone()
    }
}

impl Future for Running {
    type Output = Result<Completed, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(context));
        self.is_done = true;
        Poll::Ready(answer.unwrap_or_else(|_| {
            let message = "the daemon stopped before it answered";
            Err(Failure::new(FailureKind::Unavailable, message))
        }))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_done {
            self.cancelled.store(true, Ordering::Relaxed);
            // The job is dropped after the lock is let go: it may hold the last of a model.
            let job = self.shared.lock().remove(self.id);
            drop(job);
        }
    }
}

fn work(shared: &Shared) {
    while let Some(job) = shared.next() {
        let Job {
            id,
            model,
            inputs,
            budget,
            submitted,
            clock,
            reply,
            ..
        } = job;
        let began = *clock.0.get_or_init(Instant::now);
        let cpu_began = thread_cpu_time();
        let result = contain(|| model.infer(inputs, &budget));
        let is_wasted = matches!(&result, Err(failure) if is_wasted(failure.kind));
        // Whoever drops its `Running` never sees the answer, so only the slots' stop cancels a job
        // that is still waited for.
        let result = result.map_err(|failure| match failure.kind == FailureKind::Cancelled {
            true => stopping(),
            false => failure,
        });
        let service = began.elapsed();
        let completed = result.map(|outputs| Completed {
            outputs,
            queue: began.saturating_duration_since(submitted),
            service,
            cpu: thread_cpu_time().saturating_sub(cpu_began),
        });
        drop(model);
        shared.lock().finish(id, service, is_wasted);
        // A slot that was kept free may now be for a job that waits.
        shared.ready.notify_one();
        // Nobody waits any more if the job was cancelled.
        drop(reply.send(completed));
    }
}

/// Makes a failure of a panic, so that the thread lives on.
fn contain<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        tracing::error!("a run panicked: {}", panic_text(&*panic));
        let message = "the run failed inside the runtime";
        Err(Failure::new(FailureKind::Internal, message))
    })
}

/// Whether a run that failed so gave its slot's time to nobody. A caller's mistake is answered as well.
fn is_wasted(kind: FailureKind) -> bool {
    match kind {
        FailureKind::DeadlineExceeded
        | FailureKind::Cancelled
        | FailureKind::Module
        | FailureKind::Internal => true,
        FailureKind::Invalid
        | FailureKind::NotFound
        | FailureKind::TooLarge
        | FailureKind::Overloaded
        | FailureKind::Unavailable => false,
    }
}

/// What a job gets that the slots stop for.
fn stopping() -> Failure {
    Failure::new(FailureKind::Unavailable, "the daemon is stopping")
}

fn thread_cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_internal_failure_that_tells_the_caller_nothing() {
        let failure = contain::<()>(|| panic!("a secret")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Internal);
        assert!(!failure.message.contains("secret"));
        assert_eq!(contain(|| Ok(1)), Ok(1));
    }
}
