//! Every metric of the agent, declared once.
//!
//! Served as OpenMetrics text on `/metrics`. Labels are bounded: a model's name is one of the loaded
//! ones or empty, never what a client sent; a module is one of the configuration; a version is shown as
//! long as it is live, which are two of a model at most.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use tidegate_control::Plan;
use tidegate_inference::{Failure, Placement, Reply};
use tidegate_runtime::SlotLoad;

use crate::models::Live;

/// Media type of [`Metrics::encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the duration histogram, in seconds: half a millisecond, below which a run of any
/// real model does not fall, to a minute, beyond which nobody waits.
const DURATION_BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Labels of one counted request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    model: String,
    placement: &'static str,
    reason: &'static str,
    outcome: &'static str,
}

/// Labels of a duration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    model: String,
    placement: &'static str,
}

/// Labels of a live version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    model: String,
    version: String,
    digest: String,
}

/// Labels of a rollout that ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RolloutLabels {
    module: String,
    outcome: &'static str,
}

/// The label of what concerns a model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

/// The label of what concerns a module of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct ModuleLabel {
    module: String,
}

type Ratio = Gauge<f64, AtomicU64>;

/// The agent's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    duration: Family<DurationLabels, Histogram, fn() -> Histogram>,
    queue_length: Gauge,
    slots: Gauge,
    slots_busy: Gauge,
    arrival_rps: Ratio,
    forecast_rps: Ratio,
    forecast_upper_rps: Ratio,
    capacity_rps: Ratio,
    saturation: Ratio,
    burst_share: Ratio,
    reserved_slots: Ratio,
    lead_seconds: Ratio,
    mode_changes: Counter,
    relays_connected: Gauge,
    burst_in_flight: Gauge,
    versions: Family<VersionLabels, Gauge>,
    canary_share: Family<ModelLabel, Ratio>,
    rollouts: Family<RolloutLabels, Counter>,
    poll_age: Family<ModuleLabel, Ratio>,
    /// The versions that are shown, by model; and when each module was last looked at.
    shown: Mutex<Shown>,
}

