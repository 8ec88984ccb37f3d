//! Feeds the monitor and the forecasts; answers with routes and plans.

use std::time::Duration;

use tidegate_inference::Reason;

use crate::balance::{Answer, Errand, Relays};
use crate::decide::{Choice, Gate, Lead, Options, Seen, Thinning, place};
use crate::monitor::Monitor;
use crate::predict::Bank;
use crate::scale::UTILISATION_TARGET;
use crate::signal::SATURATION_MAX;
use crate::time::duration;
use crate::{
    Foresight, Mode, ModelIndex, Outcome, Plan, Policy, Query, RelayId, RelayLoad, Route, Sample,
    TICK, Time,
};

/// Ticks closer together than this teach no rate.
const TICK_MIN_S: f64 = 0.01;
/// Window in which the oracle counts the arrivals to come, centred on the lead time: the window of
/// the other policies' rates.
const ORACLE_WINDOW: Duration = Duration::from_secs(1);
/// Bounds of the advice when to try a refused request again.
const RETRY_MIN_S: f64 = 0.01;
const RETRY_MAX_S: f64 = 30.0;

/// Decides where each request runs, and what to reserve. One per agent, behind a short lock.
///
/// A model number of `models` or above is served locally by the priors, and teaches nothing.
#[derive(Debug)]
pub struct Controller {
    policy: Policy,
    monitor: Monitor,
    bank: Bank,
    relays: Relays,
    gate: Gate,
    lead: Lead,
    thinning: Thinning,
    /// Share of arrivals to send away, of the last tick.
    share: f64,
    arrivals_tick: u64,
    ticked: Option<Time>,
    first_arrival: Option<Time>,
}

impl Controller {
    /// A controller of `models` models. Policy values out of range are clamped.
    #[must_use]
    pub fn new(policy: Policy, models: usize) -> Self {
        let policy = policy.clamped();
        Self {
            monitor: Monitor::new(&policy, models),
            bank: Bank::new(policy.reserve_quantile(), TICK.as_secs_f64()),
            relays: Relays::new(&policy, models),
            gate: Gate::new(&policy),
            lead: Lead::new(policy.lead_prior),
            thinning: Thinning::default(),
            share: 0.0,
            arrivals_tick: 0,
            ticked: None,
            first_arrival: None,
            policy,
        }
    }

    /// Counts an arrival and decides where it goes.
    pub fn route(&mut self, now: Time, query: &Query) -> Route {
        self.first_arrival.get_or_insert(now);
        self.arrivals_tick += 1;
        self.monitor.arrived(now, query.model);
        let owed = self.thinning.arrived(self.share);
        // A free slot beats any relay; what is owed is sent when the slots are busy.
        let excess = owed && query.backlog as f64 >= self.monitor.slots();
        let choice = self.choose(now, query, excess);
        self.commit(query, choice)
    }

    /// Decides anew for a request whose relay failed or refused it. It is not a new arrival.
    pub fn route_again(&mut self, now: Time, query: &Query) -> Route {
        let choice = match self.choose(now, query, false) {
            Choice::Local(_) => Choice::Local(Reason::Retry),
            Choice::Burst(relay, _) => Choice::Burst(relay, Reason::Retry),
            Choice::Shed => Choice::Shed,
        };
        self.commit(query, choice)
    }

    /// Learns how a request ended.
    pub fn finished(&mut self, now: Time, outcome: &Outcome) {
        match *outcome {
            Outcome::Local {
                model,
                queue: _,
                service,
                cpu,
            } => {
                self.monitor.ran(now, model, service, cpu);
            }
            Outcome::Relay {
                relay,
                model,
                sojourn,
                queue,
                service,
                bytes,
            } => {
                let answer = Answer {
                    sojourn_s: sojourn.as_secs_f64(),
                    queue_s: queue.as_secs_f64(),
                    service_s: service.as_secs_f64(),
                    bytes,
                };
                self.relays.answered(now, relay, model, &answer);
            }
            Outcome::RelayFailed { relay } => self.relays.failed(now, relay),
            Outcome::RelayDropped { relay } => self.relays.dropped(relay),
            Outcome::LocalDropped { model: _ } => {}
        }
    }

