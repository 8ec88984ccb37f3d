//! The relays as this agent knows them, and which of two to take.
//!
//! Power of two choices (Mitzenmacher, 2001): two usable relays are drawn, the one with the lower
//! cost is taken. The cost is the predicted sojourn, or the recent peak of the seen one if that is
//! higher (peak-EWMA, as in Finagle), so that one slow answer counts at once and fades in seconds.
//! Every failure adds a penalty that fades likewise: a relay that fails repeatedly no longer meets
//! deadlines, and is tried again when the penalty has gone.

mod link;

use link::Link;

use crate::monitor::Moments;
use crate::{ModelIndex, Policy, RelayId, RelayLoad, Time};

/// Most relays that one agent keeps; reports of more are ignored.
const RELAYS_MAX: usize = 1024;
/// Relays that are remembered as gone, so that a late report brings none back.
const GONE_MAX: usize = 64;
/// Time constant of the peaks' and penalties' fading.
const FADE_S: f64 = 2.0;
/// Penalty of one failure, in SLOs.
const PENALTY_SLOS: f64 = 0.5;
/// What an idle relay showed is believed for this long. Then one request tries it again, at the
/// priors: a relay that was slow is not written off.
const BELIEF_S: f64 = 10.0;
/// Bound of the sum of penalties, in SLOs: gone from every deadline for 5 s at most.
const PENALTY_SLOS_MAX: f64 = 8.0;

#[derive(Clone, Debug, Default)]
struct OnRelay {
    ready: bool,
    service: Moments,
}

#[derive(Debug)]
struct Relay {
    id: RelayId,
    load: RelayLoad,
    reported: Time,
    answered: Time,
    in_flight: u32,
    link: Link,
    peak: Fading,
    penalty: Fading,
    models: Vec<OnRelay>,
}

/// A value that fades to nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Fading {
    value: f64,
    at: Time,
}

impl Fading {
    fn at(&self, now: Time) -> f64 {
        if self.value == 0.0 {
            return 0.0;
        }
        self.value * (-now.seconds_since(self.at) / FADE_S).exp()
    }

    fn set(&mut self, now: Time, value: f64) {
        (self.value, self.at) = (value, self.at.max(now));
    }
}

/// A relay that may take a request, and how long that would take, sent to received.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) relay: RelayId,
    pub(crate) sojourn_s: f64,
}

/// What a choice of relay depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Errand {
    pub(crate) model: ModelIndex,
    pub(crate) bytes: usize,
    pub(crate) random: u64,
    /// Service time of the model where the relay has not shown its own.
    pub(crate) service_s: f64,
    /// A sojourn that is short enough.
    pub(crate) enough_s: f64,
}

/// Every relay that this agent is connected to, by ascending number.
#[derive(Debug)]
pub(crate) struct Relays {
    relays: Vec<Relay>,
    gone: Vec<RelayId>,
    models: usize,
    slots_prior: u32,
    round_trip_s: f64,
    slo_s: f64,
}

impl Relays {
    pub(crate) fn new(policy: &Policy, models: usize) -> Self {
        Self {
            relays: Vec::new(),
            gone: Vec::new(),
            models,
            slots_prior: u32::try_from(policy.relay_slots).unwrap_or(u32::MAX),
            round_trip_s: policy.round_trip_prior.as_secs_f64(),
            slo_s: policy.slo.as_secs_f64(),
        }
    }

    pub(crate) fn reported(&mut self, now: Time, id: RelayId, load: &RelayLoad) {
        let mut load = *load;
        if load.slots == 0 {
            load.slots = self.slots_prior;
        }
        if let Some(relay) = self.find(id) {
            (relay.load, relay.reported) = (load, now);
        } else if self.relays.len() < RELAYS_MAX && !self.gone.contains(&id) {
            let at = self.relays.partition_point(|relay| relay.id < id);
            let relay = Relay {
                id,
                load,
                reported: now,
                answered: now,
                in_flight: 0,
                link: Link::default(),
                peak: Fading::default(),
                penalty: Fading::default(),
                models: vec![OnRelay::default(); self.models],
            };
            self.relays.insert(at, relay);
        }
    }

    /// Notes that the relay can run the model. True if it could not run any before.
    pub(crate) fn model_ready(&mut self, id: RelayId, model: ModelIndex) -> bool {
        let Some(relay) = self.find(id) else {
            return false;
        };
        let first = relay.models.iter().all(|on_relay| !on_relay.ready);
        match relay.models.get_mut(model.0) {
            Some(on_relay) => on_relay.ready = true,
            None => return false,
        }
        first
    }

    pub(crate) fn gone(&mut self, id: RelayId) {
        self.relays.retain(|relay| relay.id != id);
        if !self.gone.contains(&id) {
            if self.gone.len() == GONE_MAX {
                self.gone.remove(0);
            }
            self.gone.push(id);
        }
    }

    pub(crate) fn sent(&mut self, id: RelayId) {
        if let Some(relay) = self.find(id) {
            relay.in_flight = relay.in_flight.saturating_add(1);
        }
    }

    /// A request ended there without an answer, and without saying anything of the relay.
    pub(crate) fn dropped(&mut self, id: RelayId) {
        if let Some(relay) = self.find(id) {
            relay.in_flight = relay.in_flight.saturating_sub(1);
        }
    }

