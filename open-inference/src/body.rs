//! Reads a request's body within the limits of one body and of all bodies together.
//!
//! Memory is charged as it arrives, not as it is announced: a `Content-Length` alone reserves
//! nothing from others. A body that comes in one piece is passed on as it is; one in many pieces is
//! joined once.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use tidegate_inference::{Failure, FailureKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Limits;
use crate::error::ErrorReply;

/// Most memory that is reserved on the word of a `Content-Length`. Larger bodies grow from here.
const RESERVE_BYTES_MAX: usize = 1 << 20;

/// How much of a refused body is read and dropped, so that a caller that writes all of it before
/// it reads still sees the refusal.
const DISCARD_BYTES_MAX: usize = 16 << 20;

/// What all requests under way may hold together.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: Arc<Semaphore>,
    bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(u32::MAX as usize);
        let left = Arc::new(Semaphore::new(bytes_max));
        Self { left, bytes_max }
    }

    /// An empty charge against this budget.
    pub(crate) fn charge(&self) -> Charge {
        Charge {
            budget: self.clone(),
            held: None,
        }
    }
}

/// The part of the budget that one request holds, given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Budget,
    held: Option<OwnedSemaphorePermit>,
}

impl Charge {
    /// Takes `bytes` more, or fails: as too large if the whole budget would not do, else as
    /// overloaded.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let Budget { left, bytes_max } = &self.budget;
        let held = self.held.as_ref().map_or(0, |held| held.num_permits());
        let too_large = || {
            let message = format!("the request needs more than {bytes_max} bytes of memory");
            Failure::new(FailureKind::TooLarge, message)
        };
        if held.saturating_add(bytes) > *bytes_max {
            return Err(too_large());
        }
        let bytes = u32::try_from(bytes).map_err(|_| too_large())?;
        let more = Arc::clone(left)
            .try_acquire_many_owned(bytes)
            .map_err(|_| {
                let message = "the bodies of requests under way take all the memory set aside";
                Failure::new(FailureKind::Overloaded, message)
            })?;
        match &mut self.held {
            Some(held) => held.merge(more),
            None => self.held = Some(more),
        }
        Ok(())
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        if let Some(held) = &mut self.held
            && let Some(spare) = held.num_permits().checked_sub(bytes)
        {
            drop(held.split(spare));
        }
    }
}

/// The whole body, at most `limits.body_bytes_max` bytes, charged to `charge`.
pub(crate) async fn read(
    mut body: Body,
    limits: &Limits,
    charge: &mut Charge,
) -> Result<Bytes, ErrorReply> {
    let wait = limits.body_wait_max;
    let reading = async {
        let result = collect(&mut body, limits.body_bytes_max, charge).await;
        if result.is_err() {
            discard(&mut body).await;
        }
        result
    };
    tokio::time::timeout(wait, reading)
        .await
        .unwrap_or_else(|_| Err(ErrorReply::body_too_slow(wait)))
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