    /// A relay connected, or reported. A relay that is gone stays gone.
    pub fn relay_reported(&mut self, now: Time, relay: RelayId, load: &RelayLoad) {
        self.relays.reported(now, relay, load);
    }

    /// A relay can run this model from now on. It must have been reported before.
    pub fn relay_model_ready(&mut self, now: Time, relay: RelayId, model: ModelIndex) {
        if self.relays.model_ready(relay, model) {
            self.lead.ready(now);
        }
    }

    /// A relay is gone. Its requests in flight still end by [`Outcome::RelayFailed`].
    pub fn relay_gone(&mut self, _now: Time, relay: RelayId) {
        self.relays.gone(relay);
    }

    /// One tick, every [`TICK`].
    pub fn observe(&mut self, now: Time, sample: &Sample) -> Plan {
        let elapsed_s = self
            .ticked
            .map_or(TICK.as_secs_f64(), |ticked| now.seconds_since(ticked));
        if elapsed_s >= TICK_MIN_S || self.ticked.is_none() {
            self.ticked = Some(now);
            let arrivals = std::mem::take(&mut self.arrivals_tick) as f64;
            self.monitor.tick(now, elapsed_s, sample);
            // The idle time before the first request is no load to forecast from.
            if self.first_arrival.is_some() {
                self.bank.observe(arrivals / elapsed_s, self.lead.ticks());
            }
        }
        let outlook = self.outlook(now);
        let arrival_rps = self.bank.current();
        let capacity_rps = self.monitor.capacity_rps();
        self.turn(now, sample, outlook.upper_seen);

        let bursting = self.gate.mode() == Mode::Bursting;
        self.share = match bursting && arrival_rps > capacity_rps {
            true => 1.0 - capacity_rps / arrival_rps,
            false => 0.0,
        };
        let reserve_slots = if bursting {
            self.reserve_slots(&outlook)
        } else {
            0.0
        };
        let slots: f64 = self.relays.slots().map(|(_, slots)| slots).sum();
        self.lead
            .tick(now, reserve_slots > slots * UTILISATION_TARGET);
        let split = |(relay, own): (RelayId, f64)| (relay, reserve_slots * own / slots);
        Plan {
            mode: self.gate.mode(),
            arrival_rps,
            forecast_rps: outlook.rate,
            forecast_upper_rps: outlook.upper,
            capacity_rps,
            saturation: (arrival_rps / capacity_rps).min(SATURATION_MAX),
            burst_share: self.share,
            reserve_slots,
            reservations: self.relays.slots().map(split).collect(),
            lead: self.lead.duration(),
            mode_changes: self.gate.changes(),
        }
    }

    /// Requests per second of `model` that this device sustains beside the other models' load.
    #[must_use]
    pub fn capacity_rps(&self, now: Time, model: ModelIndex) -> f64 {
        self.monitor.model_capacity_rps(now, model)
    }

    fn choose(&self, now: Time, query: &Query, excess: bool) -> Choice {
        let left_s = query.time_left.as_secs_f64();
        let comfortable_s = left_s * self.policy.deadline_margin;
        let service_s = self.monitor.service_s(query.model);
        let slots = self.monitor.slots();
        let ahead = (query.backlog as f64 + 1.0 - slots).max(0.0) / slots;
        let local_s = ahead * self.monitor.mix_service_s() + service_s;
        let remote = match self.policy.foresight {
            Foresight::LocalOnly => None,
            // The relays are not looked at while this device is at ease.
            _ if !excess && local_s <= comfortable_s => None,
            Foresight::Reactive | Foresight::Predictive | Foresight::Oracle(_) => {
                let errand = Errand {
                    model: query.model,
                    bytes: query.bytes,
                    random: query.random,
                    service_s,
                    enough_s: comfortable_s,
                };
                self.relays.choose(now, &errand)
            }
        };
        place(&Options {
            local_s,
            remote,
            left_s,
            comfortable_s,
            excess,
            known: self.monitor.knows(query.model),
        })
    }

