//! What each model has of the slots, so that none takes them from the others.
//!
//! Of the models that want a free slot the one with the fewest running jobs gets it, and of those the one
//! that has had the least time: start-time fair queueing (Goyal, Vin and Cheng, 1996) with the time of a
//! run as its cost, which is known only when it ends. A run cannot be taken off its slot before its
//! deadline. So models that waste more of their time than not, in runs that end by a deadline or by a fault
//! of the module, leave one slot to those that do not, as long as there are any.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tidegate_inference::Digest;

/// Models that are remembered; more are forgotten by age.
const MODELS_MAX: usize = 256;

/// How long a model counts as one that wants slots after its last job came.
const WANTS_FOR: Duration = Duration::from_secs(10);

/// How much time of its runs a model is judged by; what is older weighs less.
const JUDGED_BY: f64 = 30.0;

/// How jobs of one model stand to those of others: the least goes first.
pub(super) type Rank = (usize, Duration);

#[derive(Debug, Default)]
pub(super) struct Shares {
    models: HashMap<Digest, Share>,
    /// The served time of the model that began last, which never falls: where those begin that come.
    clock: Duration,
}

#[derive(Debug)]
struct Share {
    waiting: usize,
    running: usize,
    /// Time that its runs took, counted from the clock when it came.
    served: Duration,
    /// Seconds of its runs that gave an answer, and of those that gave none.
    used: f64,
    wasted: f64,
    /// When its last job came.
    seen: Instant,
}

impl Share {
    fn is_idle(&self) -> bool {
        self.waiting + self.running == 0
    }

    /// Whether more of its time is wasted than not; so is that of one that never answered.
    fn wastes(&self) -> bool {
        self.wasted >= self.used
    }
}

impl Shares {
    /// A job waits from now on.
    pub(super) fn joined(&mut self, model: Digest, now: Instant) {
        if self.models.len() >= MODELS_MAX && !self.models.contains_key(&model) {
            self.forget_oldest();
        }
        let share = self.models.entry(model).or_insert(Share {
            waiting: 0,
            running: 0,
            served: self.clock,
            used: 0.0,
            wasted: 0.0,
            seen: now,
        });
        if share.is_idle() {
            // Time in which it wanted nothing is not owed to it.
            share.served = share.served.max(self.clock);
        }
        share.waiting += 1;
        share.seen = now;
    }

    /// A job waits no longer, and does not run.
    pub(super) fn left(&mut self, model: Digest) {
        if let Some(share) = self.models.get_mut(&model) {
            share.waiting -= 1;
        }
    }

    /// A job waits no longer, and runs.
    pub(super) fn began(&mut self, model: Digest) {
        if let Some(share) = self.models.get_mut(&model) {
            share.waiting -= 1;
            share.running += 1;
            self.clock = self.clock.max(share.served);
        }
    }

    /// A job ran this long, and was of use or not.
    pub(super) fn ended(&mut self, model: Digest, service: Duration, is_wasted: bool) {
        if let Some(share) = self.models.get_mut(&model) {
            share.running -= 1;
            share.served += service;
            let sum = match is_wasted {
                true => &mut share.wasted,
                false => &mut share.used,
            };
            *sum += service.as_secs_f64();
            let faded = (JUDGED_BY / (share.used + share.wasted)).min(1.0);
            share.used *= faded;
            share.wasted *= faded;
        }
    }

    pub(super) fn rank(&self, model: Digest) -> Rank {
        let share = self.models.get(&model);
        share.map_or_else(Rank::default, |share| (share.running, share.served))
    }

    /// Whether a job of this model must leave the free slot to others.
    pub(super) fn is_held_back(&self, model: Digest, slots: usize, now: Instant) -> bool {
        let wasting = |share: &&Share| share.wastes();
        let running = || {
            let running = self.models.values().filter(wasting);
            running.map(|share| share.running).sum::<usize>()
        };
        slots > 1 && self.is_wasteful_beside_others(model, now) && running() + 1 >= slots
    }

    /// Whether this model has its share of a queue of this length, and may not have more.
    pub(super) fn has_its_places(&self, model: Digest, len_max: usize, now: Instant) -> bool {
        let waiting = self.models.get(&model).map_or(0, |share| share.waiting);
        waiting >= len_max.div_ceil(2) && self.is_wasteful_beside_others(model, now)
    }

