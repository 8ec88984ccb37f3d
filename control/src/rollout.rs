//! One model's way from one version to the next: canary, promotion, watch, or back.
//!
//! ```text
//!   Stable(old) ──begin──▶ Canary(old, new) ──not worse──▶ Watch(new, old) ──not worse──▶ Stable(new)
//!        ▲                        │ worse                       │ worse
//!        └────────────────────────┴─────────────────────────────┘   new is refused from now on
//! ```
//!
//! In the canary the new version serves [`RolloutPolicy::canary_share`] of the requests, in the watch
//! the old one does: both are always measured over the same period, in the same weather, because a
//! version that is compared with last night's looks bad on any busy morning. Which request goes to
//! which version is decided before its outcome can be known (`strata`), so the comparison is that of a
//! randomised trial (`evidence` holds the statistic and its error bounds, `comparison` what counts as
//! bad). It is looked at once a stratum and may stop at any look:
//!
//! - rolled back as soon as the evidence reaches [`EVIDENCE_MIN`]: an equal version gets there with a
//!   probability of at most 1 in 100, whatever the number of looks;
//! - promoted after [`RolloutPolicy::requests_min`] finished requests if the evidence leans towards the
//!   new version; of a version that always failed 4 and of one that is far slower a dozen suffice for
//!   the way back, and 100 requests without a failure leave at most 4.5 % of failures at 99 %;
//! - at [`RolloutPolicy::canary_max`], and when the watch ends, the new version wins unless the evidence
//!   is [`EVIDENCE_LATE_MIN`] or more, which an equal one reaches with at most 1 in 20. Where no request
//!   came at all it wins too: its samples were checked before.
//!
//! A version that was rolled back is not begun again. Every rollout ends: by evidence, or by time.

mod comparison;
mod evidence;
mod policy;
mod strata;

use std::collections::VecDeque;
use std::fmt;

use tidegate_inference::Digest;

pub use self::comparison::{Arm, Figures, Ran};
pub use self::policy::{RolloutPolicy, SHARE_MAX, SHARE_MIN};

use self::comparison::{Comparison, Side, Window};
use self::strata::{Part, Strata};
use crate::Time;

/// Evidence that ends a rollout at any time. By Ville's inequality an equal version reaches it with a
/// probability of at most its inverse.
pub const EVIDENCE_MIN: f64 = 100.0;

/// Evidence that ends a rollout when its time is over.
pub const EVIDENCE_LATE_MIN: f64 = 20.0;

/// Most digests that are remembered as rolled back; beyond it the oldest is forgotten.
pub const REFUSED_MAX: usize = 64;

/// What a rollout is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// One version serves everything.
    Stable,
    /// The new version serves the share.
    Canary {
        /// Its digest.
        new: Digest,
    },
    /// The new version was promoted; the old one serves the share and may come back.
    Watch {
        /// Digest of the old version.
        old: Digest,
    },
}

/// A change of stage, which the caller must act on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Turn {
    /// The canary is over: the new version is the model now, the old one is kept beside it.
    Promoted {
        /// The version that came.
        new: Digest,
        /// What it was promoted on.
        figures: Figures,
    },
    /// The old version serves everything again. The new one may be dropped.
    RolledBack {
        /// The version that went.
        new: Digest,
        /// Why.
        cause: Cause,
        /// What it was rolled back on.
        figures: Figures,
    },
    /// The watch is over. The old version may be dropped.
    Settled {
        /// The version that went.
        old: Digest,
    },
}

/// What made a version go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It failed more often than the old one.
    Failures,
    /// It was slow more often than the old one.
    Latency,
}

impl Cause {
    /// A stable name for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Latency => "latency",
        }
    }
}

/// Why a rollout does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeginError {
    /// Another rollout of this model is under way.
    Busy,
    /// The version serves already.
    Current,
    /// The version was rolled back before.
    RolledBack,
}

impl fmt::Display for BeginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "another version is being rolled out",
            Self::Current => "this version serves already",
            Self::RolledBack => "this version was rolled back before",
        })
    }
}

impl std::error::Error for BeginError {}

/// The versions of one model, and which of them serves a request.
///
/// Pure: the caller brings the time and what became of the requests, in any order.
#[derive(Clone, Debug)]
pub struct Rollout {
    policy: RolloutPolicy,
    current: Digest,
    /// Service times of `current`, against which the next version is measured.
    window: Window,
    trial: Option<Trial>,
    refused: VecDeque<Digest>,
}

/// A comparison under way.
#[derive(Clone, Debug)]
struct Trial {
    phase: Phase,
    /// Beside [`Rollout::current`]: the new version in the canary, the old one in the watch.
    other: Digest,
    since: Time,
    strata: Strata,
    comparison: Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Canary,
    Watch,
}

impl Phase {
    fn side(self, is_current: bool) -> Side {
        match (self, is_current) {
            (Self::Canary, true) | (Self::Watch, false) => Side::Old,
            (Self::Canary, false) | (Self::Watch, true) => Side::New,
        }
    }
}

impl Rollout {
    /// A model whose version `current` serves everything. `refused` were rolled back before, oldest
    /// first. Policy values out of range are clamped.
    #[must_use]
    pub fn new(
        policy: RolloutPolicy,
        current: Digest,
        refused: impl IntoIterator<Item = Digest>,
    ) -> Self {
        let mut rollout = Self {
            policy: policy.clamped(),
            current,
            window: Window::default(),
            trial: None,
            refused: VecDeque::new(),
        };
        refused
            .into_iter()
            .for_each(|digest| rollout.refuse(digest));
        rollout
    }