    fn commit(&mut self, query: &Query, choice: Choice) -> Route {
        match choice {
            Choice::Local(reason) => {
                self.monitor.given(query.model);
                Route::Local(reason)
            }
            Choice::Burst(relay, reason) => {
                self.relays.sent(relay);
                self.thinning.sent();
                Route::Burst(relay, reason)
            }
            Choice::Shed => {
                let drain_s =
                    query.backlog as f64 / self.monitor.slots() * self.monitor.mix_service_s();
                let wait_s = drain_s - query.time_left.as_secs_f64();
                let retry_after = duration(wait_s.clamp(RETRY_MIN_S, RETRY_MAX_S));
                Route::Shed { retry_after }
            }
        }
    }

    /// What the policy's foresight says of the lead time.
    fn outlook(&self, now: Time) -> Outlook {
        let certain = |rate| Outlook {
            rate,
            upper: rate,
            upper_seen: rate,
        };
        match &self.policy.foresight {
            Foresight::LocalOnly | Foresight::Predictive => Outlook {
                rate: self.bank.forecast(),
                upper: self.bank.upper_intensity(),
                upper_seen: self.bank.upper(),
            },
            Foresight::Reactive => certain(self.bank.current()),
            Foresight::Oracle(times) => {
                let first = self.first_arrival.unwrap_or(now);
                let middle = now
                    .0
                    .saturating_sub(first.0)
                    .saturating_add(self.lead.duration());
                let from = Time(middle.saturating_sub(ORACLE_WINDOW / 2));
                let count = times.partition_point(|time| *time < from.after(ORACLE_WINDOW))
                    - times.partition_point(|time| *time < from);
                certain(count as f64 / ORACLE_WINDOW.as_secs_f64())
            }
        }
    }

    fn turn(&mut self, now: Time, sample: &Sample, upper_rps: f64) {
        if self.policy.foresight == Foresight::LocalOnly {
            return;
        }
        let breach = self.policy.slo.mul_f64(self.policy.queue_breach);
        let seen = Seen {
            calm_rps: self.bank.calm(),
            upper_rps,
            capacity_rps: self.monitor.capacity_rps(),
            known: self.monitor.knows_any(),
            breach: sample.queue_delay > breach,
            dwell: self
                .policy
                .burst_dwell
                .max(self.lead.duration().saturating_mul(2)),
        };
        self.gate.tick(now, &seen);
    }

    /// The work above capacity at the lead time, in slots of a relay.
    ///
    /// The first relay is reserved from the threshold on, for the quantile of the counts, noise
    /// included: with none there is nowhere to send what the queue cannot hold. Beyond it, relays
    /// are run at the target utilisation, which is room enough for noise: the forecast itself must
    /// fit the target, the quantile of the rate behind the counts must fit the whole slots.
    fn reserve_slots(&self, outlook: &Outlook) -> f64 {
        let capacity_rps = self.monitor.capacity_rps();
        let service_s = self
            .relays
            .service_s()
            .unwrap_or_else(|| self.monitor.mix_service_s());
        let first = UTILISATION_TARGET * self.policy.relay_slots as f64;
        let early = outlook.upper_seen - self.policy.burst_enter * capacity_rps;
        let likely = outlook.rate - capacity_rps;
        let possible = UTILISATION_TARGET * (outlook.upper - capacity_rps);
        (likely.max(possible) * service_s)
            .max((early * service_s).min(first))
            .max(0.0)
    }
}

/// Rates at the lead time, in arrivals per second.
#[derive(Clone, Copy, Debug)]
struct Outlook {
    rate: f64,
    /// The quantile of the rate behind the counts.
    upper: f64,
    /// The quantile of the rate that will be counted.
    upper_seen: f64,
}
