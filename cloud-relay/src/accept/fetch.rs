//! Gets a module that this relay lacks from an agent that offers it.

use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, VarInt, WriteError};
use tidegate_wire::{ControlMessage, EncodeError, code};
use tokio::time::timeout;

use super::frame::{self, FrameError};
use crate::store::ModuleKey;

/// How long a transfer may take in all: 1 GiB at 2 MB/s.
const TRANSFER_MAX: Duration = Duration::from_secs(600);

/// Why a module did not come.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("failed to open a stream")]
    Open(#[source] ConnectionError),
    #[error("failed to encode the question")]
    Encode(#[source] EncodeError),
    #[error("failed to ask")]
    Ask(#[source] WriteError),
    #[error("failed to read the module")]
    Read(#[source] FrameError),
    #[error("the agent offered something else than it was asked for")]
    Mismatch,
    #[error("the agent no longer has it")]
    NotThere,
    #[error("it took more than {TRANSFER_MAX:?}")]
    TooSlow,
}

/// Asks for the module, and reads exactly as many bytes as were announced for it. Whether they are
/// the module is for the caller to see.
pub(super) async fn fetch(
    connection: &Connection,
    wanted: ModuleKey,
    stall: Duration,
) -> Result<Bytes, FetchError> {
    timeout(TRANSFER_MAX, transfer(connection, wanted, stall))
        .await
        .unwrap_or(Err(FetchError::TooSlow))
}

async fn transfer(
    connection: &Connection,
    wanted: ModuleKey,
    stall: Duration,
) -> Result<Bytes, FetchError> {
    let ModuleKey { digest, len } = wanted;
    let question = ControlMessage::ModuleWanted { digest };
    let question = question.encode().map_err(FetchError::Encode)?;
    let (mut send, mut recv) = connection.open_bi().await.map_err(FetchError::Open)?;
    send.write_chunk(question).await.map_err(FetchError::Ask)?;
    // Fails only on a stream that the agent stopped; the answer says more.
    let _ = send.finish();
    let answer = timeout(stall, frame::control(&mut recv, stall))
        .await
        .unwrap_or(Err(FrameError::Stalled(stall)))
        .map_err(FetchError::Read)?;
    let offered = ControlMessage::ModuleOffered { digest, len };
    let read = match answer {
        answer if answer == offered && len > 0 => {
            let len = usize::try_from(len).map_err(|_| FetchError::Mismatch)?;
            frame::rest(&mut recv, len, stall)
                .await
                .map_err(FetchError::Read)
        }
        ControlMessage::ModuleOffered { len: 0, .. } => Err(FetchError::NotThere),
        _ => Err(FetchError::Mismatch),
    };
    if read.is_err() {
        let _ = recv.stop(VarInt::from_u32(code::MALFORMED));
    }
    read
}
