//! The models that this agent serves, each with the versions that are live.
//!
//! A model has a seat, numbered as its module is listed in the configuration, which is how the
//! controller knows it whatever the version. A seat is empty until its first version is there. While a
//! new version comes in, two are live, and [`Rollout`] says which of them serves a request; a request
//! holds the version that serves it, so a switch disturbs none that is under way. Each seat has a lock
//! of its own, held for a look-up and never across an await.

mod trial;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tidegate_control::rollout::{BeginError, Ran, Rollout, RolloutPolicy, Stage, Turn};
use tidegate_control::{ModelIndex, Time};
use tidegate_inference::{Digest, Failure, FailureKind, ModelMetadata};
use tidegate_registry::KeptModule;
use tidegate_runtime::Model;
use tokio::time::Instant;

pub(crate) use self::trial::Trial;
use crate::admission::RETRY_AFTER;
use crate::supply::Prepared;

/// One version of a model, ready to run.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) index: ModelIndex,
    pub(crate) model: Arc<Model>,
    #[expect(
        dead_code,
        reason = "held for what its drop releases: the file in the store"
    )]
    pub(crate) kept: Option<KeptModule>,
}

impl Served {
    fn new(index: ModelIndex, prepared: Prepared) -> Arc<Self> {
        let Prepared { model, kept } = prepared;
        Arc::new(Self { index, model, kept })
    }

    pub(crate) fn metadata(&self) -> &ModelMetadata {
        self.model.metadata()
    }

    pub(crate) fn digest(&self) -> Digest {
        self.model.digest()
    }
}

/// Which versions may answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pin {
    /// Any that is live: the caller named none.
    Any,
    /// The one that the caller named.
    This,
}

/// Why a version does not become the first one of a seat.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("model {name:?} is served already, by the module that is number {} of the list", first.0 + 1)]
pub(crate) struct NameTaken {
    pub(crate) name: String,
    pub(crate) first: ModelIndex,
}

/// Why a version cannot follow the one that is served.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FollowError {
    /// It calls itself otherwise.
    #[error("it is named {new:?}, and follows {old:?}")]
    Name {
        /// What it calls itself.
        new: String,
        /// What is served.
        old: String,
    },
    /// Callers could not tell which of two interfaces answers them.
    #[error("its {what} differ from those that are served: publish it under another name")]
    Interface {
        /// Inputs or outputs.
        what: &'static str,
    },
    /// The rollout does not begin.
    #[error(transparent)]
    Begin(#[from] BeginError),
}

/// A turn of a rollout, and what it concerns.
#[derive(Debug)]
pub(crate) struct Turned {
    pub(crate) model: ModelIndex,
    pub(crate) turn: Turn,
    /// The version that serves everything, or nearly, from now on.
    pub(crate) current: Arc<Served>,
    /// The version that is live no more.
    pub(crate) left: Option<Arc<Served>>,
}

/// A live version, for a listing.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) served: Arc<Served>,
    /// Share of the requests that a rollout gives it; 1 for the only one.
    pub(crate) share: f64,
}

/// All models, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Models {
    policy: RolloutPolicy,
    started: Instant,
    seats: Vec<Mutex<Option<Seat>>>,
    by_name: RwLock<BTreeMap<Arc<str>, ModelIndex>>,
}

#[derive(Debug)]
struct Seat {
    current: Arc<Served>,
    /// The new version in a canary, the old one in a watch.
    beside: Option<Arc<Served>>,
    rollout: Rollout,
    /// At most three between two ticks: more do not fit in a rollout.
    turned: Vec<Turned>,
}

