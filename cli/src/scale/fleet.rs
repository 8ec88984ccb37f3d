//! The loop that holds the number of relays at what the demand takes.
//!
//! One task owns every relay and is the only writer of the list. A relay is
//!
//! ```text
//! Starting ──listens──▶ Ready ──not needed──▶ Draining ──▶ gone
//!     └────not needed──────────────────────────▶┘
//! ```
//!
//! and gone from any state when its process ends. The youngest goes first, so that the oldest stay
//! warm. A relay leaves the list before it drains, so that no agent meets it anew. Relays that
//! crash are replaced, ever more slowly while they keep crashing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tidegate_control::Time;
use tidegate_control::scale::{Demand, Scaler};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::relay_process::{Ended, Event, Launch, supervise};
use super::{Observed, RELAYS_MAX, ScaleError, ScalerConfig, agents};

/// Wait after the first crash, doubled by each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// Longest wait after a crash.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// A relay that ran this long did not crash because it was started wrongly.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Events not yet handled: two for each relay.
const EVENTS_MAX: usize = 2 * RELAYS_MAX;

#[derive(Debug)]
enum Phase {
    Starting,
    Ready(SocketAddr),
    Draining,
}

#[derive(Debug)]
struct Relay {
    phase: Phase,
    /// When its process was started, once it was.
    started: Option<Instant>,
    stop: CancellationToken,
}

/// Every relay of one scaler. Dropping it kills them.
#[derive(Debug)]
pub(super) struct Fleet {
    config: ScalerConfig,
    scaler: Scaler,
    origin: Instant,
    /// By number, so that the youngest is last.
    relays: BTreeMap<u64, Relay>,
    /// One for each relay, alive until its process is gone.
    supervisors: JoinSet<Ended>,
    events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// Holds the relays' configurations.
    folder: TempDir,
    next_id: u64,
    crashes_in_a_row: u32,
    /// No relay starts before.
    not_before: Instant,
    /// What the list says; `None` after a write that failed.
    listed: Option<Vec<SocketAddr>>,
    /// Relay-seconds of the processes that ended.
    ended_seconds: f64,
    observed: Observed,
    report: watch::Sender<Observed>,
}

impl Fleet {
    /// A fleet without relays. Empties the list: what it named belonged to another scaler.
    pub(super) fn new(
        config: ScalerConfig,
        report: watch::Sender<Observed>,
    ) -> Result<Self, ScaleError> {
        let mut fleet = Self {
            scaler: Scaler::new(config.policy),
            origin: Instant::now(),
            relays: BTreeMap::new(),
            supervisors: JoinSet::new(),
            events: mpsc::channel(EVENTS_MAX),
            folder: tempfile::Builder::new()
                .prefix("tidegate-scale-")
                .tempdir()
                .map_err(ScaleError::Folder)?,
            next_id: 1,
            crashes_in_a_row: 0,
            not_before: Instant::now(),
            listed: None,
            ended_seconds: 0.0,
            observed: Observed::default(),
            report,
            config,
        };
        fleet.write_list()?;
        Ok(fleet)
    }

