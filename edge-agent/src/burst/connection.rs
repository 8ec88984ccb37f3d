//! One relay address, kept connected: dial, greet, listen, announce, watch, retire, again.
//!
//! A link that the relay or the relay list asks to retire takes no new request, finishes those in
//! flight within [`RETIRE_MAX`], and closes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream, WriteError};
use tidegate_control::ModelIndex;
use tidegate_inference::Digest;
use tidegate_wire::{ControlMessage, DecodeError, EncodeError, Kind, PREFIX_BYTES, Prefix, code};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::LostError;
use super::dial::{Pace, connect, wait};
use super::exchange::read_exact;
use super::link::{Home, Link, Reservation};
use super::offers::Offers;
use super::transfer::serve_modules;
use crate::chance::uniform;
use crate::config::RelayAddress;

/// How long a relay may take to greet.
const HELLO_MAX: Duration = Duration::from_secs(3);

/// A link that held for so long makes the next attempt a first one.
const STABLE: Duration = Duration::from_secs(5);

/// How long requests in flight may keep a link that is to close.
const RETIRE_MAX: Duration = Duration::from_secs(30);

/// How often a link with requests in flight is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Nothing received for so long with requests in flight: the link is lost. Four load reports.
const SILENCE_MAX: Duration = Duration::from_millis(400);

/// An unchanged reservation is said again this often, so that it does not expire at the relay.
const RESERVE_AGAIN: Duration = Duration::from_secs(1);

