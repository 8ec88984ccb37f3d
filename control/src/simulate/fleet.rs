//! Simulated relays: start, serve, drain, die.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Fleet, Random};
use crate::{RelayId, RelayLoad, Time};

/// Requests that one agent may have in flight at a relay, beyond its queue's bound.
const CREDITS: u32 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Ready,
    Draining,
}

/// A job on a relay, by the request's index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) request: usize,
    pub(super) came: Time,
}

#[derive(Debug)]
pub(super) struct Relay {
    pub(super) id: RelayId,
    pub(super) state: State,
    pub(super) started: Time,
    /// Requests sent to it and not yet answered or failed, wherever they are.
    pub(super) in_flight: Vec<usize>,
    queue: VecDeque<Job>,
    busy: usize,
}

/// A job that a relay began to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) request: usize,
    pub(super) queue: Duration,
    pub(super) service: Duration,
}

impl Relay {
    pub(super) fn new(id: RelayId, state: State, started: Time) -> Self {
        Self {
            id,
            state,
            started,
            in_flight: Vec::new(),
            queue: VecDeque::new(),
            busy: 0,
        }
    }

    /// Takes a job, unless the queue is full.
    pub(super) fn take(&mut self, fleet: &Fleet, job: Job) -> bool {
        let fits = self.queue.len() < fleet.queue_len_max;
        if fits {
            self.queue.push_back(job);
        }
        fits
    }

    /// Begins the next job if a slot is free.
    pub(super) fn begin(&mut self, now: Time, fleet: &Fleet, random: &mut Random) -> Option<Begun> {
        if self.busy >= fleet.scale.relay_slots.max(1) {
            return None;
        }
        let job = self.queue.pop_front()?;
        self.busy += 1;
        Some(Begun {
            request: job.request,
            queue: now.0.saturating_sub(job.came.0),
            service: fleet.service.draw(random),
        })
    }

    pub(super) fn end(&mut self) {
        self.busy -= 1;
    }

    pub(super) fn load(&self, fleet: &Fleet) -> RelayLoad {
        let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let slots = count(fleet.scale.relay_slots.max(1));
        let ahead = (count(self.queue.len() + self.busy) + 1).saturating_sub(slots);
        RelayLoad {
            slots,
            busy: count(self.busy),
            queued: count(self.queue.len()),
            wait: fleet.service.mean * ahead / slots,
            draining: self.state == State::Draining,
            credits: CREDITS,
        }
    }
}
