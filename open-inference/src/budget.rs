//! The memory that requests and replies may hold together.
//!
//! One [`Charge`] follows a request: its body and tensors, then the reply's. The bytes of a reply take
//! their part of it along ([`Charge::attach`]), so what a slow reader has not yet taken stays charged,
//! in the server's write buffer too, until it is written or its connection ends.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use tidegate_inference::{Failure, FailureKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Least and most bytes by which a buffer of [`Charged`] grows. Between them it doubles.
const GROW_BYTES_MIN: usize = 512;
const GROW_BYTES_MAX: usize = 4 << 20;

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
    fn held(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.num_permits())
    }

    /// Takes `bytes` more, or fails: as too large if the whole budget would not do, else as
    /// overloaded.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let Budget { left, bytes_max } = &self.budget;
        let too_large = || {
            let message =
                format!("the request and its reply need more than {bytes_max} bytes of memory");
            Failure::new(FailureKind::TooLarge, message)
        };
        if self.held().saturating_add(bytes) > *bytes_max {
            return Err(too_large());
        }
        let bytes = u32::try_from(bytes).map_err(|_| too_large())?;
        let more = Arc::clone(left)
            .try_acquire_many_owned(bytes)
            .map_err(|_| {
                let message = "the requests and replies under way take all the memory set aside";
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

    /// Holds `bytes` from now on, whatever it held; fails as [`Charge::grow`] does.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Failure> {
        self.shrink_to(bytes);
        self.grow(bytes - self.held())
    }

    /// The same bytes; the part of this charge that pays for them goes back when they are dropped.
    pub(crate) fn attach(&mut self, bytes: Bytes) -> Bytes {
        let held = self.held.as_mut().and_then(|held| held.split(bytes.len()));
        Bytes::from_owner(Paid { bytes, _held: held })
    }

    /// An empty buffer, every byte of which is charged to this before it is there.
    pub(crate) fn buffer(&mut self) -> Charged<'_> {
        Charged {
            bytes: Vec::new(),
            charge: self,
        }
    }
}

/// Bytes with the part of the budget that they take.
struct Paid {
    bytes: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Paid {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A buffer that is charged as it grows. What does not fit the budget fails to be written, with the
/// [`Failure`] inside the error.
#[derive(Debug)]
pub(crate) struct Charged<'a> {
    bytes: Vec<u8>,
    charge: &'a mut Charge,
}

impl Charged<'_> {
    /// What was written. Its length stays charged.
    pub(crate) fn finish(mut self) -> Bytes {
        let spare = self.bytes.capacity() - self.bytes.len();
        self.bytes.shrink_to_fit();
        self.charge.shrink_to(self.charge.held() - spare);
        self.bytes.into()
    }
}

impl Write for Charged<'_> {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        let capacity = self.bytes.capacity();
        let needed = (self.bytes.len() + more.len()).saturating_sub(capacity);
        if needed > 0 {
            let step = needed.max(capacity.clamp(GROW_BYTES_MIN, GROW_BYTES_MAX));
            self.charge.grow(step).map_err(io::Error::other)?;
            self.bytes.reserve_exact(capacity - self.bytes.len() + step);
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
