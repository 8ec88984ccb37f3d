//! What this device sustains, learnt from what it ran.
//!
//! Per model: arrivals, service time, and CPU time over wall time. Together they give the present
//! mix, its mean service time and spread, and so the capacity in slots' worth of work per second:
//! `kappa * rho* * c`. A model's own capacity is what the others leave of it, over its service
//! time.
//!
//! Before a model has run, a prior stands in for its service time, and [`Monitor::knows`] says so.

mod capacity;
mod decayed;

use std::time::Duration;

use capacity::{Evidence, Kappa, utilisation_max};
use decayed::Rate;
pub(crate) use decayed::{Moments, TAU_S};

use crate::{ModelIndex, Policy, Sample, Time};

/// Relative change of the mix's service time or spread that is worth a new utilisation bound.
const CHANGE_MIN: f64 = 0.01;
/// Host utilisation above which others may hold the CPU.
const HOST_BUSY: f64 = 0.95;
/// Time constant of the rate that is given to this device.
const GIVEN_TAU_S: f64 = 1.0;
/// Arrivals per second that are too few to tell a mix by.
const RATE_MIN: f64 = 1e-6;
/// Slots left by the smallest quota.
const SLOTS_USABLE_MIN: f64 = 0.01;
/// Shortest service time that is believed.
pub(crate) const SERVICE_MIN_S: f64 = 1e-6;

#[derive(Clone, Copy, Debug, Default)]
struct ModelLoad {
    arrivals: Rate,
    service: Moments,
    cpu: Moments,
}

/// Mean service time and squared coefficient of variation of the present mix.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Mix {
    service_s: f64,
    variation: f64,
}

/// The device's memory of its own load.
#[derive(Debug)]
pub(crate) struct Monitor {
    models: Vec<ModelLoad>,
    slots: f64,
    slo_s: f64,
    prior_s: f64,
    breach_s: f64,
    kappa: Kappa,
    utilisation: f64,
    /// The slots and mix that `utilisation` was computed for.
    computed_for: (f64, Mix),
    mix: Mix,
    /// Worker threads, or fewer where the CPU quota runs out first.
    slots_usable: f64,
    given_tick: f64,
    given_rate: f64,
}

impl Monitor {
    pub(crate) fn new(policy: &Policy, models: usize) -> Self {
        let prior_s = policy.service_prior.as_secs_f64().max(SERVICE_MIN_S);
        let mix = Mix {
            service_s: prior_s,
            variation: 1.0,
        };
        let slots = policy.slots as f64;
        let slo_s = policy.slo.as_secs_f64();
        Self {
            models: vec![ModelLoad::default(); models],
            slots,
            slo_s,
            prior_s,
            breach_s: slo_s * policy.queue_breach,
            kappa: Kappa::default(),
            utilisation: utilisation_max(slots, mix.service_s, mix.variation, slo_s),
            computed_for: (slots, mix),
            mix,
            slots_usable: slots,
            given_tick: 0.0,
            given_rate: 0.0,
        }
    }

    pub(crate) fn arrived(&mut self, now: Time, model: ModelIndex) {
        if let Some(load) = self.models.get_mut(model.0) {
            load.arrivals.count(now);
        }
    }

    /// Notes that a request was given to this device.
    pub(crate) fn given(&mut self, model: ModelIndex) {
        self.given_tick += self.service_s(model);
    }

    pub(crate) fn ran(&mut self, now: Time, model: ModelIndex, service: Duration, cpu: Duration) {
        if let Some(load) = self.models.get_mut(model.0) {
            load.service
                .add(now, service.as_secs_f64().max(SERVICE_MIN_S));
            load.cpu.add(now, cpu.as_secs_f64());
        }
    }

    /// Whether the model has run here.
    pub(crate) fn knows(&self, model: ModelIndex) -> bool {
        self.models
            .get(model.0)
            .is_some_and(|load| load.service.mean().is_some())
    }

    /// Whether any model has run here.
    pub(crate) fn knows_any(&self) -> bool {
        self.models.iter().any(|load| load.service.mean().is_some())
    }

    /// Mean service time of a model, or the prior.
    pub(crate) fn service_s(&self, model: ModelIndex) -> f64 {
        let mean = self
            .models
            .get(model.0)
            .and_then(|load| load.service.mean());
        mean.unwrap_or(self.prior_s)
    }

    /// Mean service time of the present mix.
    pub(crate) fn mix_service_s(&self) -> f64 {
        self.mix.service_s
    }

    /// Worker threads. Measured run times over these predict a wait; what a sensor says of the CPU
    /// moves the capacity only, so that no request is refused on a sensor's word.
    pub(crate) fn slots(&self) -> f64 {
        self.slots
    }

