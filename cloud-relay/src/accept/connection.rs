//! One agent's connection, from its hello to its end.
//!
//! Beside the requests, each a task of its own, a connection is one task: it listens to the control
//! stream, reports load, gets the modules that the agent offers, and watches for the drain. The first
//! of these that ends, ends the connection, and with it every request on it: their jobs are dropped.
//!
//! An agent can run only what it listed in its hello. While this relay drains, requests are still
//! served: the agent is told to send no more, and closes when it has its answers. One that does not
//! is closed once it has been quiet for [`QUIET`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};
use tidegate_inference::{Digest, Failure, FailureKind};
use tidegate_runtime::Model;
use tidegate_wire::{ControlMessage, ModuleOffer, code};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::frame::{self, FrameError};
use super::{Seat, Terms, control, modules, request};
use crate::reservation::ConnectionId;
use crate::service::Service;
use crate::store::{Lease, chain};

/// A drained connection is closed when no request came for so long.
const QUIET: Duration = Duration::from_millis(500);

/// When to come back for a module that is on its way.
const READY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// One connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Peer {
    /// What all connections share.
    pub(super) service: Arc<Service>,
    /// What this connection may take.
    pub(super) terms: Terms,
    /// The bytes that it may hold.
    pub(super) held: Arc<Semaphore>,
    /// Its number.
    pub(super) id: ConnectionId,
    /// The way to the agent.
    pub(super) connection: Connection,
    modules: RwLock<HashMap<Digest, Offered>>,
    in_flight: AtomicU32,
    begun: AtomicU64,
    idle: Notify,
}

/// A module that the agent offered.
#[derive(Debug)]
pub(super) enum Offered {
    /// On its way.
    Pending,
    /// Ready, and kept so.
    Ready(
        Arc<Model>,
        #[expect(dead_code, reason = "held for what its drop releases")] Lease,
    ),
    /// Not to be had here, and why.
    Refused(String),
}

impl Peer {
    /// Counts a request in until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }

    /// Requests on this connection that are not finished.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// A module that a request asks for.
    pub(super) fn module(&self, digest: Digest) -> Result<Arc<Model>, Failure> {
        let modules = self.modules.read().unwrap_or_else(PoisonError::into_inner);
        match modules.get(&digest) {
            Some(Offered::Ready(model, _)) => Ok(Arc::clone(model)),
            Some(Offered::Pending) => {
                let failure = Failure::new(FailureKind::Unavailable, "the model is not ready yet");
                Err(failure.retry_after(READY_RETRY_AFTER))
            }
            Some(Offered::Refused(reason)) => {
                let message = format!("the relay cannot run this model: {reason}");
                Err(Failure::new(FailureKind::Unavailable, message))
            }
            None => {
                let message = format!("module {digest} was not offered on this connection");
                Err(Failure::new(FailureKind::NotFound, message))
            }
        }
    }

    /// Notes what became of a module that the agent offered.
    pub(super) fn set(&self, digest: Digest, offered: Offered) {
        let mut modules = self.modules.write().unwrap_or_else(PoisonError::into_inner);
        modules.insert(digest, offered);
    }

    async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.service.reservations.remove(self.id);
    }
}

/// A request that is not finished.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Peer>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// By the agent, or by the network.
    #[error("closed")]
    Closed(#[source] ConnectionError),
    /// This relay stops, and has answered everything.
    #[error("drained")]
    Drained,
    /// The agent did not say who it is.
    #[error("no hello within {0:?}")]
    NoHello(Duration),
    /// The control stream broke, or carried something else.
    #[error("the control stream failed")]
    Control(#[source] FrameError),
    /// A message that an agent does not send.
    #[error("the protocol has no place for {0}")]
    Violation(&'static str),
    /// More control messages than an agent has reason to send.
    #[error("too many control messages")]
    Flood,
    /// Nothing can be written to the agent.
    #[error("failed to write to the agent")]
    Write(#[source] WriteError),
    /// A message of this relay breaks the protocol's limits.
    #[error("failed to encode a message")]
    Encode(#[source] tidegate_wire::EncodeError),
}

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Broken(ReadError::ConnectionLost(lost)) => Self::Closed(lost),
            broken => Self::Control(broken),
        }
    }
}

impl From<WriteError> for End {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(lost) => Self::Closed(lost),
            broken => Self::Write(broken),
        }
    }
}

