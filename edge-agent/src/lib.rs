//! The agent on an edge device: serves models, and sends the excess to relays.
//!
//! [`start`] runs an agent inside any tokio runtime; [`run`] is the whole daemon, from its
//! configuration file to its exit code. A request's way through it is `dispatch`; the loop beside it
//! is `control_loop`. All decisions are `tidegate_control`'s: this crate owns the clock, the
//! sockets and the threads, and translates.
//!
//! With no relay configured or reachable, an agent is a complete local inference server.

mod admission;
mod brain;
mod burst;
mod chance;
pub mod config;
mod control_loop;
mod daemon;
mod dispatch;
mod http;
mod load;
mod metrics;
mod models;
mod rollouts;
mod sensors;
mod start_error;
mod supply;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::serve::ListenerExt;
use tidegate_control::ModelIndex;
use tidegate_open_inference::Limits;
use tidegate_runtime::Slots;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use crate::config::Config;
pub use crate::daemon::run;
pub use crate::start_error::StartError;
pub use crate::supply::{LookError, PrepareError};
pub use tidegate_runtime::vet::vet_graph_if_asked;

use crate::admission::Admission;
use crate::brain::Brain;
use crate::burst::{Burst, BurstConfig, RelayEvent};
use crate::config::Relays;
use crate::dispatch::Service;
use crate::metrics::Metrics;
use crate::models::Models;
use crate::supply::{Memory, Supply};

/// Most events of relays that wait for the controller; a link that has more to say waits.
const EVENTS_MAX: usize = 1024;

/// What the links may take to close when nothing is in flight on them any more.
const LINKS_CLOSE_MAX: Duration = Duration::from_secs(1);

/// A running agent. Dropping it aborts every task that it started, and with them every request.
#[derive(Debug)]
pub struct Agent {
    address: SocketAddr,
    service: Arc<Service>,
    stop: CancellationToken,
    servers: JoinSet<()>,
    loops: JoinSet<()>,
    _socket_file: Option<http::SocketFile>,
}

/// How a shutdown ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Completely,
    /// The grace period ended first, and requests were cut off.
    CutOff,
}

/// Starts an agent, and returns when it is ready: its models are loaded and its port answers.
///
/// Clients that connect earlier wait in the kernel's backlog.
pub async fn start(config: Config) -> Result<Agent, StartError> {
    let listen = config.listen;
    let listening = |source| StartError::Listen {
        address: listen,
        source,
    };
    let listener = TcpListener::bind(listen).await.map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was refused");
        }
    });
    let unix = config
        .unix_socket
        .as_deref()
        .map(|path| {
            http::listen_unix(path).map_err(|source| StartError::ListenUnix {
                path: path.to_owned(),
                source,
            })
        })
        .transpose()?;

    let load::Loaded {
        models,
        memory,
        workshop,
        origins,
    } = load::load(&config).await?;
    let (service, events) = service(&config, models, memory)?;
    let mut loops = JoinSet::new();
    loops.spawn(control_loop::listen(Arc::clone(&service), events));
    let probability = config.policy.reserve_quantile();
    loops.spawn(control_loop::run(Arc::clone(&service), probability));
    loops.spawn(rollouts::run(Arc::clone(&service)));
    let supply = Arc::new(Supply {
        service: Arc::clone(&service),
        workshop,
        poll: config.rollout.poll,
    });
    for (index, origin) in origins.into_iter().enumerate() {
        let index = ModelIndex(index);
        if !service.models.live(index).is_empty() {
            service.proved(index).await;
            service.show_versions(index);
        }
        loops.spawn(supply::follow(Arc::clone(&supply), index, origin));
    }

    let limits = Limits {
        body_bytes_max: config.request_bytes_max,
        bodies_bytes_max: config.held_bytes_max,
        body_wait_max: config.body_wait_max,
    };
    let router = http::router(Arc::clone(&service), limits);
    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    let max = config.connections_max;
    let mut socket_file = None;
    if let Some((listener, file)) = unix {
        socket_file = Some(file);
        servers.spawn(http::serve(listener, router.clone(), max, stop.clone()));
    }
    servers.spawn(http::serve(listener, router, max, stop.clone()));
    tracing::info!(%address, name = config.name, "ready");
    Ok(Agent {
        address,
        service,
        stop,
        servers,
        loops,
        _socket_file: socket_file,
    })
}

/// Starts the slots and the links to relays.
fn service(
    config: &Config,
    models: Models,
    memory: Arc<Memory>,
) -> Result<(Arc<Service>, mpsc::Receiver<RelayEvent>), StartError> {
    let slots = config.policy.slots;
    let (events_in, events) = mpsc::channel(EVENTS_MAX);
    let brain = Brain::new(config.policy.clone(), models.len());
    let burst = match &config.relays {
        Some(relays) => Some(start_burst(config, relays, &models, events_in)?),
        None => None,
    };
    let service = Service {
        admission: Admission::new(config.requests_max),
        brain,
        sources: config.modules.iter().map(ToString::to_string).collect(),
        memory,
        models,
        slots: Slots::new(slots, config.queue_len_max)
            .map_err(|source| StartError::Slots { slots, source })?,
        burst,
        metrics: Metrics::new(),
        slo: config.policy.slo,
        refused: AtomicU64::new(0),
        queue_delay_us: AtomicU64::new(0),
    };
    Ok((Arc::new(service), events))
}

fn start_burst(
    config: &Config,
    relays: &Relays,
    models: &Models,
    events: mpsc::Sender<RelayEvent>,
) -> Result<Burst, StartError> {
    let burst = BurstConfig {
        relays: relays.addresses.clone(),
        relays_file: relays.file.clone(),
        identity: relays.identity.clone(),
        name: config.name.clone(),
    };
    Burst::start(burst, models.current(), events).map_err(|source| StartError::Burst {
        source: source.into(),
    })
}

impl Agent {
    /// Where HTTP is served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Refuses new requests, waits at most `grace` for those in flight, and stops.
    pub async fn shutdown(mut self, grace: Duration) -> Drained {
        self.service.admission.drain();
        self.stop.cancel();
        tracing::info!(in_flight = self.service.admission.requests(), "draining");
        let all_ended = async { while self.servers.join_next().await.is_some() {} };
        let drained = match tokio::time::timeout(grace, all_ended).await {
            Ok(()) => Drained::Completely,
            Err(_) => Drained::CutOff,
        };
        if drained == Drained::CutOff {
            let cut_off = self.service.admission.requests();
            tracing::warn!(cut_off, "the grace period ended with requests in flight");
        }
        self.servers.shutdown().await;
        self.loops.shutdown().await;
        // With the servers and loops gone, this is the last owner, so the links close in order.
        if let Some(burst) = Arc::into_inner(self.service).and_then(|service| service.burst) {
            burst.shutdown(LINKS_CLOSE_MAX).await;
        }
        drained
    }
}