impl Models {
    /// `len` empty seats.
    pub(crate) fn new(policy: RolloutPolicy, len: usize) -> Self {
        Self {
            policy,
            started: Instant::now(),
            seats: (0..len).map(|_| Mutex::default()).collect(),
            by_name: RwLock::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.seats.len()
    }

    /// Seats whose first version is not there yet.
    pub(crate) fn empty_seats(&self) -> usize {
        let is_empty = |seat: &&Mutex<Option<Seat>>| lock(seat).is_none();
        self.seats.iter().filter(is_empty).count()
    }

    /// Seats a first version. `refused` were rolled back before.
    pub(crate) fn install(
        &self,
        index: ModelIndex,
        prepared: Prepared,
        refused: impl IntoIterator<Item = Digest>,
    ) -> Result<(), NameTaken> {
        let name: Arc<str> = prepared.model.metadata().name.as_str().into();
        let mut by_name = self.by_name.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(first) = by_name.get(&name).filter(|first| **first != index) {
            return Err(NameTaken {
                name: name.as_ref().to_owned(),
                first: *first,
            });
        }
        by_name.insert(name, index);
        let rollout = Rollout::new(self.policy, prepared.model.digest(), refused);
        *lock(&self.seats[index.0]) = Some(Seat {
            current: Served::new(index, prepared),
            beside: None,
            rollout,
            turned: Vec::new(),
        });
        Ok(())
    }

    /// Begins the rollout of a new version into a seat that has one.
    pub(crate) fn follow(&self, index: ModelIndex, prepared: Prepared) -> Result<(), FollowError> {
        let now = self.now();
        let mut seat = lock(&self.seats[index.0]);
        let Some(seat) = seat.as_mut() else {
            debug_assert!(false, "only a seat that has a version is followed");
            return Ok(());
        };
        let (old, new) = (seat.current.metadata(), prepared.model.metadata());
        if new.name != old.name {
            return Err(FollowError::Name {
                new: new.name.clone(),
                old: old.name.clone(),
            });
        }
        for (what, new, old) in [
            ("inputs", &new.inputs, &old.inputs),
            ("outputs", &new.outputs, &old.outputs),
        ] {
            if new != old {
                return Err(FollowError::Interface { what });
            }
        }
        seat.rollout.begin(now, prepared.model.digest())?;
        seat.beside = Some(Served::new(index, prepared));
        Ok(())
    }

    /// Whether `new` could come into this seat now; always where the seat is empty.
    pub(crate) fn may_follow(&self, index: ModelIndex, new: Digest) -> Result<(), BeginError> {
        match &*lock(&self.seats[index.0]) {
            Some(seat) => seat.rollout.may_begin(new),
            None => Ok(()),
        }
    }

    /// The model of this name, and of this version where one is asked for.
    pub(crate) fn find(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<(Arc<Served>, Pin), Failure> {
        let not_found = |message| Failure::new(FailureKind::NotFound, message);
        let missing = || match self.empty_seats() {
            0 => not_found(format!("there is no model {name:?}")),
            empty => {
                let message = format!("there is no model {name:?} yet: {empty} are still to come");
                Failure::new(FailureKind::Unavailable, message).retry_after(RETRY_AFTER)
            }
        };
        let index = self.index(name).ok_or_else(missing)?;
        let seat = lock(&self.seats[index.0]);
        let seat = seat
            .as_ref()
            .ok_or_else(|| not_found(format!("there is no model {name:?}")))?;
        let Some(wanted) = version else {
            return Ok((Arc::clone(&seat.current), Pin::Any));
        };
        let live = || std::iter::once(&seat.current).chain(&seat.beside);
        live()
            .find(|served| served.metadata().version == wanted)
            .map(|served| (Arc::clone(served), Pin::This))
            .ok_or_else(|| {
                let has: Vec<_> = live().map(|served| &served.metadata().version).collect();
                not_found(format!(
                    "model {name:?} has version {has:?}, not {wanted:?}"
                ))
            })
    }

    /// The version that serves the next request to this seat that runs here.
    pub(crate) fn pick(&self, served: &Arc<Served>) -> Arc<Served> {
        let mut seat = lock(&self.seats[served.index.0]);
        let Some(seat) = seat.as_mut() else {
            return Arc::clone(served);
        };
        let picked = seat.rollout.pick();
        let beside = seat.beside.as_ref();
        Arc::clone(
            beside
                .filter(|beside| beside.digest() == picked)
                .unwrap_or(&seat.current),
        )
    }

    /// The version that `served` came after, as long as it is live.
    pub(crate) fn before(&self, served: &Served) -> Option<Arc<Served>> {
        let seat = lock(&self.seats[served.index.0]);
        let seat = seat.as_ref()?;
        let is_current = served.digest() == seat.current.digest();
        match (seat.rollout.stage(), is_current) {
            (Stage::Stable | Stage::Canary { .. }, false) => Some(Arc::clone(&seat.current)),
            (Stage::Watch { .. }, true) => seat.beside.clone(),
            (Stage::Stable | Stage::Canary { .. }, true) | (Stage::Watch { .. }, false) => None,
        }
    }

    /// Whether `served` is what its seat serves beside no other, or before it.
    pub(crate) fn is_current(&self, served: &Served) -> bool {
        let seat = lock(&self.seats[served.index.0]);
        let current = seat.as_ref().map(|seat| seat.current.digest());
        current == Some(served.digest())
    }

    /// Learns what became of a run, and switches versions where that decides a rollout.
    fn ran(&self, served: &Served, ran: Ran) {
        let now = self.now();
        if let Some(seat) = lock(&self.seats[served.index.0]).as_mut()
            && let Some(turn) = seat.rollout.ran(now, served.digest(), ran)
        {
            seat.turn(turn);
        }
    }

    /// Lets time decide the rollouts whose time is over; gives every turn since it was last called.
    pub(crate) fn tick(&self) -> Vec<Turned> {
        let now = self.now();
        let mut turned = Vec::new();
        for seat in &self.seats {
            if let Some(seat) = lock(seat).as_mut() {
                if let Some(turn) = seat.rollout.tick(now) {
                    seat.turn(turn);
                }
                turned.append(&mut seat.turned);
            }
        }
        turned
    }

    /// What each seat serves, without what is only tried: the versions that relays are to run.
    pub(crate) fn current(&self) -> Vec<Arc<Served>> {
        let current = |seat: &Mutex<Option<Seat>>| {
            let seat = lock(seat);
            seat.as_ref().map(|seat| Arc::clone(&seat.current))
        };
        self.seats.iter().filter_map(current).collect()
    }

    /// Every live version of a seat; what is current comes first.
    pub(crate) fn live(&self, index: ModelIndex) -> Vec<Live> {
        let seat = lock(&self.seats[index.0]);
        let Some(seat) = seat.as_ref() else {
            return Vec::new();
        };
        let share = seat.rollout.share();
        let current = Live {
            served: Arc::clone(&seat.current),
            share: 1.0 - share,
        };
        let beside = seat.beside.iter().map(|beside| Live {
            served: Arc::clone(beside),
            share,
        });
        std::iter::once(current).chain(beside).collect()
    }

    /// The digests that were rolled back in a seat, oldest first.
    pub(crate) fn refused(&self, index: ModelIndex) -> Vec<Digest> {
        let seat = lock(&self.seats[index.0]);
        seat.iter()
            .flat_map(|seat| seat.rollout.refused())
            .collect()
    }

    /// The seat of the model of this name.
    pub(crate) fn index(&self, name: &str) -> Option<ModelIndex> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name.get(name).copied()
    }

    /// `name` as this process holds it where a model has it, or the empty string: safe as a label.
    pub(crate) fn known_name(&self, name: &str) -> Arc<str> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        by_name
            .get_key_value(name)
            .map_or_else(|| Arc::from(""), |(name, _)| Arc::clone(name))
    }

    fn now(&self) -> Time {
        Time(self.started.elapsed())
    }
}

impl Seat {
    /// Does what `turn` says. The rollout knows already.
    fn turn(&mut self, turn: Turn) {
        let beside = self.beside.take();
        let is_current = |served: &Arc<Served>| served.digest() == self.rollout.current();
        let left = match beside {
            Some(beside) if is_current(&beside) => {
                let before = std::mem::replace(&mut self.current, beside);
                match self.rollout.stage() {
                    Stage::Watch { .. } => {
                        self.beside = Some(before);
                        None
                    }
                    Stage::Stable | Stage::Canary { .. } => Some(before),
                }
            }
            other => other,
        };
        self.turned.push(Turned {
            model: self.current.index,
            turn,
            current: Arc::clone(&self.current),
            left,
        });
    }
}

fn lock(seat: &Mutex<Option<Seat>>) -> MutexGuard<'_, Option<Seat>> {
    seat.lock().unwrap_or_else(PoisonError::into_inner)
}
