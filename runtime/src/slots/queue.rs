//! Which job runs next. Knows no threads; the slots hold it under a lock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tidegate_inference::{Failure, NamedTensor, Priority};
use tokio::sync::oneshot;

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

/// Jobs that wait, by priority, and those that run.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: [VecDeque<Job>; Priority::ALL.len()],
    running: Vec<(u64, Arc<AtomicBool>)>,
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
        if self.len() >= places {
            self.expire();
        }
        if self.len() >= places {
            return Err(Denied::QueueFull);
        }
        self.next_id += 1;
        job.id = self.next_id;
        self.waiting[rank(job.priority)].push_back(job);
        Ok(self.next_id)
    }

    /// The oldest job of the highest priority that can still be in time; it counts as running.
    pub(super) fn pop(&mut self) -> Option<Job> {
        loop {
            let job = self
                .waiting
                .iter_mut()
                .rev()
                .find_map(VecDeque::pop_front)?;
            match job.budget.check() {
                Ok(()) => {
                    let cancelled = Arc::clone(&job.budget.cancelled);
                    self.running.push((job.id, cancelled));
                    return Some(job);
                }
                Err(stop) => job.refuse(in_queue(stop)),
            }
        }
    }

    /// Frees the slot of a job that ran.
    pub(super) fn finish(&mut self, id: u64) {
        self.running.retain(|(running, _)| *running != id);
    }

    /// Takes a job out of the queue, if it still waits.
    pub(super) fn remove(&mut self, id: u64) -> Option<Job> {
        self.waiting.iter_mut().find_map(|jobs| {
            let at = jobs.iter().position(|job| job.id == id)?;
            jobs.remove(at)
        })
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
        for (_, cancelled) in &self.running {
            cancelled.store(true, Ordering::Relaxed);
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
                    Err(stop) => job.refuse(in_queue(stop)),
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
