//! Writes a prefix and the header behind it.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use minicbor::Encoder;
use tidegate_inference::{Digest, NAME_BYTES_MAX};

use crate::{DURATION_MAX, EncodeError, Kind, PREFIX_BYTES, Prefix, SLOTS_MAX};

/// Room for the header of a request with a few tensors, so that it is allocated once.
const HEAD_BYTES_USUAL: usize = 256;

/// A header in the making. Keys must be written in ascending order.
pub(crate) struct Writer {
    cbor: Encoder<Vec<u8>>,
    kind: Kind,
}

impl Writer {
    pub(crate) fn new(kind: Kind) -> Self {
        let mut head = Vec::with_capacity(HEAD_BYTES_USUAL);
        head.extend_from_slice(&[0; PREFIX_BYTES]);
        Self {
            cbor: Encoder::new(head),
            kind,
        }
    }

    /// The prefix and the header, if it is within the limit of its kind.
    pub(crate) fn finish(self) -> Result<Bytes, EncodeError> {
        let mut head = self.cbor.into_writer();
        let len = head.len() - PREFIX_BYTES;
        let max = self.kind.header_bytes_max();
        match u32::try_from(len) {
            Ok(short) if len <= max => {
                head[..PREFIX_BYTES].copy_from_slice(&Prefix::encode(self.kind, short));
                Ok(head.into())
            }
            _ => Err(EncodeError::Header { len, max }),
        }
    }

    pub(crate) fn uint(&mut self, value: u64) {
        written(self.cbor.u64(value));
    }

    pub(crate) fn text(&mut self, value: &str) {
        written(self.cbor.str(value));
    }

    /// Text that is at most [`NAME_BYTES_MAX`] bytes long.
    pub(crate) fn name(&mut self, what: &'static str, name: &str) -> Result<(), EncodeError> {
        if name.len() > NAME_BYTES_MAX {
            let name = name.to_owned();
            return Err(EncodeError::Name { what, name });
        }
        self.text(name);
        Ok(())
    }

    pub(crate) fn digest(&mut self, digest: &Digest) {
        written(self.cbor.bytes(&digest.0));
    }

    pub(crate) fn flag(&mut self, value: bool) {
        written(self.cbor.bool(value));
    }

    pub(crate) fn map(&mut self, len: u64) {
        written(self.cbor.map(len));
    }

    pub(crate) fn key(&mut self, key: u64) {
        self.uint(key);
    }

    /// Starts a list of `count` entries, at most `max`.
    pub(crate) fn list(
        &mut self,
        what: &'static str,
        count: usize,
        max: usize,
    ) -> Result<(), EncodeError> {
        match u64::try_from(count) {
            Ok(len) if count <= max => {
                written(self.cbor.array(len));
                Ok(())
            }
            _ => Err(EncodeError::Count { what, count, max }),
        }
    }

    /// Starts an array whose length the protocol fixes.
    pub(crate) fn array(&mut self, len: u64) {
        written(self.cbor.array(len));
    }
}

fn written<T>(result: Result<T, minicbor::encode::Error<Infallible>>) {
    result.map(drop).expect("a Vec takes every byte");
}

/// Whole microseconds, rounded down, at most [`DURATION_MAX`].
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.min(DURATION_MAX).as_micros()).expect("a day is few microseconds")
}

/// Thousandths, rounded, of a number between 0 and [`SLOTS_MAX`]; what lies outside is moved to the
/// nearer bound, and NaN to 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped before"
)]
pub(crate) fn milli(value: f64) -> u64 {
    (value.clamp(0.0, f64::from(SLOTS_MAX)) * 1000.0).round() as u64
}

/// The longest start of `text` that is at most `max` bytes and ends at a character's end.
pub(crate) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
