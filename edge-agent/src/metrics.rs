//! Every metric of the agent, declared once.
//!
//! Served as OpenMetrics text on `/metrics`. Labels are bounded: a model's name is one of the loaded
//! ones or empty, never what a client sent.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use tidegate_control::Plan;
use tidegate_inference::{Failure, Placement, Reply};
use tidegate_runtime::SlotLoad;

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

    /// The metrics as OpenMetrics text, with the slots as they are now.
    pub(crate) fn encode(&self, load: SlotLoad) -> String {
        self.queue_length.set(signed(load.queued));
        self.slots.set(signed(load.slots));
        self.slots_busy.set(signed(load.busy));
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
