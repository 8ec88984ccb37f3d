//! Every metric of the relay, declared once, and the page that shows them.
//!
//! Served as OpenMetrics text where the configuration says `metrics-listen`. Labels are bounded:
//! nothing that a peer sent becomes one.

mod listener;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_inference::Failure;
use tidegate_wire::LoadReport;

pub(crate) use listener::serve;

/// Labels of one counted request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    outcome: &'static str,
}

/// The relay's metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    in_flight: Gauge,
    connections: Gauge,
    slots: Gauge,
    slots_busy: Gauge,
    queue_length: Gauge,
    reserved_slots: Gauge<f64, AtomicU64>,
    store_bytes: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("tidegate_relay");
        let requests = Family::default();
        registry.register("requests", "Requests by how they ended", requests.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let in_flight = gauge("in_flight", "Requests received and not yet answered");
        let connections = gauge("connections", "Connections of agents");
        let slots = gauge("slots", "Requests that run at a time");
        let slots_busy = gauge("slots_busy", "Requests that run");
        let queue_length = gauge("queue_length", "Requests that wait for a slot");
        let store_bytes = gauge("store_bytes", "Bytes of module files held");
        let reserved_slots = Gauge::default();
        let help = "Slots that agents have reserved";
        registry.register("reserved_slots", help, reserved_slots.clone());
        Self {
            registry,
            requests,
            in_flight,
            connections,
            slots,
            slots_busy,
            queue_length,
            reserved_slots,
            store_bytes,
        }
    }

    /// Counts a request in until the guard is dropped.
    pub(crate) fn request_began(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    /// Counts a connection in until the guard is dropped.
    pub(crate) fn connected(&self) -> Counted {
        Counted::new(&self.connections)
    }

    /// Counts how a request ended: a failure by its kind.
    pub(crate) fn request_ended<T>(&self, result: &Result<T, Failure>) {
        let outcome = match result {
            Ok(_) => "ok",
            Err(failure) => failure.kind.name(),
        };
        self.requests
            .get_or_create(&RequestLabels { outcome })
            .inc();
    }

    /// The page, with the gauges as they are now.
    pub(crate) fn encode(&self, load: &LoadReport, store_bytes: u64) -> String {
        self.slots.set(load.slots.into());
        self.slots_busy.set(load.busy.into());
        self.queue_length.set(load.queued.into());
        self.reserved_slots.set(load.reserved);
        self.store_bytes
            .set(i64::try_from(store_bytes).unwrap_or(i64::MAX));
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("writing to a string does not fail");
        page
    }
}

/// One of what a gauge counts.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
