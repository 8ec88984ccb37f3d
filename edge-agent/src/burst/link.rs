//! The connected relays: what a request needs of a link, and what the controller may learn.
//!
//! A [`Link`] is in the [`Fleet`] from the relay's hello until it is retired, and its number is never
//! given out again. Its last event is `Gone`: a report that a late reply carries is held back by the
//! same lock that marks the link as gone, so the controller never meets a relay that no longer is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use quinn::Connection;
use tidegate_control::{ModelIndex, RelayId, RelayLoad};
use tidegate_wire::LoadReport;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::offers::Offers;
use super::{BurstError, RelayEvent};

/// What every connection task needs.
#[derive(Debug)]
pub(super) struct Home {
    /// The socket that all links share.
    pub(super) endpoint: quinn::Endpoint,
    /// The links that requests may take.
    pub(super) fleet: Arc<Fleet>,
}

/// The relays that are connected now.
#[derive(Debug)]
pub(super) struct Fleet {
    links: RwLock<HashMap<RelayId, Arc<Link>>>,
    next: AtomicU64,
    events: mpsc::Sender<RelayEvent>,
}

impl Fleet {
    pub(super) fn new(events: mpsc::Sender<RelayEvent>) -> Self {
        Self {
            links: RwLock::default(),
            next: AtomicU64::new(0),
            events,
        }
    }

    /// The link to `relay`, unless it is gone.
    pub(super) fn link(&self, relay: RelayId) -> Option<Arc<Link>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.get(&relay).cloned()
    }

    /// Every link.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.values().cloned().collect()
    }

    /// Makes a connection known under a number of its own.
    pub(super) fn add(
        &self,
        name: String,
        connection: Connection,
        offers: Arc<Offers>,
    ) -> Arc<Link> {
        let link = Arc::new(Link {
            id: RelayId(self.next.fetch_add(1, Ordering::Relaxed)),
            name,
            connection,
            offers,
            in_flight: AtomicU32::new(0),
            in_flight_max: AtomicU32::new(u32::MAX),
            idle: Notify::new(),
            going_away: CancellationToken::new(),
            reservation: watch::Sender::new(Reservation::default()),
            stage: Mutex::new(Stage::Greeted(Vec::new())),
            events: self.events.clone(),
        });
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.insert(link.id, Arc::clone(&link));
        link
    }

    /// Forgets a link; the controller hears of it if it ever heard of the link.
    pub(super) async fn remove(&self, link: &Link) {
        {
            let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
            if links.remove(&link.id).is_none() {
                return;
            }
        }
        let before = std::mem::replace(&mut *link.stage(), Stage::Gone);
        if let Stage::Reported = before {
            let event = RelayEvent::Gone { relay: link.id };
            // The receiver is gone only when the agent itself is stopping.
            let _ = self.events.send(event).await;
        }
    }
}

/// Slots that this agent expects to need on one relay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reservation {
    /// How many.
    pub(super) slots: f64,
    /// How soon.
    pub(super) horizon: Duration,
    /// How sure, 0 to 1.
    pub(super) probability: f64,
}

/// How much of a link the controller knows.
#[derive(Debug)]
enum Stage {
    /// Nothing yet; these models were ready before the first report.
    Greeted(Vec<ModelIndex>),
    /// Its load.
    Reported,
    /// That it is gone.
    Gone,
}

/// One connected relay.
#[derive(Debug)]
pub(super) struct Link {
    /// Its number.
    pub(super) id: RelayId,
    /// What it calls itself, or its address.
    pub(super) name: String,
    /// The way there.
    pub(super) connection: Connection,
    /// What the relay was offered.
    pub(super) offers: Arc<Offers>,
    /// Cancelled when the relay asks for no more requests.
    pub(super) going_away: CancellationToken,
    in_flight: AtomicU32,
    in_flight_max: AtomicU32,
    idle: Notify,
    reservation: watch::Sender<Reservation>,
    stage: Mutex<Stage>,
    events: mpsc::Sender<RelayEvent>,
}

impl Link {
    /// Counts a request in, unless the relay's limit is reached. Dropping the guard counts it out.
    pub(super) fn begin(self: &Arc<Self>) -> Result<InFlight, BurstError> {
        let in_flight_max = self.in_flight_max.load(Ordering::Relaxed);
        let guard = InFlight(Arc::clone(self));
        if self.in_flight.fetch_add(1, Ordering::AcqRel) >= in_flight_max {
            let name = self.name.clone();
            return Err(BurstError::NoCredit {
                name,
                in_flight_max,
            });
        }
        Ok(guard)
    }

    /// Requests in flight now.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Waits until no request is in flight.
    pub(super) async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.in_flight() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Takes the relay's limit of requests in flight.
    pub(super) fn allow(&self, in_flight_max: u32) {
        self.in_flight_max.store(in_flight_max, Ordering::Relaxed);
    }

    /// Hands a load report on. Where the controller is behind, it is dropped: a newer one follows.
    pub(super) fn report(&self, load: &LoadReport) {
        let mut stage = self.stage();
        let event = |load: &LoadReport| RelayEvent::Report {
            relay: self.id,
            load: self.relay_load(load),
        };
        match &mut *stage {
            Stage::Greeted(ready) => {
                // A full channel leaves the link unknown until the next report.
                let wanted = 1 + ready.len();
                let Ok(permits) = self.events.try_reserve_many(wanted) else {
                    return;
                };
                let ready = ready.drain(..).map(|model| RelayEvent::ModelReady {
                    relay: self.id,
                    model,
                });
                for (permit, event) in permits.zip(std::iter::once(event(load)).chain(ready)) {
                    permit.send(event);
                }
                *stage = Stage::Reported;
            }
            Stage::Reported => {
                let _ = self.events.try_send(event(load));
            }
            Stage::Gone => {}
        }
    }

    /// Says that the relay can run `model`, at once or with the first report.
    pub(super) async fn model_ready(&self, model: ModelIndex) {
        match &mut *self.stage() {
            Stage::Greeted(ready) => {
                if !ready.contains(&model) {
                    ready.push(model);
                }
                return;
            }
            Stage::Reported => {}
            Stage::Gone => return,
        }
        let relay = self.id;
        let _ = self
            .events
            .send(RelayEvent::ModelReady { relay, model })
            .await;
    }

    /// Replaces what is announced to the relay.
    pub(super) fn reserve(&self, reservation: Reservation) {
        self.reservation.send_if_modified(|current| {
            let changed = *current != reservation;
            *current = reservation;
            changed
        });
    }

    /// What is to be announced, now and whenever it changes.
    pub(super) fn reservation(&self) -> watch::Receiver<Reservation> {
        self.reservation.subscribe()
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relay_load(&self, load: &LoadReport) -> RelayLoad {
        RelayLoad {
            slots: load.slots,
            busy: load.busy,
            queued: load.queued,
            wait: load.wait,
            draining: load.draining,
            credits: self.in_flight_max.load(Ordering::Relaxed),
        }
    }
}

/// A request in flight on a link.
#[derive(Debug)]
pub(super) struct InFlight(Arc<Link>);

impl Drop for InFlight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