    /// The version that serves what no comparison takes away.
    #[must_use]
    pub fn current(&self) -> Digest {
        self.current
    }

    /// What is under way.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match &self.trial {
            None => Stage::Stable,
            Some(trial) => match trial.phase {
                Phase::Canary => Stage::Canary { new: trial.other },
                Phase::Watch => Stage::Watch { old: trial.other },
            },
        }
    }

    /// Share of the requests that the version beside [`Self::current`] serves; 0 without one.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.trial
            .as_ref()
            .map_or(0.0, |_| self.policy.canary_share)
    }

    /// The versions that were rolled back, oldest first; at most [`REFUSED_MAX`].
    pub fn refused(&self) -> impl Iterator<Item = Digest> {
        self.refused.iter().copied()
    }

    /// Whether `new` could begin now.
    pub fn may_begin(&self, new: Digest) -> Result<(), BeginError> {
        if new == self.current {
            Err(BeginError::Current)
        } else if self.refused.contains(&new) {
            Err(BeginError::RolledBack)
        } else if self.trial.is_some() {
            Err(BeginError::Busy)
        } else {
            Ok(())
        }
    }

    /// Begins the canary of `new`.
    pub fn begin(&mut self, now: Time, new: Digest) -> Result<(), BeginError> {
        self.may_begin(new)?;
        let share = self.policy.canary_share;
        self.trial = Some(Trial {
            phase: Phase::Canary,
            other: new,
            since: now,
            strata: Strata::new(share, seed(new)),
            comparison: Comparison::new(share, &self.window),
        });
        Ok(())
    }

    /// Which version serves the next request: of the first n requests of a stage, at most n times the
    /// share and one more go to the version beside [`Self::current`].
    pub fn pick(&mut self) -> Digest {
        let Some(trial) = &mut self.trial else {
            return self.current;
        };
        match trial.strata.draw() {
            Part::Share => trial.other,
            Part::Rest => self.current,
        }
    }

    /// Learns what became of a request that `version` served. One of a version that is no longer here
    /// teaches nothing.
    pub fn ran(&mut self, now: Time, version: Digest, ran: Ran) -> Option<Turn> {
        if version == self.current {
            self.window.add(ran);
        }
        let trial = self.trial.as_mut()?;
        let is_current = version == self.current;
        if !is_current && version != trial.other {
            return None;
        }
        trial.comparison.add(trial.phase.side(is_current), ran);
        match trial.strata.has_turned() {
            true => self.look(now),
            false => None,
        }
    }

    /// What the time alone decides. To be called every second or so.
    pub fn tick(&mut self, now: Time) -> Option<Turn> {
        let trial = self.trial.as_ref()?;
        let max = match trial.phase {
            Phase::Canary => self.policy.canary_max,
            Phase::Watch => self.policy.watch,
        };
        if now < trial.since.after(max) {
            return None;
        }
        match trial.comparison.verdict(EVIDENCE_LATE_MIN) {
            Some(cause) => self.roll_back(cause),
            None => self.advance(now),
        }
    }

    fn look(&mut self, now: Time) -> Option<Turn> {
        let trial = self.trial.as_mut()?;
        trial.comparison.turn();
        if let Some(cause) = trial.comparison.verdict(EVIDENCE_MIN) {
            return self.roll_back(cause);
        }
        let figures = trial.comparison.figures();
        let is_enough = figures.new.runs >= self.policy.requests_min && figures.evidence <= 1.0;
        match trial.phase {
            Phase::Canary if is_enough => self.advance(now),
            Phase::Canary | Phase::Watch => None,
        }
    }

    /// From the canary to the watch, and from there to rest.
    fn advance(&mut self, now: Time) -> Option<Turn> {
        let trial = self.trial.take()?;
        match trial.phase {
            Phase::Watch => Some(Turn::Settled { old: trial.other }),
            Phase::Canary => {
                let figures = trial.comparison.figures();
                let share = self.policy.canary_share;
                let new = trial.other;
                let old = std::mem::replace(&mut self.current, new);
                let old_window = std::mem::take(&mut self.window);
                self.trial = Some(Trial {
                    phase: Phase::Watch,
                    other: old,
                    since: now,
                    strata: Strata::new(share, seed(old)),
                    comparison: Comparison::new(1.0 - share, &old_window),
                });
                Some(Turn::Promoted { new, figures })
            }
        }
    }

    fn roll_back(&mut self, cause: Cause) -> Option<Turn> {
        let trial = self.trial.take()?;
        let figures = trial.comparison.figures();
        let new = match trial.phase {
            Phase::Canary => trial.other,
            Phase::Watch => {
                self.window = trial.comparison.into_old_window();
                std::mem::replace(&mut self.current, trial.other)
            }
        };
        self.refuse(new);
        Some(Turn::RolledBack {
            new,
            cause,
            figures,
        })
    }

    fn refuse(&mut self, digest: Digest) {
        if !self.refused.contains(&digest) {
            if self.refused.len() == REFUSED_MAX {
                self.refused.pop_front();
            }
            self.refused.push_back(digest);
        }
    }
}

/// The places of the strata differ from version to version and are the same in every replay.
fn seed(version: Digest) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = version.0;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
