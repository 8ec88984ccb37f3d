//! The slow loop beside the requests: every tick, look, decide, announce, show.
//!
//! Nothing is decided here: the controller observes a sample and returns a plan, whose reservations go
//! to the relays and whose figures go to the metrics. What changes is logged on the edge, once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_control::{Mode, Plan, Sample, TICK};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::burst::RelayEvent;
use crate::dispatch::Service;
use crate::sensors::Sensors;

/// Quiet ticks until refusals count as over: 5 s, so that a queue at its limit is one event.
const QUIET_TICKS: u32 = 20;

/// Runs until it is dropped. `probability` is how sure a reservation is.
pub(crate) async fn run(service: Arc<Service>, probability: f64) {
    let mut sensors = Sensors::find(Path::new("/"));
    let mut edges = Edges::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let reading = sensors.read();
        let load = service.slots.load();
        let plan = service.brain.observe(&Sample {
            queued: load.queued,
            busy: load.busy,
            queue_delay: service.queue_delay(load.queued),
            cpu_quota: reading.cpu_quota,
            cpu_utilisation: reading.cpu_utilisation,
        });
        if let Some(burst) = &service.burst {
            burst.reserve(&plan.reservations, plan.lead, probability);
        }
        service.metrics.planned(&plan);
        edges.log(&plan, service.refused.load(Ordering::Relaxed));
    }
}

/// Feeds what the links learn to the controller, until the links are gone.
pub(crate) async fn listen(service: Arc<Service>, mut events: mpsc::Receiver<RelayEvent>) {
    let mut connected = std::collections::BTreeSet::new();
    while let Some(event) = events.recv().await {
        match event {
            RelayEvent::Report { relay, load } => {
                service.brain.relay_reported(relay, &load);
                connected.insert(relay);
            }
            RelayEvent::ModelReady { relay, model } => {
                service.brain.relay_model_ready(relay, model);
            }
            RelayEvent::Gone { relay } => {
                service.brain.relay_gone(relay);
                connected.remove(&relay);
            }
        }
        service.metrics.relays(connected.len());
    }
}

/// The states that are logged when they begin and end.
#[derive(Debug, Default)]
struct Edges {
    bursting: bool,
    refused: u64,
    /// Ticks until refusals count as over; 0 where they are.
    refusing: u32,
}

impl Edges {
    fn log(&mut self, plan: &Plan, refused: u64) {
        let bursting = plan.mode == Mode::Bursting;
        if bursting != self.bursting {
            self.bursting = bursting;
            let (arrival, forecast) = (plan.arrival_rps, plan.forecast_upper_rps);
            let capacity = plan.capacity_rps;
            if bursting {
                tracing::info!(arrival, forecast, capacity, "bursting begins");
            } else {
                tracing::info!(arrival, forecast, capacity, "bursting ends");
            }
        }
        let more = refused - self.refused;
        self.refused = refused;
        if more > 0 {
            if self.refusing == 0 {
                tracing::warn!(
                    refused = more,
                    arrival = plan.arrival_rps,
                    capacity = plan.capacity_rps,
                    "requests are refused: the load is above what this device and its relays carry"
                );
            }
            self.refusing = QUIET_TICKS;
        } else if self.refusing > 0 {
            self.refusing -= 1;
            if self.refusing == 0 {
                tracing::info!(refused_in_all = refused, "requests are no longer refused");
            }
        }
    }
}
