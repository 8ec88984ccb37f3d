//! One request on one stream: write it in a single call, finish, read the reply.
//!
//! An exchange that is dropped before its reply is complete resets its stream both ways, which is how
//! the relay learns that the job is no longer wanted. A relay may answer before it has read the whole
//! request (it is full, or the request is refused); it then stops the request's stream, and the
//! answer is read all the same.

use bytes::{Bytes, BytesMut};
use quinn::{ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use tidegate_wire::{Kind, PREFIX_BYTES, Prefix, ReplyHeader, ReplyMessage, RequestMessage, code};

use super::link::Link;
use super::{BurstError, LostError};

/// Says that a request is no longer wanted.
const CANCELLED: VarInt = VarInt::from_u32(code::CANCELLED);

/// Sends `message`, returns the reply and the bytes both ways.
pub(super) async fn exchange(
    link: &Link,
    message: &RequestMessage,
) -> Result<(ReplyMessage, usize), BurstError> {
    let encoded = message
        .encode()
        .map_err(|source| BurstError::Encode { source })?;
    let lost = |source| BurstError::Lost {
        name: link.name.clone(),
        source,
    };
    let malformed = |source| BurstError::Decode {
        name: link.name.clone(),
        source,
    };

    let (send, recv) = link
        .connection
        .open_bi()
        .await
        .map_err(|error| lost(LostError::Open(error)))?;
    let mut stream = Stream {
        send,
        recv,
        stage: StreamStage::Open,
    };

    let mut chunks = Vec::with_capacity(1 + encoded.payload.len());
    chunks.push(encoded.head);
    chunks.extend(encoded.payload);
    let sent: usize = chunks.iter().map(Bytes::len).sum();
    match stream.send.write_all_chunks(&mut chunks).await {
        Ok(()) | Err(WriteError::Stopped(_)) => {}
        Err(error) => return Err(lost(LostError::Send(error))),
    }
    // Fails only on a stream that the relay stopped.
    let _ = stream.send.finish();

    let mut prefix = [0; PREFIX_BYTES];
    read_exact(&mut stream.recv, &mut prefix)
        .await
        .map_err(lost)?;
    let header_len = Prefix::decode(&prefix)
        .and_then(|prefix| prefix.expect(Kind::Reply))
        .map_err(malformed)?;
    let mut header = vec![0; header_len];
    read_exact(&mut stream.recv, &mut header)
        .await
        .map_err(lost)?;
    let header = ReplyHeader::decode(&header).map_err(malformed)?;
    let payload_len = header.payload_len();
    let payload = read_payload(&mut stream.recv, payload_len)
        .await
        .map_err(lost)?;
    let reply = header.with_payload(payload).map_err(malformed)?;
    stream.stage = StreamStage::Answered;
    Ok((reply, sent + PREFIX_BYTES + header_len + payload_len))
}

/// A stream that is reset when it is dropped before its answer is there.
struct Stream {
    send: SendStream,
    recv: RecvStream,
    stage: StreamStage,
}

enum StreamStage {
    Open,
    Answered,
}

impl Drop for Stream {
    fn drop(&mut self) {
        match self.stage {
            StreamStage::Open => {
                // Both fail only where there is nothing left to cancel.
                let _ = self.send.reset(CANCELLED);
                let _ = self.recv.stop(CANCELLED);
            }
            StreamStage::Answered => {}
        }
    }
}

/// Fills `buffer` from the stream.
pub(super) async fn read_exact(recv: &mut RecvStream, buffer: &mut [u8]) -> Result<(), LostError> {
    recv.read_exact(buffer).await.map_err(|error| match error {
        ReadExactError::FinishedEarly(_) => LostError::Truncated,
        ReadExactError::ReadError(error) => LostError::Receive(error),
    })
}

/// Reads `len` bytes, without a copy where they arrive in one piece.
async fn read_payload(recv: &mut RecvStream, len: usize) -> Result<Bytes, LostError> {
    let mut whole = BytesMut::new();
    while whole.len() < len {
        let chunk = recv.read_chunk(len - whole.len(), true).await;
        let chunk = chunk
            .map_err(LostError::Receive)?
            .ok_or(LostError::Truncated)?;
        if chunk.bytes.len() == len {
            return Ok(chunk.bytes);
        }
        whole.reserve(len - whole.len());
        whole.extend_from_slice(&chunk.bytes);
    }
    Ok(whole.freeze())
}
