//! Which job runs next. Knows no threads; the slots hold it under a lock.
//!
//! The highest priority first; within it, what [`Shares`] says; within a model, the oldest.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_inference::{Digest, Failure, NamedTensor, Priority};
use tokio::sync::oneshot;

use super::shares::Shares;
use super::{Completed, Denied, RunClock, SlotLoad, stopping};
use crate::budget::{Budget, Stop};
use crate::model::Model;

/// A request on its way to a slot.
#[derive(Debug)]
pub(super) struct Job {
    /// Given by [`Queue::push`].
    pub(super) id: u64,
    pub(super) model: Arc<Model>,
    pub(super) inputs: Vec<NamedTensor>,
    pub(super) priority: Priority,
    pub(super) budget: Budget,
    pub(super) submitted: Instant,
    pub(super) clock: RunClock,
    pub(super) reply: oneshot::Sender<Result<Completed, Failure>>,
}

impl Job {
    fn refuse(self, failure: Failure) {
        // Nobody waits any more if the job was cancelled.
        drop(self.reply.send(Err(failure)));
    }
}

/// A job on its slot.
#[derive(Debug)]
struct Run {
    id: u64,
    model: Digest,
    cancelled: Arc<AtomicBool>,
}

/// Jobs that wait, by priority, and those that run.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: [VecDeque<Job>; Priority::ALL.len()],
    running: Vec<Run>,
    shares: Shares,
    slots: usize,
    len_max: usize,
    next_id: u64,
    is_stopped: bool,
}

impl Queue {
    pub(super) fn new(slots: usize, len_max: usize) -> Self {
        Self {
            waiting: Default::default(),
            running: Vec::with_capacity(slots),
            shares: Shares::default(),
            slots,
            len_max,
            next_id: 0,
            is_stopped: false,
        }
    }

    /// Takes a job if one more may wait. A job that a free slot is about to take does not wait.
    pub(super) fn push(&mut self, mut job: Job) -> Result<u64, Denied> {
        debug_assert!(!self.is_stopped, "only the drop of the slots stops them");
        let places = self.len_max + (self.slots - self.running.len());
        let (model, now) = (job.model.digest(), Instant::now());
        let is_full = |queue: &Self| {
            queue.len() >= places || queue.shares.has_its_places(model, queue.len_max, now)
        };
        if is_full(self) {
            self.expire();
        }
        if is_full(self) {
            return Err(Denied::QueueFull);
        }
        self.next_id += 1;
        job.id = self.next_id;
        self.shares.joined(model, now);
        self.waiting[rank(job.priority)].push_back(job);
        Ok(self.next_id)
    }

    /// The job that is next and can still be in time; it counts as running. None where the free slot must
    /// stay free for others than those that wait.
    pub(super) fn pop(&mut self) -> Option<Job> {
        loop {
            let job = self.take_next()?;
            let model = job.model.digest();
            match job.budget.check() {
                Ok(()) => {
                    self.shares.began(model);
                    self.running.push(Run {
                        id: job.id,
                        model,
                        cancelled: Arc::clone(&job.budget.cancelled),
                    });
                    return Some(job);
                }
                Err(stop) => {
                    self.shares.left(model);
                    job.refuse(in_queue(stop));
                }
            }
        }
    }

    fn take_next(&mut self) -> Option<Job> {
        let (shares, slots, now) = (&self.shares, self.slots, Instant::now());
        self.waiting.iter_mut().rev().find_map(|jobs| {
            let models = jobs.iter().map(|job| job.model.digest());
            let free = models
                .enumerate()
                .filter(|(_, model)| !shares.is_held_back(*model, slots, now));
            // Of equal ranks the first, which has waited longest, is the least.
            let (at, _) = free.min_by_key(|(_, model)| shares.rank(*model))?;
            jobs.remove(at)
        })
    }

    /// Frees the slot of a job that ran this long, and was of use or not.
    pub(super) fn finish(&mut self, id: u64, service: Duration, is_wasted: bool) {
        if let Some(at) = self.running.iter().position(|run| run.id == id) {
            let run = self.running.swap_remove(at);
            self.shares.ended(run.model, service, is_wasted);
        }
    }

    /// Takes a job out of the queue, if it still waits.
    pub(super) fn remove(&mut self, id: u64) -> Option<Job> {
        let job = self.waiting.iter_mut().find_map(|jobs| {
            let at = jobs.iter().position(|job| job.id == id)?;
            jobs.remove(at)
        })?;
        self.shares.left(job.model.digest());
        Some(job)
    }

    pub(super) fn load(&self) -> SlotLoad {
        SlotLoad {
            slots: self.slots,
            busy: self.running.len(),
            queued: self.len(),
        }
    }

    /// Refuses what waits and interrupts what runs.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        for job in self.waiting.iter_mut().flat_map(|jobs| jobs.drain(..)) {
            job.refuse(stopping());
        }
        for run in &self.running {
            run.cancelled.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    fn len(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Answers the jobs whose time is over, which frees their places.
    fn expire(&mut self) {
        for jobs in &mut self.waiting {
            for _ in 0..jobs.len() {
                let Some(job) = jobs.pop_front() else { break };
                match job.budget.check() {
                    Ok(()) => jobs.push_back(job),
                    Err(stop) => {
                        self.shares.left(job.model.digest());
                        job.refuse(in_queue(stop));
                    }
                }
            }
        }
    }
}

fn rank(priority: Priority) -> usize {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}

fn in_queue(stop: Stop) -> Failure {
    let Failure { kind, message, .. } = stop.into();
    Failure::new(kind, format!("{message} while the request waited"))
}