    /// One tick: learns the mix, the trust in the model, and the utilisation bound.
    pub(crate) fn tick(&mut self, now: Time, elapsed_s: f64, sample: &Sample) {
        self.mix = self.present_mix(now);
        // A run that a quota stretches shows it in its wall time, and in the share of it on the
        // CPU: the quota over that share counts the slots without counting the stretch twice.
        let quota = sample
            .cpu_quota
            .filter(|quota| quota.is_finite() && *quota > 0.0);
        let usable = quota
            .zip(self.cpu_ratio(now))
            .map_or(self.slots, |(quota, ratio)| quota / ratio);
        self.slots_usable = usable.max(SLOTS_USABLE_MIN).min(self.slots);
        let evidence = self.evidence(elapsed_s, sample);
        self.kappa.learn(evidence);

        let (slots, mix) = self.computed_for;
        let moved = |old: f64, new: f64| (new - old).abs() > CHANGE_MIN * old.max(SERVICE_MIN_S);
        if moved(slots, self.slots_usable)
            || moved(mix.service_s, self.mix.service_s)
            || moved(1.0 + mix.variation, 1.0 + self.mix.variation)
        {
            self.computed_for = (self.slots_usable, self.mix);
            let Mix {
                service_s,
                variation,
            } = self.mix;
            self.utilisation = utilisation_max(self.slots_usable, service_s, variation, self.slo_s);
        }
    }

    /// Work per second that this device sustains within the SLO, in slots.
    pub(crate) fn capacity(&self) -> f64 {
        self.kappa.value() * self.utilisation * self.slots_usable
    }

    /// Requests per second of the present mix that this device sustains.
    pub(crate) fn capacity_rps(&self) -> f64 {
        self.capacity() / self.mix.service_s
    }

    /// Requests per second of `model` that this device sustains beside the others' load.
    pub(crate) fn model_capacity_rps(&self, now: Time, model: ModelIndex) -> f64 {
        let others: f64 = (0..self.models.len())
            .filter(|index| *index != model.0)
            .map(|index| {
                self.models[index].arrivals.per_second(now) * self.service_s(ModelIndex(index))
            })
            .sum();
        (self.capacity() - others).max(0.0) / self.service_s(model)
    }

    fn evidence(&mut self, elapsed_s: f64, sample: &Sample) -> Evidence {
        if elapsed_s > 0.0 {
            let keep = (-elapsed_s / GIVEN_TAU_S).exp();
            self.given_rate += (self.given_tick / elapsed_s - self.given_rate) * (1.0 - keep);
            self.given_tick = 0.0;
        }
        let delayed = sample.queue_delay.as_secs_f64() > self.breach_s;
        let crowded = (sample.busy as f64) < self.slots
            && sample.cpu_utilisation.is_some_and(|busy| busy > HOST_BUSY);
        match (delayed, crowded) {
            (true, _) if self.given_rate <= self.capacity() => Evidence::Breach,
            (false, false) => Evidence::Calm,
            (true | false, _) => Evidence::None,
        }
    }

    /// CPU time over wall time of the mix, if the runs report any CPU time.
    fn cpu_ratio(&self, now: Time) -> Option<f64> {
        let (mut on_cpu, mut wall) = (0.0, 0.0);
        for load in &self.models {
            let arrivals = load.arrivals.per_second(now);
            on_cpu += arrivals * load.cpu.mean().unwrap_or(0.0);
            wall += arrivals * load.service.mean().unwrap_or(0.0);
        }
        (on_cpu > 0.0 && wall > 0.0).then(|| on_cpu / wall)
    }

    /// Means over the models, weighted by their arrivals; the last mix while nothing arrives.
    fn present_mix(&self, now: Time) -> Mix {
        let (mut rate, mut work, mut squares) = (0.0, 0.0, 0.0);
        for (index, load) in self.models.iter().enumerate() {
            let arrivals = load.arrivals.per_second(now);
            let service = self.service_s(ModelIndex(index));
            // A model that has not run is taken to be as spread as an exponential one.
            let variation = load
                .service
                .mean()
                .map_or(1.0, |_| load.service.squared_variation());
            rate += arrivals;
            work += arrivals * service;
            squares += arrivals * service * service * (1.0 + variation);
        }
        if rate < RATE_MIN || work <= 0.0 {
            return self.mix;
        }
        let service_s = (work / rate).max(SERVICE_MIN_S);
        Mix {
            service_s,
            variation: (squares / rate / (service_s * service_s) - 1.0).clamp(0.0, 100.0),
        }
    }
}
