//! Gets a module that this relay lacks from an agent that offers it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, VarInt, WriteError};
use tidegate_wire::{ControlMessage, EncodeError, code};
use tokio::time::timeout;

use super::frame::{self, FrameError};
use crate::store::ModuleKey;

/// Slowest transfer, in bytes per second, that others who offer the same module are kept waiting
/// for: 2 Mbit/s.
const BYTES_PER_S_MIN: u64 = 256 << 10;

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
    #[error("it took more than {0:?}")]
    TooSlow(Duration),
}

impl FetchError {
    /// What the agent is told.
    fn code(&self) -> u32 {
        match self {
            Self::Mismatch => code::MALFORMED,
            Self::TooSlow(_) => code::TIMED_OUT,
            Self::Read(error) => error.code(),
            Self::Encode(_) => code::INTERNAL,
            Self::Open(_) | Self::Ask(_) | Self::NotThere => code::NONE,
        }
    }
}

/// Asks for the module, and reads exactly as many bytes as were announced for it, in at most
/// `stall` and the time that they take at [`BYTES_PER_S_MIN`]. Whether they are the module is for the
/// caller to see.
pub(super) async fn fetch(
    connection: &Connection,
    wanted: ModuleKey,
    stall: Duration,
) -> Result<Bytes, FetchError> {
    let longest = longest(wanted.len, stall);
    let begun = Instant::now();
    let question = ControlMessage::ModuleWanted {
        digest: wanted.digest,
    };
    let question = question.encode().map_err(FetchError::Encode)?;
    let too_slow = |_| FetchError::TooSlow(longest);
    let (mut send, mut recv) = timeout(longest, connection.open_bi())
        .await
        .map_err(too_slow)?
        .map_err(FetchError::Open)?;
    // A write ends when the stream has credit, which an agent can withhold.
    let read = timeout(longest.saturating_sub(begun.elapsed()), async {
        send.write_chunk(question).await.map_err(FetchError::Ask)?;
        // Fails only on a stream that the agent stopped; the answer says more.
        let _ = send.finish();
        receive(&mut recv, wanted, stall).await
    });
    let read = read.await.map_err(too_slow).flatten();
    if let Err(error) = &read {
        // Fails only where the agent has ended the stream.
        let _ = recv.stop(VarInt::from_u32(error.code()));
    }
    read
}

fn longest(len: u64, stall: Duration) -> Duration {
    stall + Duration::from_secs(len.div_ceil(BYTES_PER_S_MIN))
}

async fn receive(
    recv: &mut RecvStream,
    wanted: ModuleKey,
    stall: Duration,
) -> Result<Bytes, FetchError> {
    let ModuleKey { digest, len } = wanted;
    let answer = timeout(stall, frame::control(recv, stall))
        .await
        .unwrap_or(Err(FrameError::Stalled(stall)))
        .map_err(FetchError::Read)?;
    let offered = ControlMessage::ModuleOffered { digest, len };
    match answer {
        answer if answer == offered && len > 0 => {
            let len = usize::try_from(len).map_err(|_| FetchError::Mismatch)?;
            frame::rest(recv, len, stall)
                .await
                .map_err(FetchError::Read)
        }
        ControlMessage::ModuleOffered { len: 0, .. } => Err(FetchError::NotThere),
        _ => Err(FetchError::Mismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_has_time_by_its_length() {
        let check = |len, seconds| {
            let longest = longest(len, Duration::from_secs(5));
            assert_eq!(longest, Duration::from_secs(seconds), "{len}");
        };
        check(1, 6);
        check(256 << 10, 6);
        check(10 << 20, 45);
        check(1 << 30, 4101);
        check(u64::MAX, 5 + (1 << 46));
    }
}
