//! The content codings gzip and deflate, in both directions.
//!
//! `deflate` is the zlib format, as RFC 9110 section 8.4.1.2 has it and as Triton's clients send
//! it. The tensor extension's `Inference-Header-Content-Length` counts bytes of the uncompressed
//! body in both directions. Decompression is charged as it goes, so that a small body that expands
//! without end stops at the limits; so is what compression makes.

use std::io::{self, BufRead, Read, Write};

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use bytes::Bytes;
use flate2::Compression;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use tidegate_inference::{Failure, FailureKind};

use crate::budget::{Charge, Charged};
use crate::error::ErrorReply;

/// Bytes expanded between two looks at the limits.
const STEP_BYTES: usize = 64 << 10;

/// A content coding that the front understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Gzip, Self::Deflate]
            .into_iter()
            .find(|coding| name.eq_ignore_ascii_case(coding.name()))
    }

    /// How the request's body is coded; `None` if it is plain. One coding at most.
    pub(crate) fn of_request(headers: &HeaderMap) -> Result<Option<Self>, ErrorReply> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = codings.next() else {
            return Ok(None);
        };
        let name = String::from_utf8_lossy(value.as_bytes());
        match Self::named(name.trim()) {
            Some(coding) if codings.next().is_none() => Ok(Some(coding)),
            None if name.trim().eq_ignore_ascii_case("identity") => Ok(None),
            _ => Err(ErrorReply::unsupported_coding(&name)),
        }
    }

    /// The coding that the caller accepts by name with a weight above zero, gzip before deflate.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let accepted = |item: &str| {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let weight = parameters.trim().strip_prefix("q=").unwrap_or("1");
            let refused = weight.trim().parse() == Ok(0.0);
            Self::named(name.trim()).filter(|_| !refused)
        };
        let values = headers.get_all(ACCEPT_ENCODING).iter();
        let mut items = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(accepted);
        let first = items.next()?;
        Some(items.fold(first, |best, other| match other {
            Self::Gzip => other,
            Self::Deflate => best,
        }))
    }

    /// Expands `body` to at most `bytes_max` bytes.
    pub(crate) fn expand(
        self,
        body: &[u8],
        bytes_max: usize,
        charge: &mut Charge,
    ) -> Result<Bytes, Failure> {
        match self {
            Self::Gzip => self.drain(MultiGzDecoder::new(body), bytes_max, charge),
            Self::Deflate => {
                let mut decoder = ZlibDecoder::new(body);
                let expanded = self.drain(&mut decoder, bytes_max, charge)?;
                match decoder.into_inner().fill_buf() {
                    Ok([]) => Ok(expanded),
                    _ => Err(self.malformed("data follows the end of the stream")),
                }
            }
        }
    }

    fn drain(
        self,
        mut decoder: impl Read,
        bytes_max: usize,
        charge: &mut Charge,
    ) -> Result<Bytes, Failure> {
        let mut expanded = Vec::new();
        loop {
            charge.grow(STEP_BYTES)?;
            let before = expanded.len();
            let mut step = decoder.by_ref().take(STEP_BYTES as u64);
            step.read_to_end(&mut expanded)
                .map_err(|error| self.malformed(error))?;
            if expanded.len() > bytes_max {
                let message = format!("the expanded body is larger than {bytes_max} bytes");
                return Err(Failure::new(FailureKind::TooLarge, message));
            }
            if expanded.len() - before < STEP_BYTES {
                return Ok(expanded.into());
            }
        }
    }

    fn malformed(self, why: impl std::fmt::Display) -> Failure {
        let message = format!("the body is not valid {}: {why}", self.name());
        Failure::new(FailureKind::Invalid, message)
    }

    /// Compresses `parts`, one after the other, at the fastest level: the front serves fast links,
    /// and a slow encoder would cost more than it saves.
    ///
    /// The compressed bytes stay charged to `charge`; fails if they do not fit it.
    pub(crate) fn compress(self, parts: &[Bytes], charge: &mut Charge) -> Result<Bytes, Failure> {
        fn write_all(encoder: &mut impl Write, parts: &[Bytes]) -> io::Result<()> {
            parts.iter().try_for_each(|part| encoder.write_all(part))
        }
        let level = Compression::fast();
        let compressed = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(charge.buffer(), level);
                write_all(&mut encoder, parts).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(charge.buffer(), level);
                write_all(&mut encoder, parts).and_then(|()| encoder.finish())
            }
        };
        compressed.map(Charged::finish).map_err(|error| {
            error
                .downcast()
                .expect("writing to a charged buffer fails for want of budget only")
        })
    }
}