    pub(crate) fn failed(&mut self, now: Time, id: RelayId) {
        let (step, max) = (self.slo_s * PENALTY_SLOS, self.slo_s * PENALTY_SLOS_MAX);
        if let Some(relay) = self.find(id) {
            relay.in_flight = relay.in_flight.saturating_sub(1);
            let penalty = (relay.penalty.at(now) + step).min(max);
            relay.penalty.set(now, penalty);
        }
    }

    pub(crate) fn answered(&mut self, now: Time, id: RelayId, model: ModelIndex, answer: &Answer) {
        let Some(relay) = self.find(id) else { return };
        relay.in_flight = relay.in_flight.saturating_sub(1);
        relay.answered = now;
        let travel = (answer.sojourn_s - answer.queue_s - answer.service_s).max(0.0);
        relay.link.learn(now, answer.bytes, travel);
        if let Some(on_relay) = relay.models.get_mut(model.0) {
            on_relay.service.add(now, answer.service_s);
        }
        let faded = relay.peak.at(now);
        relay.peak.set(now, answer.sojourn_s.max(faded));
    }

    /// The better of two usable relays; the best of all if that one is not short enough.
    pub(crate) fn choose(&self, now: Time, errand: &Errand) -> Option<Candidate> {
        let usable = || {
            self.relays
                .iter()
                .filter(|relay| relay.is_usable(errand.model))
        };
        let count = usable().count();
        let candidate = |relay: &Relay| Candidate {
            relay: relay.id,
            sojourn_s: self.sojourn_s(now, relay, errand),
        };
        let chosen = match count {
            0 => return None,
            1 => usable().next().map(candidate)?,
            _ => {
                let (first, second) = two_of(count, errand.random);
                let (left, right) = (usable().nth(first)?, usable().nth(second)?);
                let (a, b) = (candidate(left), candidate(right));
                let cost = |relay: &Relay, sojourn_s: f64| relay.peak.at(now).max(sojourn_s);
                if cost(right, b.sojourn_s) < cost(left, a.sojourn_s) {
                    b
                } else {
                    a
                }
            }
        };
        if chosen.sojourn_s <= errand.enough_s || count <= 1 {
            return Some(chosen);
        }
        usable()
            .map(candidate)
            .min_by(|a, b| a.sojourn_s.total_cmp(&b.sojourn_s))
    }

    /// Each relay that can take work of some model, and its slots.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (RelayId, f64)> {
        let working = self.relays.iter().filter(|relay| {
            !relay.load.draining && relay.models.iter().any(|on_relay| on_relay.ready)
        });
        working.map(|relay| (relay.id, f64::from(relay.load.slots)))
    }

    /// Mean service time over relays and models that have shown one.
    pub(crate) fn service_s(&self) -> Option<f64> {
        let known = self.relays.iter().flat_map(|relay| &relay.models);
        let (sum, count) = known
            .filter_map(|on_relay| on_relay.service.mean())
            .fold((0.0, 0.0), |(sum, count), mean| (sum + mean, count + 1.0));
        (count > 0.0).then(|| sum / count)
    }

    fn sojourn_s(&self, now: Time, relay: &Relay, errand: &Errand) -> f64 {
        let believed = relay.in_flight > 0 || now.seconds_since(relay.answered) < BELIEF_S;
        let least = |shown: Option<f64>, prior: f64| match shown {
            Some(shown) if believed => shown,
            Some(shown) => shown.min(prior),
            None => prior,
        };
        let on_relay = relay.models.get(errand.model.0);
        let service = least(
            on_relay.and_then(|model| model.service.mean()),
            errand.service_s,
        );
        let slots = f64::from(relay.load.slots);
        let reported = relay.load.wait.as_secs_f64() - now.seconds_since(relay.reported);
        let own = (f64::from(relay.in_flight) + 1.0 - slots) / slots * service;
        let travel = least(relay.link.travel_s(errand.bytes), self.round_trip_s);
        travel + reported.max(own).max(0.0) + service + relay.penalty.at(now)
    }

    fn find(&mut self, id: RelayId) -> Option<&mut Relay> {
        let at = self
            .relays
            .binary_search_by_key(&id, |relay| relay.id)
            .ok()?;
        Some(&mut self.relays[at])
    }
}

impl Relay {
    fn is_usable(&self, model: ModelIndex) -> bool {
        !self.load.draining
            && self.in_flight < self.load.credits
            && self
                .models
                .get(model.0)
                .is_some_and(|on_relay| on_relay.ready)
    }
}

/// What an answer says of the relay that gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) sojourn_s: f64,
    pub(crate) queue_s: f64,
    pub(crate) service_s: f64,
    pub(crate) bytes: usize,
}

/// Two different indices below `count`, which is at least 2, from uniform bits.
fn two_of(count: usize, random: u64) -> (usize, usize) {
    let below = |bits: u64, bound: usize| {
        let scaled = ((bits & u64::from(u32::MAX)) * bound as u64) >> 32;
        usize::try_from(scaled).expect("below a bound that is a usize")
    };
    let first = below(random, count);
    let second = below(random >> 32, count - 1);
    (first, if second >= first { second + 1 } else { second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_choices_differ_and_reach_every_index() {
        for count in 2..9 {
            let mut seen = vec![false; count];
            for bits in 0..2000_u64 {
                let (first, second) = two_of(count, bits.wrapping_mul(0x9E37_79B9_7F4A_7C15));
                assert!(first != second && first < count && second < count);
                (seen[first], seen[second]) = (true, true);
            }
            assert!(seen.iter().all(|reached| *reached), "{count}");
        }
    }
}
