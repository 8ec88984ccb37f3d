//! Reads a request's body within the limits of one body and of all bodies together.
//!
//! Memory is charged as it arrives, not as it is announced: a `Content-Length` alone reserves
//! nothing from others. A body that comes in one piece is passed on as it is; one in many pieces is
//! joined once.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tidegate_inference::{Failure, FailureKind};

use crate::Limits;
use crate::budget::Charge;
use crate::error::ErrorReply;

/// Most memory that is reserved on the word of a `Content-Length`. Larger bodies grow from here.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// How long a refused body is read on, so that a refusal is never late.
const DISCARD_WAIT_MAX: Duration = Duration::from_millis(500);

/// How much of a refused body is read and dropped, so that a caller that writes all of it before
/// it reads still sees the refusal.
const DISCARD_BYTES_MAX: usize = 16 << 20;

/// The whole body, at most `limits.body_bytes_max` bytes, charged to `charge`.
pub(crate) async fn read(
    mut body: Body,
    limits: &Limits,
    charge: &mut Charge,
) -> Result<Bytes, ErrorReply> {
    let wait = limits.body_wait_max;
    let reading = collect(&mut body, limits.body_bytes_max, charge);
    let result = tokio::time::timeout(wait, reading)
        .await
        .unwrap_or_else(|_| Err(ErrorReply::body_too_slow(wait)));
    if result.is_err() {
        // A client that is still sending reads no answer; it gets a moment to finish.
        let _ = tokio::time::timeout(DISCARD_WAIT_MAX, discard(&mut body)).await;
    }
    result
}

async fn collect(
    body: &mut Body,
    bytes_max: usize,
    charge: &mut Charge,
) -> Result<Bytes, ErrorReply> {
    let too_large = || {
        let message = format!("the request body is larger than {bytes_max} bytes");
        Failure::new(FailureKind::TooLarge, message)
    };
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        return Err(too_large().into());
    }
    let mut only = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| ErrorReply::invalid(format!("the request body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let len = only.len() + joined.len() + data.len();
        if len > bytes_max {
            return Err(too_large().into());
        }
        charge.grow(data.len())?;
        if len == data.len() {
            only = data;
            continue;
        }
        if !only.is_empty() {
            joined.reserve(len.max(announced.min(RESERVE_BYTES_MAX)));
            joined.extend_from_slice(&std::mem::take(&mut only));
        }
        joined.extend_from_slice(&data);
    }
    Ok(if joined.is_empty() {
        only
    } else {
        joined.freeze()
    })
}

async fn discard(body: &mut Body) {
    let mut dropped = 0;
    while let Some(Ok(frame)) = body.frame().await {
        dropped += frame.data_ref().map_or(0, Bytes::len);
        if dropped > DISCARD_BYTES_MAX {
            return;
        }
    }
}
