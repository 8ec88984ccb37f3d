//! The controller behind its lock, with the clock and the dice that it must not have itself.
//!
//! The lock is held for one call, about a microsecond, and never across an await.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidegate_control::{
    Controller, ModelIndex, Outcome, Plan, Policy, Query, RelayId, RelayLoad, Route, Sample, Time,
};
use tokio::time::Instant;

/// What a request brings to the decision where it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) model: ModelIndex,
    pub(crate) time_left: Duration,
    pub(crate) bytes: usize,
    pub(crate) backlog: usize,
}

/// The one controller of this agent.
#[derive(Debug)]
pub(crate) struct Brain {
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    controller: Controller,
    dice: u64,
}

impl Brain {
    pub(crate) fn new(policy: Policy, models: usize) -> Self {
        let state = State {
            controller: Controller::new(policy, models),
            dice: RandomState::new().build_hasher().finish(),
        };
        Self {
            started: Instant::now(),
            state: Mutex::new(state),
        }
    }

    /// Counts an arrival and decides where it goes.
    pub(crate) fn route(&self, question: Question) -> Route {
        let (mut state, now) = self.lock();
        let query = state.query(question);
        state.controller.route(now, &query)
    }

    /// Decides anew for a request whose placement failed or is silent. Counts no arrival.
    pub(crate) fn route_again(&self, question: Question) -> Route {
        let (mut state, now) = self.lock();
        let query = state.query(question);
        state.controller.route_again(now, &query)
    }

    /// Learns how a placed request ended.
    pub(crate) fn finished(&self, outcome: &Outcome) {
        let (mut state, now) = self.lock();
        state.controller.finished(now, outcome);
    }

    pub(crate) fn relay_reported(&self, relay: RelayId, load: &RelayLoad) {
        let (mut state, now) = self.lock();
        state.controller.relay_reported(now, relay, load);
    }

    pub(crate) fn relay_model_ready(&self, relay: RelayId, model: ModelIndex) {
        let (mut state, now) = self.lock();
        state.controller.relay_model_ready(now, relay, model);
    }

    pub(crate) fn relay_gone(&self, relay: RelayId) {
        let (mut state, now) = self.lock();
        state.controller.relay_gone(now, relay);
    }

    /// One tick.
    pub(crate) fn observe(&self, sample: &Sample) -> Plan {
        let (mut state, now) = self.lock();
        state.controller.observe(now, sample)
    }

    /// The state, and the time read under its lock, so that the controller never sees it go back.
    ///
    /// A panic under the lock leaves the controller with one update half done, which it unlearns;
    /// refusing every request from then on would be worse.
    fn lock(&self) -> (MutexGuard<'_, State>, Time) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state, Time(self.started.elapsed()))
    }
}

impl State {
    fn query(&mut self, question: Question) -> Query {
        Query {
            model: question.model,
            time_left: question.time_left,
            bytes: question.bytes,
            backlog: question.backlog,
            random: self.roll(),
        }
    }

    /// SplitMix64 (Steele, Lea, Flood 2014): fair enough for picking relays, never for secrets.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
