//! Reads messages off QUIC streams, never waiting longer than a peer may stall.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, ReadExactError, RecvStream};
use tidegate_wire::{ControlMessage, DecodeError, Kind, PREFIX_BYTES, Prefix, code};
use tokio::time::timeout;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the bytes are not a message")]
    Decode(#[from] DecodeError),
    #[error("the stream ended {missing} bytes early")]
    Short { missing: usize },
    #[error("more than the announced {announced} bytes came")]
    Long { announced: usize },
    #[error("nothing came for {0:?} in the middle of a message")]
    Stalled(Duration),
    #[error("the stream broke")]
    Broken(#[source] ReadError),
}

impl FrameError {
    /// What the peer is told.
    pub(super) fn code(&self) -> u32 {
        match self {
            Self::Decode(_) | Self::Short { .. } | Self::Long { .. } | Self::Broken(_) => {
                code::MALFORMED
            }
            Self::Stalled(_) => code::TIMED_OUT,
        }
    }
}

/// Reads a prefix of `kind` and the header behind it.
pub(super) async fn header(
    recv: &mut RecvStream,
    kind: Kind,
    stall: Duration,
) -> Result<Vec<u8>, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    exact(recv, &mut prefix, stall).await?;
    let mut header = vec![0; Prefix::decode(&prefix)?.expect(kind)?];
    exact(recv, &mut header, stall).await?;
    Ok(header)
}

/// Reads one control message, however long the peer is silent before it begins.
pub(super) async fn control(
    recv: &mut RecvStream,
    stall: Duration,
) -> Result<ControlMessage, FrameError> {
    let mut prefix = [0; PREFIX_BYTES];
    recv.read_exact(&mut prefix[..1])
        .await
        .map_err(|error| short(error, PREFIX_BYTES))?;
    exact(recv, &mut prefix[1..], stall).await?;
    let mut header = vec![0; Prefix::decode(&prefix)?.expect(Kind::Control)?];
    exact(recv, &mut header, stall).await?;
    Ok(ControlMessage::decode(&header)?)
}

/// Reads exactly `len` bytes to the end of the stream, without a copy where they come in one piece.
/// Memory is touched as bytes arrive, not as they are announced.
pub(super) async fn rest(
    recv: &mut RecvStream,
    len: usize,
    stall: Duration,
) -> Result<Bytes, FrameError> {
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    loop {
        let got = whole.len() + parts.len();
        // One byte more than announced is enough to know that there are too many.
        let chunk = timeout(stall, recv.read_chunk(len - got + 1, true))
            .await
            .map_err(|_| FrameError::Stalled(stall))?
            .map_err(FrameError::Broken)?;
        let Some(chunk) = chunk else {
            return match len - got {
                0 if parts.is_empty() => Ok(whole),
                0 => Ok(parts.freeze()),
                missing => Err(FrameError::Short { missing }),
            };
        };
        if got + chunk.bytes.len() > len {
            return Err(FrameError::Long { announced: len });
        }
        if got == 0 {
            whole = chunk.bytes;
        } else {
            if parts.is_empty() {
                parts.reserve(len);
                parts.extend_from_slice(&std::mem::take(&mut whole));
            }
            parts.extend_from_slice(&chunk.bytes);
        }
    }
}

async fn exact(
    recv: &mut RecvStream,
    buffer: &mut [u8],
    stall: Duration,
) -> Result<(), FrameError> {
    let len = buffer.len();
    match timeout(stall, recv.read_exact(buffer)).await {
        Ok(read) => read.map_err(|error| short(error, len)),
        Err(_) => Err(FrameError::Stalled(stall)),
    }
}

fn short(error: ReadExactError, len: usize) -> FrameError {
    match error {
        ReadExactError::FinishedEarly(read) => FrameError::Short {
            missing: len - read,
        },
        ReadExactError::ReadError(error) => FrameError::Broken(error),
    }
}
