//! What is counted of two versions that serve at the same time.
//!
//! A run is bad in one of two ways, each with evidence of its own; the mean of both is evidence again,
//! so one threshold holds for the pair. It *fails* by the module's fault. It is *slow* when its service
//! time, without the queue, which both versions share, is above the 0.9 quantile of the old version's
//! last runs; the new version is allowed [`TOLERANCE`] times that. The quantile is taken between
//! strata, from runs before them, so it favours nobody; and it moves with the load, as both versions do.
//! A run that was given up while it ran is slow if it had run for so long.

use std::collections::VecDeque;
use std::time::Duration;

use super::Cause;
use super::evidence::Evidence;

/// How much slower a new version may be. Below this, runs on a busy machine differ by themselves.
pub(super) const TOLERANCE: f64 = 1.25;

/// Service times that the quantile is taken from.
const WINDOW_LEN: usize = 256;

/// Fewest service times that give a quantile.
const WINDOW_LEN_MIN: usize = 20;

/// What a slow run is slower than. High enough that slowness is rare among equals, which is where a
/// few slow runs say most; low enough that a window has some beyond it.
const QUANTILE_PERCENT: usize = 90;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// With an answer, be it that the request is wrong.
    Answered {
        /// Wall time of the run, without the queue.
        service: Duration,
    },
    /// By the fault of the module or of what runs it.
    Failed,
    /// It was given up while it ran: its deadline passed, or its caller went away.
    GivenUp {
        /// How long it had run.
        service: Duration,
    },
}

/// Counts of one version in a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arm {
    /// Runs that ended.
    pub runs: u64,
    /// Those that failed by the module's fault.
    pub failed: u64,
    /// Those that were slow.
    pub slow: u64,
}

/// What a comparison has come to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Of the new version.
    pub new: Arm,
    /// Of the old version.
    pub old: Arm,
    /// Evidence that the new one is worse; below 1 it speaks for it.
    pub evidence: f64,
}

/// Which version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Old,
    New,
}

/// The last service times of a version.
#[derive(Clone, Debug, Default)]
pub(super) struct Window(VecDeque<Duration>);

impl Window {
    pub(super) fn add(&mut self, ran: Ran) {
        if let Ran::Answered { service } = ran {
            if self.0.len() == WINDOW_LEN {
                self.0.pop_front();
            }
            self.0.push_back(service);
        }
    }

    fn quantile(&self) -> Option<Duration> {
        if self.0.len() < WINDOW_LEN_MIN {
            return None;
        }
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() * QUANTILE_PERCENT / 100).copied()
    }
}

/// Two versions side by side.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    new: Arm,
    old: Arm,
    failures: Evidence,
    latency: Evidence,
    window: Window,
    slow_above: Option<Duration>,
}

impl Comparison {
    /// Nothing counted yet, where `new_share` of the requests are the new version's.
    pub(super) fn new(new_share: f64, old_window: &Window) -> Self {
        Self {
            new: Arm::default(),
            old: Arm::default(),
            failures: Evidence::new(new_share),
            latency: Evidence::new(new_share),
            slow_above: old_window.quantile(),
            window: old_window.clone(),
        }
    }

    pub(super) fn add(&mut self, side: Side, ran: Ran) {
        let is_slow = match (ran, self.slow_above) {
            (Ran::Answered { service } | Ran::GivenUp { service }, Some(above)) => match side {
                Side::Old => service > above,
                Side::New => service > above.mul_f64(TOLERANCE),
            },
            (Ran::Answered { .. } | Ran::Failed, _) => false,
            (Ran::GivenUp { .. }, None) => true,
        };
        if matches!(ran, Ran::GivenUp { .. }) && !is_slow {
            return;
        }
        let (arm, is_new) = match side {
            Side::Old => (&mut self.old, false),
            Side::New => (&mut self.new, true),
        };
        arm.runs += 1;
        let bad = |evidence: &mut Evidence| match is_new {
            true => evidence.new_was_bad(),
            false => evidence.old_was_bad(),
        };
        if ran == Ran::Failed {
            arm.failed += 1;
            bad(&mut self.failures);
        }
        if is_slow {
            arm.slow += 1;
            bad(&mut self.latency);
        }
        if side == Side::Old {
            self.window.add(ran);
        }
    }

    /// A stratum has ended.
    pub(super) fn turn(&mut self) {
        self.slow_above = self.window.quantile();
    }

    /// What the new version is worse in, if the evidence reaches `evidence_min`.
    pub(super) fn verdict(&self, evidence_min: f64) -> Option<Cause> {
        let (failures, latency) = (self.failures.value(), self.latency.value());
        if (failures + latency) / 2.0 < evidence_min {
            return None;
        }
        Some(match failures >= latency {
            true => Cause::Failures,
            false => Cause::Latency,
        })
    }

    pub(super) fn figures(&self) -> Figures {
        Figures {
            new: self.new,
            old: self.old,
            evidence: (self.failures.value() + self.latency.value()) / 2.0,
        }
    }

    pub(super) fn into_old_window(self) -> Window {
        self.window
    }
}
