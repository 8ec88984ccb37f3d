//! The gate between local and bursting: quick to open, slow to close.

use std::time::Duration;

use crate::{Mode, Policy, Time};

/// Ticks in a row on which the forecast must pass the threshold.
const ENTER_TICKS: u32 = 2;

/// What a tick saw of the load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Arrivals over the last seconds.
    pub(crate) calm_rps: f64,
    pub(crate) upper_rps: f64,
    pub(crate) capacity_rps: f64,
    /// Whether the capacity is measured rather than a prior.
    pub(crate) known: bool,
    /// Whether the oldest waiting job has waited too long.
    pub(crate) breach: bool,
    /// How long arrivals must be low.
    pub(crate) dwell: Duration,
}

/// The mode, and what the next change waits for.
#[derive(Debug)]
pub(crate) struct Gate {
    mode: Mode,
    enter: f64,
    leave: f64,
    high_ticks: u32,
    low_since: Option<Time>,
    changes: u64,
}

impl Gate {
    pub(crate) fn new(policy: &Policy) -> Self {
        Self {
            mode: Mode::Local,
            enter: policy.burst_enter,
            leave: policy.burst_leave,
            high_ticks: 0,
            low_since: None,
            changes: 0,
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub(crate) fn tick(&mut self, now: Time, seen: &Seen) {
        let high = seen.known && seen.upper_rps >= self.enter * seen.capacity_rps;
        match self.mode {
            Mode::Local => {
                self.high_ticks = if high { self.high_ticks + 1 } else { 0 };
                if self.high_ticks >= ENTER_TICKS || seen.breach {
                    self.turn(Mode::Bursting);
                }
            }
            Mode::Bursting => {
                let low = !high && !seen.breach && seen.calm_rps <= self.leave * seen.capacity_rps;
                let since = low.then(|| *self.low_since.get_or_insert(now));
                self.low_since = since;
                if since.is_some_and(|since| now.0.saturating_sub(since.0) >= seen.dwell) {
                    self.turn(Mode::Local);
                }
            }
        }
    }

    fn turn(&mut self, mode: Mode) {
        self.mode = mode;
        self.changes += 1;
        self.high_ticks = 0;
        self.low_since = None;
    }
}