impl End {
    fn code(&self) -> u32 {
        match self {
            Self::Closed(_) => code::NONE,
            Self::Drained => code::GOING_AWAY,
            Self::NoHello(_) => code::TIMED_OUT,
            Self::Control(error) => error.code(),
            Self::Violation(_) => code::MALFORMED,
            Self::Flood => code::BUSY,
            Self::Write(_) | Self::Encode(_) => code::INTERNAL,
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn hold(connection: Connection, seat: Seat) {
    let service = &seat.house.service;
    let _connected = service.metrics.connected();
    let peer = seat.peer.as_str();
    let from = connection.remote_address();
    let end = match greet(&connection, seat.house.terms.stall).await {
        Ok(hello) => {
            tracing::info!(peer, agent = hello.name, %from, "an agent connected");
            serve(&connection, &seat, hello).await
        }
        Err(end) => end,
    };
    match &end {
        End::Closed(_) | End::Drained => {
            tracing::info!(peer, %from, end = chain(&end), "an agent's connection ended");
        }
        broken => {
            tracing::warn!(peer, %from, end = chain(broken), "ended an agent's connection");
        }
    }
    connection.close(end.code().into(), end.to_string().as_bytes());
}

struct Hello {
    name: String,
    modules: Vec<ModuleOffer>,
    control: RecvStream,
    replies: SendStream,
}

async fn greet(connection: &Connection, stall: Duration) -> Result<Hello, End> {
    let greet = async {
        let replies = connection.open_uni().await.map_err(End::Closed)?;
        let mut control = connection.accept_uni().await.map_err(End::Closed)?;
        match frame::control(&mut control, stall).await? {
            ControlMessage::Hello { name, modules } => Ok(Hello {
                name,
                modules,
                control,
                replies,
            }),
            _ => Err(End::Violation("anything before a hello")),
        }
    };
    timeout(stall, greet)
        .await
        .unwrap_or(Err(End::NoHello(stall)))
}

async fn serve(connection: &Connection, seat: &Seat, hello: Hello) -> End {
    let house = &seat.house;
    let service = &house.service;
    let peer = Arc::new(Peer {
        service: Arc::clone(service),
        terms: house.terms,
        held: service.connection_bytes(),
        id: service.next_connection(),
        connection: connection.clone(),
        modules: RwLock::default(),
        in_flight: AtomicU32::new(0),
        begun: AtomicU64::new(0),
        idle: Notify::new(),
    });
    let (ready, wanted) = modules::take_offers(&peer, hello.modules);
    let hello_back = ControlMessage::Hello {
        name: house.name.clone(),
        modules: ready,
    };
    // A channel for as many as a hello can list is never full.
    let (loaded, now_ready) = mpsc::channel(tidegate_wire::MODULES_MAX);
    tokio::select! {
        end = control::listen(&peer, hello.control) => end,
        end = control::report(&peer, hello.replies, hello_back, now_ready) => end,
        end = modules::obtain_all(&peer, wanted, loaded) => end,
        end = requests(&peer) => end,
        end = drained(&peer) => end,
    }
}

async fn requests(peer: &Arc<Peer>) -> End {
    // QUIC itself holds the agent to `Terms::requests_max` streams.
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            stream = peer.connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    streams.spawn(request::serve(Arc::clone(peer), send, recv));
                }
                Err(error) => return End::Closed(error),
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

async fn drained(peer: &Peer) -> End {
    peer.service.draining.cancelled().await;
    loop {
        let begun = peer.begun.load(Ordering::Acquire);
        peer.idle().await;
        sleep(QUIET).await;
        if peer.in_flight() == 0 && peer.begun.load(Ordering::Acquire) == begun {
            return End::Drained;
        }
    }
}