#[derive(Debug, Default)]
struct Shown {
    versions: BTreeMap<String, Vec<VersionLabels>>,
    polled: BTreeMap<ModuleLabel, Instant>,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("tidegate");
        let requests = Family::default();
        let help = "Requests by model, placement (local, relay, none), reason and outcome";
        registry.register("requests", help, requests.clone());
        let duration: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS));
        let help = "From the parsed request to its reply";
        registry.register("request_duration_seconds", help, duration.clone());
        let mode_changes = Counter::default();
        let help = "Entries into bursting and returns from it";
        registry.register("mode_changes", help, mode_changes.clone());
        let versions = Family::default();
        let help = "1 for each version that answers requests";
        registry.register("model_version_info", help, versions.clone());
        let canary_share = Family::default();
        let help = "Share of the requests that the other version serves in a rollout";
        registry.register("canary_share_ratio", help, canary_share.clone());
        let rollouts = Family::default();
        let help = "Turns of rollouts: refused, promoted, rolled-back, settled";
        registry.register("rollouts", help, rollouts.clone());
        let poll_age = Family::default();
        let help = "Since where the module comes from was last looked at with success";
        registry.register("module_poll_age_seconds", help, poll_age.clone());
        Arc::new(Self {
            requests,
            duration,
            queue_length: gauge(&mut registry, "queue_length", "Jobs that wait for a slot"),
            slots: gauge(&mut registry, "slots", "Worker threads of this device"),
            slots_busy: gauge(&mut registry, "slots_busy", "Worker threads that run a job"),
            arrival_rps: gauge(
                &mut registry,
                "arrival_rps",
                "Requests per second that arrive",
            ),
            forecast_rps: gauge(
                &mut registry,
                "forecast_rps",
                "Median forecast of the arrivals at the lead time",
            ),
            forecast_upper_rps: gauge(
                &mut registry,
                "forecast_upper_rps",
                "Quantile of the forecast that relay slots are reserved for",
            ),
            capacity_rps: gauge(
                &mut registry,
                "capacity_rps",
                "Requests per second that this device sustains within its SLO",
            ),
            saturation: gauge(&mut registry, "saturation_ratio", "Arrivals over capacity"),
            burst_share: gauge(
                &mut registry,
                "burst_share_ratio",
                "Share of the arrivals to send to relays",
            ),
            reserved_slots: gauge(
                &mut registry,
                "reserved_slots",
                "Relay slots that this agent announces it will need",
            ),
            lead_seconds: gauge(
                &mut registry,
                "lead_seconds",
                "Time from a wish for a relay until it is ready",
            ),
            relays_connected: gauge(
                &mut registry,
                "relays_connected",
                "Relays that this agent can send to",
            ),
            burst_in_flight: gauge(
                &mut registry,
                "burst_in_flight",
                "Requests sent to relays and not answered yet",
            ),
            mode_changes,
            versions,
            canary_share,
            rollouts,
            poll_age,
            shown: Mutex::default(),
            registry,
        })
    }

    /// Counts one request of `model` (empty where it is unknown) that took `duration`.
    pub(crate) fn answered(
        &self,
        model: &str,
        result: &Result<Reply, Failure>,
        duration: Duration,
    ) {
        match result {
            Ok(reply) => {
                let placement = match reply.placement {
                    Placement::Local => "local",
                    Placement::Relay(_) => "relay",
                };
                self.count(model, placement, reply.reason.name(), "ok");
                let labels = DurationLabels {
                    model: model.to_owned(),
                    placement,
                };
                self.duration
                    .get_or_create(&labels)
                    .observe(duration.as_secs_f64());
            }
            Err(failure) => self.count(model, "none", "none", failure.kind.name()),
        }
    }

    /// Counts one request whose caller went away.
    pub(crate) fn cancelled(&self, model: &str) {
        let outcome = tidegate_inference::FailureKind::Cancelled.name();
        self.count(model, "none", "none", outcome);
    }

    fn count(
        &self,
        model: &str,
        placement: &'static str,
        reason: &'static str,
        outcome: &'static str,
    ) {
        let labels = RequestLabels {
            model: model.to_owned(),
            placement,
            reason,
            outcome,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Shows what a tick concluded.
    pub(crate) fn planned(&self, plan: &Plan) {
        self.arrival_rps.set(plan.arrival_rps);
        self.forecast_rps.set(plan.forecast_rps);
        self.forecast_upper_rps.set(plan.forecast_upper_rps);
        self.capacity_rps.set(plan.capacity_rps);
        self.saturation.set(plan.saturation);
        self.burst_share.set(plan.burst_share);
        self.reserved_slots.set(plan.reserve_slots);
        self.lead_seconds.set(plan.lead.as_secs_f64());
        let counted = self.mode_changes.get();
        self.mode_changes
            .inc_by(plan.mode_changes.saturating_sub(counted));
    }

    /// Shows how many relays are connected.
    pub(crate) fn relays(&self, connected: usize) {
        self.relays_connected.set(signed(connected));
    }

    /// Counts a request as in flight to a relay until the guard is dropped.
    pub(crate) fn burst_sent(&self) -> InFlight {
        self.burst_in_flight.inc();
        InFlight(self.burst_in_flight.clone())
    }

    /// Shows the live versions of one model, in place of those shown before.
    pub(crate) fn versions(&self, live: &[Live]) {
        let Some(first) = live.first() else { return };
        let model = first.served.metadata().name.clone();
        let labels = live.iter().map(|live| VersionLabels {
            model: model.clone(),
            version: live.served.metadata().version.clone(),
            digest: live.served.digest().to_string(),
        });
        let labels: Vec<_> = labels.collect();
        let mut shown = self.shown();
        for gone in shown.versions.remove(&model).iter().flatten() {
            self.versions.remove(gone);
        }
        for label in &labels {
            self.versions.get_or_create(label).set(1);
        }
        shown.versions.insert(model.clone(), labels);
        let share = live.get(1).map_or(0.0, |beside| beside.share);
        self.canary_share
            .get_or_create(&ModelLabel { model })
            .set(share);
    }

    /// Counts a turn of a rollout.
    pub(crate) fn rollout_ended(&self, module: &str, outcome: &'static str) {
        let module = module.to_owned();
        let labels = RolloutLabels { module, outcome };
        self.rollouts.get_or_create(&labels).inc();
    }

    /// Notes that a module was looked at with success.
    pub(crate) fn polled(&self, module: &str) {
        let module = module.to_owned();
        let now = Instant::now();
        self.shown().polled.insert(ModuleLabel { module }, now);
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The metrics as OpenMetrics text, with the slots as they are now.
    pub(crate) fn encode(&self, load: SlotLoad) -> String {
        self.queue_length.set(signed(load.queued));
        self.slots.set(signed(load.slots));
        self.slots_busy.set(signed(load.busy));
        for (module, at) in &self.shown().polled {
            let age = at.elapsed().as_secs_f64();
            self.poll_age.get_or_create(module).set(age);
        }
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("writing to a string cannot fail");
        page
    }
}

/// One request in flight to a relay.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Registers a gauge of counts or of levels.
fn gauge<N, A>(registry: &mut Registry, name: &str, help: &str) -> Gauge<N, A>
where
    Gauge<N, A>: Default + Clone + Metric,
{
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