    fn is_wasteful_beside_others(&self, model: Digest, now: Instant) -> bool {
        let wants = |share: &Share| {
            !share.is_idle() || now.saturating_duration_since(share.seen) < WANTS_FOR
        };
        self.models.get(&model).is_some_and(Share::wastes)
            && self
                .models
                .values()
                .any(|share| !share.wastes() && wants(share))
    }

    fn forget_oldest(&mut self) {
        let idle = self.models.iter().filter(|(_, share)| share.is_idle());
        if let Some(model) = idle
            .min_by_key(|(_, share)| share.seen)
            .map(|(model, _)| *model)
        {
            self.models.remove(&model);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn model(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    /// Runs a job of a model to its end.
    fn run(shares: &mut Shares, byte: u8, service: Duration, is_wasted: bool) {
        shares.joined(model(byte), Instant::now());
        shares.began(model(byte));
        shares.ended(model(byte), service, is_wasted);
    }

    #[test]
    fn the_least_served_model_goes_first() {
        let mut shares = Shares::default();
        let now = Instant::now();
        for byte in [1, 2] {
            shares.joined(model(byte), now);
            shares.joined(model(byte), now);
        }
        shares.began(model(1));
        assert!(shares.rank(model(2)) < shares.rank(model(1)));
        shares.ended(model(1), SECOND, false);
        assert!(shares.rank(model(2)) < shares.rank(model(1)));
        shares.began(model(2));
        assert!(shares.rank(model(1)) < shares.rank(model(2)));
        shares.ended(model(2), 3 * SECOND, false);
        assert!(shares.rank(model(1)) < shares.rank(model(2)));
    }

    #[test]
    fn who_rested_or_comes_is_owed_nothing() {
        let mut shares = Shares::default();
        let now = Instant::now();
        run(&mut shares, 1, SECOND, false);
        for _ in 0..100 {
            run(&mut shares, 2, SECOND, false);
        }
        for byte in [1, 2, 3] {
            shares.joined(model(byte), now);
        }
        // The last run of the second model, whose time is known only when it ended, is all that it had more.
        assert_eq!(shares.rank(model(1)), shares.rank(model(3)));
        assert_eq!(shares.rank(model(2)).1, shares.rank(model(3)).1 + SECOND);
    }

    #[test]
    fn models_that_waste_their_runs_leave_a_slot_to_those_that_do_not() {
        let mut shares = Shares::default();
        let now = Instant::now();
        for byte in [1, 2, 3] {
            shares.joined(model(byte), now);
        }
        // As long as nobody has answered, nobody is held back.
        shares.began(model(1));
        assert!(!shares.is_held_back(model(2), 2, now));
        shares.began(model(3));
        shares.ended(model(3), SECOND, false);
        assert!(shares.is_held_back(model(2), 2, now));
        assert!(!shares.is_held_back(model(2), 3, now));
        assert!(!shares.is_held_back(model(2), 1, now));
        assert!(!shares.is_held_back(model(3), 2, now));
        // The model that answered has wanted nothing for long.
        assert!(!shares.is_held_back(model(2), 2, now + WANTS_FOR));
        shares.ended(model(1), SECOND, true);
        for _ in 0..4 {
            run(&mut shares, 1, SECOND, true);
            run(&mut shares, 3, SECOND, false);
        }
        for _ in 0..8 {
            shares.joined(model(1), now);
        }
        assert!(shares.has_its_places(model(1), 16, now));
        assert!(!shares.has_its_places(model(1), 17, now));
        assert!(!shares.has_its_places(model(3), 0, now));
        for _ in 0..8 {
            run(&mut shares, 1, SECOND, false);
        }
        assert!(!shares.has_its_places(model(1), 16, now));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut shares = Shares::default();
        for at in 0..1000_u16 {
            let mut digest = Digest([0; 32]);
            digest.0[..2].copy_from_slice(&at.to_le_bytes());
            shares.joined(digest, Instant::now());
            shares.left(digest);
        }
        assert_eq!(shares.models.len(), MODELS_MAX);
    }
}
