//! One request on one stream: read, run, reply.
//!
//! A request that can be refused by its header is refused before its payload is read. The agent takes
//! a request back by stopping the reply or by closing the connection; either drops the job. A peer
//! that stalls within its request, or does not read its reply, loses the stream.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use tidegate_inference::{Failure, FailureKind, NamedTensor};
use tidegate_runtime::Model;
use tidegate_wire::{Answer, Encoded, Kind, ReplyMessage, RequestHeader, RequestMessage, code};
use tokio::time::timeout;

use super::connection::Peer;
use super::frame::{self, FrameError};
use crate::service::Held;
use crate::store::chain;

/// Serves one stream to its end.
pub(super) async fn serve(peer: Arc<Peer>, mut send: SendStream, mut recv: RecvStream) {
    // Kept until the agent has the reply, so that a drain does not cut it off.
    let _in_flight = peer.begin();
    let metrics = &peer.service.metrics;
    let counted = metrics.request_began();
    let answered = tokio::select! {
        answered = answer(&peer, &mut recv) => answered,
        // Ends early only if the agent wants no reply any more, or is gone.
        _ = send.stopped() => Err(Unanswerable::Cancelled),
    };
    let (result, held) = match answered {
        Ok(Answered { answer, held }) => (Ok(answer), Some(held)),
        Err(Unanswerable::Refused(failure)) => {
            // What is still to come of the request is not wanted; on one that is read to its end
            // this says nothing.
            let _ = recv.stop(VarInt::from_u32(code::BUSY));
            (Err(failure), None)
        }
        Err(Unanswerable::Stalled) => {
            let _ = recv.stop(VarInt::from_u32(code::TIMED_OUT));
            let _ = send.reset(VarInt::from_u32(code::TIMED_OUT));
            let failure = Failure::new(FailureKind::DeadlineExceeded, "stalled");
            metrics.request_ended::<()>(&Err(failure));
            return;
        }
        Err(Unanswerable::Cancelled) => {
            let _ = recv.stop(VarInt::from_u32(code::CANCELLED));
            let _ = send.reset(VarInt::from_u32(code::CANCELLED));
            let failure = Failure::new(FailureKind::Cancelled, "cancelled");
            metrics.request_ended::<()>(&Err(failure));
            return;
        }
    };
    metrics.request_ended(&result);
    let written = reply(&peer, &mut send, result).await;
    drop((counted, held));
    match written {
        Ok(()) => {
            let _ = timeout(peer.terms.stall, send.stopped()).await;
        }
        Err(NotRead) => {
            let _ = send.reset(VarInt::from_u32(code::TIMED_OUT));
        }
    }
}

struct Answered {
    answer: Answer,
    /// What the request and its outputs hold, until they are written.
    held: [Held; 2],
}

/// Why there is no answer.
enum Unanswerable {
    /// The agent is told why.
    Refused(Failure),
    /// The request did not come; nobody waits for a reply.
    Stalled,
    /// The agent took the request back.
    Cancelled,
}

impl From<Failure> for Unanswerable {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<FrameError> for Unanswerable {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::Decode(_) | FrameError::Short { .. } | FrameError::Long { .. } => {
                Self::Refused(Failure::new(FailureKind::Invalid, chain(&error)))
            }
            FrameError::Stalled(_) => Self::Stalled,
            FrameError::Broken(_) => Self::Cancelled,
        }
    }
}

async fn answer(peer: &Arc<Peer>, recv: &mut RecvStream) -> Result<Answered, Unanswerable> {
    let (message, model, received, request) = receive(peer, recv).await?;
    let answer = peer.service.infer(model, message, received).await?;
    let outputs = peer.service.hold(&peer.held, bytes_of(&answer.outputs))?;
    Ok(Answered {
        answer,
        held: [request, outputs],
    })
}

async fn receive(
    peer: &Arc<Peer>,
    recv: &mut RecvStream,
) -> Result<(RequestMessage, Arc<Model>, Instant, Held), Unanswerable> {
    let stall = peer.terms.stall;
    let header = frame::header(recv, Kind::Request, stall).await?;
    let received = Instant::now();
    let header = RequestHeader::decode(&header).map_err(FrameError::Decode)?;
    let model = peer.module(header.module())?;
    let len = header.payload_len();
    let held = peer.service.hold(&peer.held, len)?;
    // Bytes that trickle in past the deadline are not worth waiting for.
    let patience = header.time_left().max(stall);
    let payload = timeout(patience, frame::rest(recv, len, stall))
        .await
        .map_err(|_| Unanswerable::Stalled)??;
    let message = header.with_payload(payload).map_err(FrameError::Decode)?;
    Ok((message, model, received, held))
}

fn bytes_of(tensors: &[NamedTensor]) -> usize {
    tensors.iter().map(|named| named.tensor.data().len()).sum()
}

/// The agent does not read its reply.
struct NotRead;

async fn reply(
    peer: &Peer,
    send: &mut SendStream,
    result: Result<Answer, Failure>,
) -> Result<(), NotRead> {
    let load = peer.service.load();
    let Encoded { head, payload } =
        ReplyMessage { result, load }
            .encode()
            .unwrap_or_else(|error| {
                let message = format!("the outputs do not fit a reply: {}", chain(&error));
                let load = peer.service.load();
                let result = Err(Failure::new(FailureKind::Module, message));
                let failure = ReplyMessage { result, load }.encode();
                failure.expect("the protocol has room for every failure")
            });
    let mut chunks = Vec::with_capacity(1 + payload.len());
    chunks.push(head);
    chunks.extend(payload);
    write(send, &mut chunks, peer.terms.stall).await?;
    // Fails only where the agent has stopped the reply.
    let _ = send.finish();
    Ok(())
}

/// Writes every chunk; each step of progress has its own patience.
async fn write(
    send: &mut SendStream,
    mut chunks: &mut [Bytes],
    stall: Duration,
) -> Result<(), NotRead> {
    while !chunks.is_empty() {
        match timeout(stall, send.write_chunks(chunks)).await {
            Ok(Ok(written)) => chunks = &mut chunks[written.chunks..],
            // Stopped or lost: there is nobody to write to, and nothing to reset.
            Ok(Err(_)) => return Ok(()),
            Err(_) => return Err(NotRead),
        }
    }
    Ok(())
}
