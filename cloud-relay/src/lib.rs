//! The relay: a stateless inference service over QUIC, for agents that have more work than room.
//!
//! It runs the same modules as the agents, fetched from them by digest, in the same sandbox. One
//! stream is one request ([`accept`] reads it, [`service`] runs it); every reply says how loaded the
//! relay is. Whatever a peer does costs only that peer: each has its own seat, streams, bytes and
//! time. Nothing outlives a connection but the modules.

mod accept;
mod config;
mod daemon;
mod load;
mod metrics;
mod reservation;
mod service;
mod store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quinn::Endpoint;
use tidegate_runtime::{CacheConfig, Runtime, RuntimeConfig, Slots};
use tidegate_wire::code;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use accept::BindError;
pub use config::Config;
pub use daemon::run;
pub use store::{AdmitError, PreloadError};
pub use tidegate_runtime::vet::vet_graph_if_asked;

use accept::Terms;
use service::Service;
use store::Store;

/// Why a relay could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The sandbox could not be set up.
    #[error("failed to start the runtime")]
    Runtime {
        /// Why.
        source: tidegate_runtime::StartError,
    },
    /// No threads to run requests on.
    #[error("failed to start {slots} worker threads")]
    Slots {
        /// How many were asked for.
        slots: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A module of the configuration cannot be served.
    #[error("failed to load module {}", path.display())]
    Module {
        /// The module file.
        path: PathBuf,
        /// Why.
        source: PreloadError,
    },
    /// The relay cannot listen for agents.
    #[error("failed to listen for agents")]
    Bind {
        /// Why.
        source: BindError,
    },
    /// The relay cannot listen for scrapers.
    #[error("failed to listen for metrics on {address}")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
}

/// A running relay. Dropping it closes every connection at once.
#[derive(Debug)]
pub struct Relay {
    endpoint: Endpoint,
    local_addr: SocketAddr,
    metrics_addr: Option<SocketAddr>,
    service: Arc<Service>,
    accepting: JoinHandle<()>,
    metrics: Option<JoinHandle<()>>,
}

/// Starts a relay: loads the configured modules, then listens.
pub async fn start(config: Config) -> Result<Relay, StartError> {
    let Config {
        state,
        vetting,
        tract_guest,
        slots,
        ..
    } = config.clone();
    // Where another process changes the folder, this waits for it.
    let starting = tokio::task::spawn_blocking(move || {
        let cache = state.open().map(|folder| CacheConfig {
            folder: folder.path().to_owned(),
            bytes_max: folder.code_bytes_max(),
        });
        Runtime::start(RuntimeConfig {
            cache,
            vetting,
            tract_guest,
            ..RuntimeConfig::new(slots)
        })
    });
    let runtime = starting
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
        .map_err(|source| StartError::Runtime { source })?;
    let slots = Slots::new(slots, config.queue_len_max)
        .map_err(|source| StartError::Slots { slots, source })?;
    let store = Store::new(
        runtime,
        config.trust,
        config.module_bytes_max,
        config.store_bytes_max,
    );
    let store = Arc::new(store);
    for path in &config.modules {
        let preloaded = Arc::clone(&store).preload(path.clone()).await;
        preloaded.map_err(|source| StartError::Module {
            path: path.clone(),
            source,
        })?;
    }
    let service = Arc::new(Service::new(slots, store, config.held_bytes_max));

    let terms = Terms {
        connections_max: config.connections_max,
        connections_per_peer_max: config.connections_per_peer_max,
        requests_max: config.requests_per_connection_max,
        stall: config.stall,
    };
    let endpoint = accept::bind(config.listen, &config.identity, terms.requests_max)
        .map_err(|source| StartError::Bind { source })?;
    let local_addr = endpoint.local_addr().map_err(|source| StartError::Bind {
        source: BindError::Socket {
            address: config.listen,
            source,
        },
    })?;
    let scrapers = match config.metrics_listen {
        None => None,
        Some(address) => Some(
            listen(address)
                .await
                .map_err(|source| StartError::Metrics { address, source })?,
        ),
    };
    let metrics_addr = scrapers.as_ref().map(|(_, address)| *address);
    let metrics =
        scrapers.map(|(listener, _)| tokio::spawn(metrics::serve(listener, Arc::clone(&service))));
    let name = config.name.unwrap_or_default();
    let serve = accept::serve(endpoint.clone(), Arc::clone(&service), name, terms);
    Ok(Relay {
        endpoint,
        local_addr,
        metrics_addr,
        service,
        accepting: tokio::spawn(serve),
        metrics,
    })
}

async fn listen(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Relay {
    /// The UDP address that agents connect to.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The TCP address of the metrics, if they are served.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// Asks agents to send no more, finishes what is in flight within `grace`, and closes.
    pub async fn shutdown(mut self, grace: Duration) {
        /// What it may take to tell the agents that their connections are closed.
        const CLOSE_MAX: Duration = Duration::from_secs(1);

        tracing::info!(?grace, "draining");
        self.service.draining.cancel();
        if tokio::time::timeout(grace, &mut self.accepting)
            .await
            .is_err()
        {
            tracing::warn!("requests were cut off at the end of the grace period");
        }
        self.endpoint
            .close(code::GOING_AWAY.into(), b"the relay stopped");
        // Agents that do not hear of it find out by their idle timeout.
        let _ = tokio::time::timeout(CLOSE_MAX, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // First, so that agents learn why: the tasks' own handles say nothing when they are dropped.
        self.endpoint
            .close(code::GOING_AWAY.into(), b"the relay stopped");
        self.accepting.abort();
        if let Some(metrics) = &self.metrics {
            metrics.abort();
        }
    }
}