    /// Scales until `stop`, then drains every relay.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (sum, mut demand) = watch::channel(Demand::default());
        let polling = agents::poll(self.config.agents.clone(), sum);
        let _polling = AbortOnDropHandle::new(tokio::spawn(polling));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                // The poller publishes after each round: this is the tick.
                changed = demand.changed() => match changed {
                    Ok(()) => {
                        let demand = *demand.borrow_and_update();
                        self.resize(demand);
                    }
                    Err(_) => break tracing::error!("the agents are polled no longer"),
                },
                event = self.events.1.recv() => self.learn(event.expect("the fleet holds a sender")),
                Some(ended) = self.supervisors.join_next() => self.bury(ended),
            }
            self.publish();
        }
        self.shrink(0);
        self.publish();
        while let Some(ended) = self.supervisors.join_next().await {
            self.bury(ended);
            self.publish();
        }
    }

    /// Starts or drains relays until there are as many as the demand takes.
    fn resize(&mut self, demand: Demand) {
        let now = Instant::now();
        let live = self.live();
        let desired = self.scaler.desired(Time(now - self.origin), demand, live);
        let desired = desired.clamp(self.config.policy.min, self.config.policy.max);
        if desired != self.observed.desired {
            let Demand {
                in_flight,
                reserved,
            } = demand;
            tracing::info!(live, desired, in_flight, reserved, "relays wanted");
        }
        self.observed.demand = demand;
        self.observed.desired = desired;
        // Relays that drain are processes too.
        let room = RELAYS_MAX - self.relays.len();
        if desired > live && now >= self.not_before {
            (0..(desired - live).min(room)).for_each(|_| self.launch());
        }
        self.shrink(desired);
    }

    fn live(&self) -> usize {
        let draining = |relay: &&Relay| matches!(relay.phase, Phase::Draining);
        self.relays.len() - self.relays.values().filter(draining).count()
    }

    fn launch(&mut self) {
        let id = self.next_id;
        self.next_id += 1;
        let stop = CancellationToken::new();
        let launch = Launch {
            id,
            program: self.config.program.clone(),
            config: self.config.relay.config(&format!("relay-{id}")),
            folder: self.folder.path().to_owned(),
            log_folder: self.config.log_folder.clone(),
            delay: self.config.relay_delay,
            drain: self.config.relay.drain(),
        };
        self.supervisors
            .spawn(supervise(launch, stop.clone(), self.events.0.clone()));
        self.relays.insert(
            id,
            Relay {
                phase: Phase::Starting,
                started: None,
                stop,
            },
        );
    }

    /// Drains the youngest relays beyond `keep`, and any list that is behind is written again.
    fn shrink(&mut self, keep: usize) {
        let excess = self.live().saturating_sub(keep);
        let mut stops = Vec::new();
        for relay in self
            .relays
            .values_mut()
            .rev()
            .filter(|relay| !matches!(relay.phase, Phase::Draining))
            .take(excess)
        {
            relay.phase = Phase::Draining;
            stops.push(relay.stop.clone());
        }
        self.list();
        stops.iter().for_each(CancellationToken::cancel);
    }

    fn learn(&mut self, event: Event) {
        match event {
            Event::Started(id) => {
                self.observed.started_total += 1;
                if let Some(relay) = self.relays.get_mut(&id) {
                    relay.started = Some(Instant::now());
                }
            }
            Event::Ready(id, address) => {
                // One that drains already stays off the list.
                if let Some(relay) = self.relays.get_mut(&id)
                    && matches!(relay.phase, Phase::Starting)
                {
                    relay.phase = Phase::Ready(address);
                    tracing::info!(relay = id, %address, "a relay is ready");
                    self.list();
                }
            }
        }
    }

    fn bury(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ended { id, ran, crash } = match ended {
            Ok(ended) => ended,
            Err(error) => return tracing::error!(%error, "a relay's supervisor failed"),
        };
        self.relays.remove(&id);
        self.ended_seconds += ran.as_secs_f64();
        self.list();
        let Some(crash) = crash else {
            return tracing::info!(relay = id, "a relay ended");
        };
        self.observed.crashed_total += 1;
        let before = if ran < STABLE_AFTER {
            self.crashes_in_a_row
        } else {
            0
        };
        self.crashes_in_a_row = before.saturating_add(1);
        let wait = backoff(self.crashes_in_a_row);
        self.not_before = Instant::now() + wait;
        let error: &dyn std::error::Error = &crash;
        tracing::error!(relay = id, error, ?wait, "a relay crashed");
    }

    /// Writes the list of ready relays if it changed. One that cannot be written is tried again at
    /// the next tick.
    fn list(&mut self) {
        let before = self.listed.is_some();
        if let Err(error) = self.write_list()
            && before
        {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "agents are not told of relays");
        }
    }

    fn write_list(&mut self) -> Result<(), ScaleError> {
        let ready: Vec<SocketAddr> = self
            .relays
            .values()
            .filter_map(|relay| match relay.phase {
                Phase::Ready(address) => Some(address),
                Phase::Starting | Phase::Draining => None,
            })
            .collect();
        if self.listed.as_ref() == Some(&ready) {
            return Ok(());
        }
        let lines: String = ready.iter().map(|address| format!("{address}\n")).collect();
        let path = &self.config.relays_file;
        self.listed = None;
        tidegate_store::write_whole_unsynced(path, lines.as_bytes()).map_err(|source| {
            ScaleError::RelaysFile {
                path: path.clone(),
                source,
            }
        })?;
        self.listed = Some(ready);
        Ok(())
    }

    fn publish(&mut self) {
        let count = |wanted: fn(&Phase) -> bool| {
            self.relays
                .values()
                .filter(|relay| wanted(&relay.phase))
                .count()
        };
        let running = self.relays.values().filter_map(|relay| relay.started);
        let running_seconds: f64 = running.clone().map(|at| at.elapsed().as_secs_f64()).sum();
        self.observed = Observed {
            starting: count(|phase| matches!(phase, Phase::Starting)),
            ready: count(|phase| matches!(phase, Phase::Ready(_))),
            draining: count(|phase| matches!(phase, Phase::Draining)),
            running_max: self.observed.running_max.max(running.count()),
            relay_seconds: self.ended_seconds + running_seconds,
            ..self.observed
        };
        self.report.send_replace(self.observed);
    }
}

/// How long to wait after this many crashes without a relay that lasted.
fn backoff(crashes: u32) -> Duration {
    BACKOFF_MIN
        .saturating_mul(2_u32.saturating_pow(crashes.saturating_sub(1)))
        .min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_in_a_row_wait_longer_up_to_the_limit() {
        assert_eq!(backoff(1), BACKOFF_MIN);
        assert_eq!(backoff(2), 2 * BACKOFF_MIN);
        assert_eq!(backoff(40), BACKOFF_MAX);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
