//! Takes connections in: who may connect, how many, and what each may keep open.
//!
//! Nothing is known of a peer until its handshake is done, so handshakes have few seats of their own
//! and little time; once half of them are taken, a peer must first show that it receives at the
//! address it sends from (QUIC retry). A finished handshake has shown a certificate of the CA; its
//! name may hold a bounded number of connections, and the relay as a whole another.

mod connection;
mod control;
mod endpoint;
mod fetch;
mod frame;
mod modules;
mod request;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::{Connecting, Connection, Endpoint, Incoming};
use tidegate_identity::PeerName;
use tidegate_wire::code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use endpoint::BindError;
pub(crate) use endpoint::bind;

use crate::service::Service;
use crate::store::chain;

/// Handshakes in progress at a time.
const HANDSHAKES_MAX: usize = 64;

/// From here on a peer must prove its address first.
const HANDSHAKES_UNPROVEN_MAX: usize = HANDSHAKES_MAX / 2;

/// How long a handshake may take: three round trips at a second each.
const HANDSHAKE_MAX: Duration = Duration::from_secs(3);

/// What a connection may take and how patient the relay is with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Connections in all.
    pub(crate) connections_max: usize,
    /// Connections of one name.
    pub(crate) connections_per_peer_max: usize,
    /// Requests in flight on one connection.
    pub(crate) requests_max: u32,
    /// How long a message may stay half-sent, or a reply unread.
    pub(crate) stall: Duration,
}

/// What the connections of one relay share beside its service.
#[derive(Debug)]
struct House {
    service: Arc<Service>,
    /// What this relay calls itself in its hello; may be empty.
    name: String,
    terms: Terms,
    seats: Arc<Semaphore>,
    by_peer: Mutex<HashMap<PeerName, usize>>,
}

/// Serves connections until the service drains and the last of them is closed.
pub(crate) async fn serve(endpoint: Endpoint, service: Arc<Service>, name: String, terms: Terms) {
    let draining = service.draining.clone();
    let house = Arc::new(House {
        service,
        name,
        terms,
        seats: Arc::new(Semaphore::new(terms.connections_max)),
        by_peer: Mutex::default(),
    });
    let mut handshakes = JoinSet::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                // The endpoint is closed, and with it the connections: their tasks end by themselves.
                // Dropping them now could overtake the reason that the agents are told.
                None => {
                    while connections.join_next().await.is_some() {}
                    break;
                }
                Some(incoming) if draining.is_cancelled() => incoming.refuse(),
                Some(incoming) => admit(incoming, &mut handshakes),
            },
            Some(done) = handshakes.join_next() => {
                if let Ok(Some(connection)) = done {
                    seat(connection, &house, &mut connections);
                }
            }
            Some(_) = connections.join_next() => {}
            () = draining.cancelled(), if connections.is_empty() => break,
        }
    }
}

fn admit(incoming: Incoming, handshakes: &mut JoinSet<Option<Connection>>) {
    let from = incoming.remote_address();
    if handshakes.len() >= HANDSHAKES_MAX {
        incoming.refuse();
    } else if handshakes.len() >= HANDSHAKES_UNPROVEN_MAX && incoming.may_retry() {
        // Fails only where a retry was asked for already, which `may_retry` excludes.
        let _ = incoming.retry();
    } else {
        match incoming.accept() {
            Ok(connecting) => {
                handshakes.spawn(shake_hands(connecting));
            }
            Err(error) => tracing::debug!(%from, %error, "a handshake failed at once"),
        }
    }
}

async fn shake_hands(connecting: Connecting) -> Option<Connection> {
    let from = connecting.remote_address();
    match timeout(HANDSHAKE_MAX, connecting).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::debug!(%from, error = chain(&error), "a handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%from, "a handshake took too long");
            None
        }
    }
}

/// Gives a connection its seat and its task, or says why it gets none.
fn seat(connection: Connection, house: &Arc<House>, connections: &mut JoinSet<()>) {
    let from = connection.remote_address();
    match Seat::take(&connection, house) {
        Ok(seat) => {
            connections.spawn(connection::hold(connection, seat));
        }
        Err(error) => {
            tracing::warn!(%from, error = chain(&error), "refused a connection");
            let code = match &error {
                SeatError::Name(_) | SeatError::NoCertificate => code::UNAUTHORISED,
                SeatError::Full | SeatError::PeerFull { .. } => code::BUSY,
            };
            connection.close(code.into(), error.to_string().as_bytes());
        }
    }
}

/// Why a connection gets no seat.
#[derive(Debug, thiserror::Error)]
enum SeatError {
    #[error("the peer showed no certificate")]
    NoCertificate,
    #[error("the certificate names no agent")]
    Name(#[source] tidegate_identity::IdentityError),
    #[error("too many connections")]
    Full,
    #[error("too many connections of {peer}")]
    PeerFull { peer: PeerName },
}

/// One connection's right to be here.
#[derive(Debug)]
struct Seat {
    house: Arc<House>,
    peer: PeerName,
    _seat: OwnedSemaphorePermit,
}

impl Seat {
    fn take(connection: &Connection, house: &Arc<House>) -> Result<Self, SeatError> {
        let peer = endpoint::peer_name(connection)?;
        let seats = Arc::clone(&house.seats);
        let seat = seats.try_acquire_owned().map_err(|_| SeatError::Full)?;
        let mut by_peer = house.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_peer.entry(peer.clone()).or_default();
        if *count >= house.terms.connections_per_peer_max {
            return Err(SeatError::PeerFull { peer });
        }
        *count += 1;
        Ok(Self {
            house: Arc::clone(house),
            peer,
            _seat: seat,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut by_peer = self
            .house
            .by_peer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}