/// Keeps a link to `address` until `retire` is cancelled and its requests are finished.
///
/// `whole` is cancelled once the relay can run every model of the offers, or when this ends.
pub(super) async fn keep(
    address: RelayAddress,
    home: Arc<Home>,
    offers: Arc<Offers>,
    whole: CancellationToken,
    retire: CancellationToken,
) {
    let _when_this_ends = whole.clone().drop_guard();
    let mut failures = 0_u32;
    loop {
        let attempt = tokio::select! {
            () = retire.cancelled() => return,
            attempt = connect(&address, &home.endpoint) => attempt,
        };
        let wait_max = match attempt {
            Ok(connection) => {
                let start = Instant::now();
                let wait_max = Pace::of(connection.remote_address().ip().to_canonical()).wait_max;
                let wanted = Wanted::of(&offers, &whole);
                match hold(&connection, &address, &home, wanted, &retire).await {
                    End::Retired => tracing::info!(%address, "closed the link to a relay"),
                    end => {
                        let end: &dyn std::error::Error = &end;
                        if failures == 0 {
                            tracing::warn!(%address, end, "lost the link to a relay");
                        } else {
                            tracing::debug!(%address, end, failures, "lost the link to a relay again");
                        }
                    }
                }
                connection.close(code::NONE.into(), b"done");
                if start.elapsed() >= STABLE {
                    failures = 0;
                }
                wait_max
            }
            Err(failed) => {
                let error: &dyn std::error::Error = &failed.error;
                if failures == 0 {
                    tracing::warn!(%address, error, "failed to reach a relay, will go on trying");
                } else {
                    tracing::debug!(%address, error, failures, "failed to reach a relay again");
                }
                failed.wait_max
            }
        };
        failures = failures.saturating_add(1);
        tokio::select! {
            () = retire.cancelled() => return,
            () = sleep(wait(failures, wait_max, uniform())) => {}
        }
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("retired")]
    Retired,
    #[error("failed to greet the relay")]
    Greet(#[source] GreetError),
    #[error("the connection failed")]
    Connection(#[source] ConnectionError),
    #[error("the relay's control stream failed")]
    Control(#[source] ControlError),
    #[error("the relay sent {0} where the protocol has no place for it")]
    Violation(&'static str),
    #[error("nothing came for {0:?} with requests in flight")]
    Silent(Duration),
    #[error("failed to write to the relay")]
    Write(#[source] WriteError),
    #[error("failed to encode a message to the relay")]
    Encode(#[source] EncodeError),
}

/// Greets the relay, then serves the link until it ends.
async fn hold(
    connection: &Connection,
    address: &RelayAddress,
    home: &Home,
    mut wanted: Wanted<'_>,
    retire: &CancellationToken,
) -> End {
    let offers = wanted.offers;
    let greeted = timeout(HELLO_MAX, greet(connection, offers)).await;
    let (send, recv, greeting) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => return End::Greet(error),
        Err(_) => return End::Greet(GreetError::Silent),
    };
    let name = if greeting.name.is_empty() {
        address.to_string()
    } else {
        greeting.name
    };
    tracing::info!(%address, name, "connected to a relay");
    let link = home.fleet.add(name, connection.clone(), Arc::clone(offers));
    for digest in greeting.ready {
        wanted.ready(&link, digest).await;
    }
    // None of these is a task: when the first ends, the others are dropped with it.
    let end = tokio::select! {
        end = listen(&link, wanted, recv) => end,
        end = announce(&link, send) => end,
        error = serve_modules(connection, offers) => End::Connection(error),
        end = watch(&link) => end,
        end = finish(&link, home, retire) => end,
    };
    home.fleet.remove(&link).await;
    end
}

struct Greeting {
    name: String,
    ready: Vec<Digest>,
}

#[derive(Debug, thiserror::Error)]
enum GreetError {
    #[error("the connection failed")]
    Connection(#[source] ConnectionError),
    #[error("failed to write the hello")]
    Write(#[source] WriteError),
    #[error("failed to read the hello")]
    Read(#[source] ControlError),
    #[error("the first message is not a hello")]
    NotHello,
    #[error("no hello within {HELLO_MAX:?}")]
    Silent,
}

async fn greet(
    connection: &Connection,
    offers: &Offers,
) -> Result<(SendStream, RecvStream, Greeting), GreetError> {
    let mut send = connection
        .open_uni()
        .await
        .map_err(GreetError::Connection)?;
    send.write_chunk(offers.hello.clone())
        .await
        .map_err(GreetError::Write)?;
    let mut recv = connection
        .accept_uni()
        .await
        .map_err(GreetError::Connection)?;
    match read_control(&mut recv).await.map_err(GreetError::Read)? {
        ControlMessage::Hello { name, modules } => {
            let ready = modules.into_iter().map(|offer| offer.digest).collect();
            Ok((send, recv, Greeting { name, ready }))
        }
        _ => Err(GreetError::NotHello),
    }
}

/// What a link offered, and how much of it the relay cannot run yet.
struct Wanted<'a> {
    offers: &'a Arc<Offers>,
    whole: &'a CancellationToken,
    ready: BTreeSet<ModelIndex>,
}

impl<'a> Wanted<'a> {
    fn of(offers: &'a Arc<Offers>, whole: &'a CancellationToken) -> Self {
        Self {
            offers,
            whole,
            ready: BTreeSet::new(),
        }
    }

    async fn ready(&mut self, link: &Link, digest: Digest) {
        if let Some(served) = self.offers.module(digest) {
            link.model_ready(served.index).await;
            self.ready.insert(served.index);
            if self.ready.len() == self.offers.len() {
                self.whole.cancel();
            }
        }
    }
}

/// Takes what the relay says on its control stream.
async fn listen(link: &Link, mut wanted: Wanted<'_>, mut recv: RecvStream) -> End {
    loop {
        match read_control(&mut recv).await {
            Ok(ControlMessage::Load(load)) => link.report(&load),
            Ok(ControlMessage::ModuleReady { digest }) => wanted.ready(link, digest).await,
            Ok(ControlMessage::Credits { in_flight_max }) => link.allow(in_flight_max),
            Ok(ControlMessage::GoAway { reason }) => {
                tracing::info!(
                    relay = link.name,
                    reason,
                    "a relay asks for no more requests"
                );
                link.going_away.cancel();
            }
            Ok(ControlMessage::Hello { .. }) => return End::Violation("a second hello"),
            Ok(ControlMessage::Reservation { .. }) => return End::Violation("a reservation"),
            Ok(ControlMessage::ModuleWanted { .. }) => return End::Violation("module-wanted"),
            Ok(ControlMessage::ModuleOffered { .. }) => return End::Violation("module-offered"),
            Err(error) => return End::Control(error),
        }
    }
}

/// Tells the relay what it should have ready, when that changes and every second while it is not 0.
async fn announce(link: &Link, mut send: SendStream) -> End {
    let mut reservation = link.reservation();
    let mut said = Reservation::default();
    loop {
        let changed = reservation.changed();
        // A link that is lost drops this future; the watch itself lives as long as the link.
        let _ = if said.slots > 0.0 {
            timeout(RESERVE_AGAIN, changed).await.unwrap_or(Ok(()))
        } else {
            changed.await
        };
        let now = *reservation.borrow_and_update();
        if now.slots == 0.0 && said.slots == 0.0 {
            continue;
        }
        let message = ControlMessage::Reservation {
            slots: now.slots,
            horizon: now.horizon,
            probability: now.probability,
        };
        let frame = match message.encode() {
            Ok(frame) => frame,
            Err(error) => return End::Encode(error),
        };
        if let Err(error) = send.write_chunk(frame).await {
            return End::Write(error);
        }
        said = now;
    }
}

/// Ends when nothing comes although requests wait for their replies.
async fn watch(link: &Link) -> End {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut received = 0;
    let mut looked = Instant::now();
    let mut heard = looked;
    loop {
        let now = look.tick().await;
        let count = link.connection.stats().udp_rx.datagrams;
        // Where this process itself stood still, what came meanwhile is not counted yet.
        let stood_still = now.duration_since(looked) > 2 * LOOK_EVERY;
        looked = now;
        if count != received || link.in_flight() == 0 || stood_still {
            received = count;
            heard = now;
            continue;
        }
        let silence = now.duration_since(heard);
        let patience = 3 * link.connection.rtt() + Duration::from_millis(200);
        if silence >= SILENCE_MAX.max(patience) {
            return End::Silent(silence);
        }
    }
}

/// When the link is to retire, gives it no new request and waits for those in flight.
async fn finish(link: &Link, home: &Home, retire: &CancellationToken) -> End {
    tokio::select! {
        () = retire.cancelled() => {}
        () = link.going_away.cancelled() => {}
    }
    home.fleet.remove(link).await;
    if timeout(RETIRE_MAX, link.idle()).await.is_err() {
        tracing::warn!(
            relay = link.name,
            in_flight = link.in_flight(),
            "cut off requests"
        );
    }
    End::Retired
}

/// Why no control message could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlError {
    /// The stream broke or ended.
    #[error("failed to read a control message")]
    Read(#[source] LostError),
    /// The bytes are not a control message.
    #[error("failed to decode a control message")]
    Decode(#[source] DecodeError),
}

/// Reads the next message of a control stream.
pub(super) async fn read_control(recv: &mut RecvStream) -> Result<ControlMessage, ControlError> {
    let mut prefix = [0; PREFIX_BYTES];
    read_exact(recv, &mut prefix)
        .await
        .map_err(ControlError::Read)?;
    let header_len = Prefix::decode(&prefix)
        .and_then(|prefix| prefix.expect(Kind::Control))
        .map_err(ControlError::Decode)?;
    let mut header = vec![0; header_len];
    read_exact(recv, &mut header)
        .await
        .map_err(ControlError::Read)?;
    ControlMessage::decode(&header).map_err(ControlError::Decode)
}
