//! Sends requests to relays over QUIC, and keeps the connections that this takes.
//!
//! One task per relay address connects, says which modules this agent serves, hands them over where
//! the relay lacks them, and reconnects when the link is lost. A link speaks of the versions that were
//! served when it was made; a switch of versions makes new links ([`discovery`]). What it learns leaves as
//! [`RelayEvent`]s; nothing is decided here. A request is one stream ([`exchange`]): dropping its
//! future resets the stream, and the relay drops the job.
//!
//! How long a dead relay goes unnoticed: a relay with requests in flight reports its load at least
//! every 100 ms, so [`connection`] gives a link up once nothing has come for 400 ms (or three round
//! trips and 200 ms where that is longer), which it looks at every 100 ms: 500 ms on a short path.
//! Then every request on the link fails with [`BurstError::Lost`] and may run elsewhere. A link
//! without requests is given up by QUIC's idle timeout, 2 s. The request's own deadline always holds.

mod connection;
mod dial;
mod discovery;
mod endpoint;
mod exchange;
mod link;
mod offers;
mod transfer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidegate_control::{ModelIndex, RelayId, RelayLoad};
use tidegate_identity::{IdentityError, IdentityFiles};
use tidegate_inference::{Failure, FailureKind, NamedTensor, Priority};
use tidegate_wire::{Answer, DecodeError, EncodeError, RequestMessage, code};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::discovery::Discovery;
use self::link::{Fleet, Home, Reservation};
use self::offers::Offers;
use crate::config::RelayAddress;
use crate::models::{Pin, Served};

/// Where the relays are, and who this agent is to them.
#[derive(Clone, Debug)]
pub(crate) struct BurstConfig {
    /// Relays that are always wanted.
    pub(crate) relays: Vec<RelayAddress>,
    /// A file of further relays, one `host:port` a line, read again when it changes.
    pub(crate) relays_file: Option<PathBuf>,
    /// This agent's certificate and key, and the CA that relays must come from.
    pub(crate) identity: IdentityFiles,
    /// What this agent calls itself, for the relays' logs.
    pub(crate) name: String,
}

/// What the links tell the controller.
#[derive(Clone, Debug)]
pub(crate) enum RelayEvent {
    /// The relay said how loaded it is. The first report makes it known.
    Report {
        /// Which relay.
        relay: RelayId,
        /// What it said.
        load: RelayLoad,
    },
    /// The relay can run this model from now on. Comes after the relay's first report.
    ModelReady {
        /// Which relay.
        relay: RelayId,
        /// Which model, in the version that this agent offered when the link was made.
        model: ModelIndex,
    },
    /// The link is lost, retired or going away: nothing new can be sent to this relay, ever. A relay
    /// that comes back has another number.
    Gone {
        /// Which relay.
        relay: RelayId,
    },
}

/// Outputs from a relay, and what getting them took.
#[derive(Debug)]
pub(crate) struct BurstReply {
    /// The version that ran.
    pub(crate) served: Arc<Served>,
    /// The outputs, and the relay's own timings.
    pub(crate) answer: Answer,
    /// Bytes both ways, headers included.
    pub(crate) bytes: usize,
    /// From the call to the last byte of the answer.
    pub(crate) sojourn: Duration,
}

/// Why a relay gave no outputs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BurstError {
    /// The link was gone before the request was sent.
    #[error("relay {} is not connected", relay.0)]
    Unknown {
        /// Which relay.
        relay: RelayId,
    },
    /// The relay was not offered the version that the job wants.
    #[error("relay {name} does not have this version of the model")]
    NotOffered {
        /// Name of the relay.
        name: String,
    },
    /// As many requests are in flight on the link as the relay allows.
    #[error("relay {name} allows no more than {in_flight_max} requests at a time")]
    NoCredit {
        /// Name of the relay.
        name: String,
        /// The relay's limit.
        in_flight_max: u32,
    },
    /// The request does not fit the protocol's limits.
    #[error("failed to write the request for a relay")]
    Encode {
        /// Which limit.
        source: EncodeError,
    },
    /// The link or the stream broke before the answer was complete.
    #[error("lost relay {name}")]
    Lost {
        /// Name of the relay.
        name: String,
        /// How it broke.
        source: LostError,
    },
    /// The relay's answer is not one.
    #[error("relay {name} sent a malformed reply")]
    Decode {
        /// Name of the relay.
        name: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// The deadline passed first.
    #[error("relay {name} did not answer within the deadline")]
    Deadline {
        /// Name of the relay.
        name: String,
    },
    /// The relay answered that it could not.
    #[error("relay {name}: {failure}")]
    Refused {
        /// Name of the relay.
        name: String,
        /// What it said.
        failure: Failure,
    },
}

