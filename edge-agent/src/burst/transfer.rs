//! Hands modules over to a relay that lacks them.
//!
//! The relay opens one stream per module and names it by digest. The file is sent from the memory
//! that the runtime holds anyway, not copied, at a lower priority than requests on the same link.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tidegate_inference::Digest;
use tidegate_wire::ControlMessage;
use tokio::task::JoinSet;

use super::connection::{ControlError, read_control};
use super::offers::Offers;

/// Most modules that one relay may fetch at a time.
pub(super) const MODULE_STREAMS_MAX: u32 = 4;

/// How long the relay may take to say which module it wants.
const WANTED_MAX: Duration = Duration::from_secs(5);

/// Below the default of 0, which requests have.
const TRANSFER_PRIORITY: i32 = -1;

/// Answers the relay's streams until the link is lost.
pub(super) async fn serve_modules(
    connection: &Connection,
    offers: &Arc<Offers>,
) -> ConnectionError {
    // QUIC itself holds the relay to `MODULE_STREAMS_MAX`.
    let mut transfers = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    transfers.spawn(serve_one(send, recv, Arc::clone(offers)));
                }
                Err(error) => return error,
            },
            Some(_) = transfers.join_next() => {}
        }
    }
}

async fn serve_one(mut send: SendStream, mut recv: RecvStream, offers: Arc<Offers>) {
    match transfer(&mut send, &mut recv, &offers).await {
        Ok((digest, len)) => tracing::info!(%digest, len, "sent a module to a relay"),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "failed to send a module to a relay");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum TransferError {
    #[error("failed to read which module the relay wants")]
    Wanted(#[source] ControlError),
    #[error("the relay did not say which module it wants")]
    Silent,
    #[error("the relay opened a stream for something else than a module")]
    Unexpected,
    #[error("failed to write the offer")]
    Offer(#[source] tidegate_wire::EncodeError),
    #[error("failed to send the module")]
    Send(#[source] quinn::WriteError),
}

async fn transfer(
    send: &mut SendStream,
    recv: &mut RecvStream,
    offers: &Offers,
) -> Result<(Digest, usize), TransferError> {
    let wanted = tokio::time::timeout(WANTED_MAX, read_control(recv))
        .await
        .map_err(|_| TransferError::Silent)?
        .map_err(TransferError::Wanted)?;
    let ControlMessage::ModuleWanted { digest } = wanted else {
        return Err(TransferError::Unexpected);
    };
    let found = offers.module(digest);
    // An empty file is the protocol's way to say that the module is not to be had.
    let file = found.map_or_else(Bytes::new, |served| served.model.file().clone());
    let len = file.len();
    let offer = ControlMessage::ModuleOffered {
        digest,
        len: u64::try_from(len).expect("usize is at most 64 bits"),
    };
    let offer = offer.encode().map_err(TransferError::Offer)?;
    // Fails only on a stream that is closed, as the write then says.
    let _ = send.set_priority(TRANSFER_PRIORITY);
    send.write_all_chunks(&mut [offer, file])
        .await
        .map_err(TransferError::Send)?;
    let _ = send.finish();
    Ok((digest, len))
}
