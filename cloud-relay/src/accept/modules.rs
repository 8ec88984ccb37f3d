//! The modules that one agent offers: which are ready, and how the others become so.
//!
//! Each missing module has a task that waits for room in the store, fetches, and tells the agent. It
//! ends with the connection. A module that cannot be had from this agent is refused for as long as
//! the connection lasts; requests for it say why.

use std::sync::Arc;
use std::time::Duration;

use tidegate_inference::Digest;
use tidegate_wire::ModuleOffer;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::connection::{End, Offered, Peer};
use super::fetch;
use crate::store::{FillError, Lease, LeaseError, ModuleKey, chain};

/// How often a module is asked for before its agent is given up as its source.
const FETCHES_MAX: u32 = 3;

/// Wait before a module is asked for again.
const FETCH_AGAIN: Duration = Duration::from_secs(1);

/// A module that the agent offered and that is not ready.
pub(super) struct Wanted {
    offer: ModuleOffer,
    /// Its place, unless the store is full now.
    lease: Option<Lease>,
}

/// Sorts what the agent offers into what is ready and what is still to come.
pub(super) fn take_offers(
    peer: &Peer,
    offers: Vec<ModuleOffer>,
) -> (Vec<ModuleOffer>, Vec<Wanted>) {
    let mut ready_offers = Vec::new();
    let mut wanted = Vec::new();
    let mut bytes = 0_u64;
    for offer in offers {
        let leased = peer.service.store.lease(key_of(&offer));
        if !matches!(leased, Err(LeaseError::TooLarge { .. })) {
            bytes = bytes.saturating_add(offer.len);
            if bytes > peer.service.store.peer_bytes_max() {
                let reason = "its agent offers more bytes than one may".to_owned();
                refuse(peer, &offer, reason);
                continue;
            }
        }
        match leased {
            Ok(lease) => match lease.ready() {
                Some(ready) => {
                    peer.set(offer.digest, Offered::Ready(ready, lease));
                    ready_offers.push(offer);
                }
                None => {
                    peer.set(offer.digest, Offered::Pending);
                    let lease = Some(lease);
                    wanted.push(Wanted { offer, lease });
                }
            },
            Err(LeaseError::Full { .. }) => {
                peer.set(offer.digest, Offered::Pending);
                wanted.push(Wanted { offer, lease: None });
            }
            Err(error @ LeaseError::TooLarge { .. }) => refuse(peer, &offer, error.to_string()),
        }
    }
    (ready_offers, wanted)
}

fn key_of(offer: &ModuleOffer) -> ModuleKey {
    ModuleKey {
        digest: offer.digest,
        len: offer.len,
    }
}

fn refuse(peer: &Peer, offer: &ModuleOffer, reason: String) {
    let ModuleOffer { name, digest, len } = offer;
    tracing::warn!(model = name, %digest, len, reason, "refused a module");
    peer.set(*digest, Offered::Refused(reason));
}

pub(super) async fn obtain_all(
    peer: &Arc<Peer>,
    wanted: Vec<Wanted>,
    loaded: mpsc::Sender<Digest>,
) -> End {
    let mut all = JoinSet::new();
    for one in wanted {
        all.spawn(obtain(Arc::clone(peer), one, loaded.clone()));
    }
    while all.join_next().await.is_some() {}
    std::future::pending().await
}

async fn obtain(peer: Arc<Peer>, wanted: Wanted, loaded: mpsc::Sender<Digest>) {
    let Wanted { offer, lease } = wanted;
    let lease = match lease {
        Some(lease) => lease,
        None => room(&peer, &offer).await,
    };
    let mut fetches = 0;
    let reason = loop {
        let fetch = fetch::fetch(&peer.connection, lease.key(), peer.terms.stall);
        match lease.fill(fetch).await {
            Ok(ready) => {
                tracing::info!(model = offer.name, digest = %offer.digest, "a module is ready");
                peer.set(offer.digest, Offered::Ready(ready, lease));
                // The receiver is gone only when the connection is.
                let _ = loaded.send(offer.digest).await;
                return;
            }
            Err(error @ FillError::Fetch(_)) => {
                fetches += 1;
                if fetches == FETCHES_MAX {
                    break chain(&error);
                }
                tracing::info!(model = offer.name, error = chain(&error), "will ask again");
                sleep(FETCH_AGAIN).await;
            }
            Err(error @ (FillError::Digest { .. } | FillError::Load { .. })) => {
                break chain(&error);
            }
        }
    };
    refuse(&peer, &offer, reason);
}

/// Waits until the store has a place for the module.
async fn room(peer: &Peer, offer: &ModuleOffer) -> Lease {
    let store = &peer.service.store;
    tracing::warn!(
        model = offer.name,
        len = offer.len,
        "no room for a module, waiting for some"
    );
    loop {
        let released = store.released.notified();
        if let Ok(lease) = store.lease(key_of(offer)) {
            return lease;
        }
        released.await;
    }
}