/// How a stream to a relay broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LostError {
    /// No stream could be opened.
    #[error("failed to open a stream")]
    Open(#[source] quinn::ConnectionError),
    /// The request could not be sent to its end.
    #[error("failed to send")]
    Send(#[source] quinn::WriteError),
    /// The reply ended early.
    #[error("failed to receive")]
    Receive(#[source] quinn::ReadError),
    /// The stream ended before the reply did.
    #[error("the stream ended within the reply")]
    Truncated,
}

impl BurstError {
    /// Whether another relay, or this device, may do what this relay did not.
    pub(crate) fn is_worth_retrying(&self) -> bool {
        match self {
            Self::Unknown { .. }
            | Self::NotOffered { .. }
            | Self::NoCredit { .. }
            | Self::Lost { .. }
            | Self::Decode { .. } => true,
            // What does not fit the wire may still run here.
            Self::Encode { .. } => true,
            Self::Deadline { .. } => false,
            Self::Refused { failure, .. } => failure.is_worth_retrying(),
        }
    }
}

impl From<BurstError> for Failure {
    fn from(error: BurstError) -> Self {
        let kind = match &error {
            BurstError::Unknown { .. }
            | BurstError::NotOffered { .. }
            | BurstError::Lost { .. }
            | BurstError::Decode { .. } => FailureKind::Unavailable,
            BurstError::NoCredit { .. } => FailureKind::Overloaded,
            BurstError::Encode { .. } => FailureKind::TooLarge,
            BurstError::Deadline { .. } => FailureKind::DeadlineExceeded,
            BurstError::Refused { failure, .. } => return failure.clone(),
        };
        Self::new(kind, error.to_string())
    }
}

/// Why bursting could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BurstStartError {
    /// The agent's certificate, key or CA cannot be used.
    #[error("failed to load the identity for relays")]
    Identity {
        /// Which file, and why.
        source: IdentityError,
    },
    /// The TLS configuration has no cipher suite that QUIC can start with.
    #[error("failed to use the identity for QUIC")]
    Crypto {
        /// What is missing.
        source: quinn::crypto::rustls::NoInitialCipherSuite,
    },
    /// No UDP socket could be bound.
    #[error("failed to bind a UDP socket for relays")]
    Socket {
        /// The system's reason.
        source: std::io::Error,
    },
    /// The modules of this agent do not fit the first message to a relay.
    #[error("failed to list {modules} modules for relays")]
    Hello {
        /// How many there are.
        modules: usize,
        /// Which limit.
        source: EncodeError,
    },
}

/// The client side of bursting. Dropping it closes every link at once.
#[derive(Debug)]
pub(crate) struct Burst {
    name: String,
    endpoint: quinn::Endpoint,
    fleet: Arc<Fleet>,
    offers: watch::Sender<Arc<Offers>>,
    stop: CancellationToken,
    supervisor: JoinHandle<()>,
}

impl Burst {
    /// Binds a socket and begins to look for relays; does not wait for any. `served` is what this agent
    /// serves.
    pub(crate) fn start(
        config: BurstConfig,
        served: Vec<Arc<Served>>,
        events: mpsc::Sender<RelayEvent>,
    ) -> Result<Self, BurstStartError> {
        let offers = Offers::new(config.name.clone(), served)?;
        let endpoint = endpoint::bind(&config.identity)?;
        let fleet = Arc::new(Fleet::new(events));
        let home = Arc::new(Home {
            endpoint: endpoint.clone(),
            fleet: Arc::clone(&fleet),
        });
        let stop = CancellationToken::new();
        let discovery = Discovery::new(config.relays, config.relays_file);
        let offers = watch::Sender::new(Arc::new(offers));
        let links = discovery::supervise(discovery, home, offers.subscribe(), stop.clone());
        let supervisor = tokio::spawn(links);
        Ok(Self {
            name: config.name,
            endpoint,
            fleet,
            offers,
            stop,
            supervisor,
        })
    }

    /// Replaces what relays are offered. Each relay gets a link of its own for the new offers; the one
    /// before takes requests until the new one can run them all, and finishes what it has.
    pub(crate) fn offer(&self, served: Vec<Arc<Served>>) -> Result<(), BurstStartError> {
        let offers = Offers::new(self.name.clone(), served)?;
        self.offers.send_if_modified(|current| {
            let is_new = !current.are_those_of(&offers);
            if is_new {
                *current = Arc::new(offers);
            }
            is_new
        });
        Ok(())
    }

    /// Runs one request on `relay`, in the version of `served` that it was offered. Dropping the future
    /// cancels it there.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of the one request"
    )]
    pub(crate) async fn infer(
        &self,
        relay: RelayId,
        served: &Served,
        pin: Pin,
        inputs: Vec<NamedTensor>,
        outputs: Vec<String>,
        priority: Priority,
        deadline: Instant,
    ) -> Result<BurstReply, BurstError> {
        let start = Instant::now();
        let link = self
            .fleet
            .link(relay)
            .ok_or(BurstError::Unknown { relay })?;
        let offered = link.offers.version_of(served.index);
        let served = offered
            .filter(|offered| pin == Pin::Any || offered.digest() == served.digest())
            .ok_or_else(|| BurstError::NotOffered {
                name: link.name.clone(),
            })?;
        let _in_flight = link.begin()?;
        let message = RequestMessage {
            module: served.digest(),
            time_left: deadline.saturating_duration_since(start),
            priority,
            outputs,
            inputs,
        };
        let exchange = exchange::exchange(&link, &message);
        let (reply, bytes) = match tokio::time::timeout_at(deadline.into(), exchange).await {
            Ok(done) => done?,
            Err(_) => {
                let name = link.name.clone();
                return Err(BurstError::Deadline { name });
            }
        };
        link.report(&reply.load);
        match reply.result {
            Ok(answer) => Ok(BurstReply {
                served,
                answer,
                bytes,
                sojourn: start.elapsed(),
            }),
            Err(failure) => Err(BurstError::Refused {
                name: link.name.clone(),
                failure,
            }),
        }
    }

    /// Announces how many slots of each relay will be needed within `horizon`; a relay that is not
    /// listed is told that none are. Cheap, so it may be called every tick.
    pub(crate) fn reserve(
        &self,
        reservations: &[(RelayId, f64)],
        horizon: Duration,
        probability: f64,
    ) {
        for link in self.fleet.links() {
            let listed = reservations.iter().find(|(relay, _)| *relay == link.id);
            link.reserve(Reservation {
                // What is not a number is not a need.
                slots: listed.map_or(0.0, |(_, slots)| slots.max(0.0)),
                horizon,
                probability,
            });
        }
    }

    /// What a connected relay calls itself.
    pub(crate) fn relay_name(&self, relay: RelayId) -> Option<String> {
        self.fleet.link(relay).map(|link| link.name.clone())
    }

    /// Stops looking for relays, lets the requests in flight finish within `grace`, closes.
    pub(crate) async fn shutdown(mut self, grace: Duration) {
        /// What it may take to tell the relays that the links are closed.
        const CLOSE_MAX: Duration = Duration::from_secs(1);

        self.stop.cancel();
        if tokio::time::timeout(grace, &mut self.supervisor)
            .await
            .is_err()
        {
            tracing::warn!("requests to relays were cut off at the end of the grace period");
        }
        self.endpoint.close(code::NONE.into(), b"agent stopped");
        // Peers that do not hear of it find out by their idle timeout.
        let _ = tokio::time::timeout(CLOSE_MAX, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.supervisor.abort();
        self.endpoint.close(code::NONE.into(), b"agent stopped");
    }
}
