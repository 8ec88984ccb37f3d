//! The message codec between agents and relays: sans-IO, bounded, deterministic.
//!
//! Every message is a fixed prefix, a CBOR header and, for requests and replies, the raw bytes of
//! the tensors that the header describes. The header is deterministic CBOR (RFC 8949, section
//! 4.2.1) with integer keys; `tidegate.cddl` gives its shape. A reader takes [`PREFIX_BYTES`],
//! decodes them, reads as many header bytes as they say, decodes those, and only then, with every
//! length checked against the limits of this crate and against the shapes, reads the payload.
//!
//! A decoder accepts only what an encoder may write: definite lengths, shortest integers, keys
//! in order and once each, nothing behind the end. What it does not know it refuses, but for
//! negative keys, which are optional extensions: they come last in a map and are skipped.

mod cbor;
pub mod code;
mod control;
mod error;
mod limits;
mod prefix;
mod reply;
mod request;
mod tensor;

pub use control::{ControlMessage, ModuleOffer};
pub use error::{DecodeError, EncodeError};
pub use limits::{
    CONTROL_BYTES_MAX, DURATION_MAX, HEADER_BYTES_MAX, MESSAGE_BYTES_MAX, MODULE_BYTES_MAX,
    MODULES_MAX, PAYLOAD_BYTES_MAX, PREFIX_BYTES, REASON_BYTES_MAX, SLOTS_MAX, TENSORS_MAX,
};
pub use prefix::{Kind, Prefix};
pub use reply::{Answer, LoadReport, ReplyHeader, ReplyMessage};
pub use request::{RequestHeader, RequestMessage};

use bytes::Bytes;

/// ALPN protocol name of this version of the protocol.
pub const ALPN: &[u8] = b"tidegate/1";

/// A request or reply, ready to be written: `head`, then each chunk of `payload` in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Prefix and CBOR header.
    pub head: Bytes,
    /// Tensor bytes, shared with the message and not copied. Holds no empty chunk.
    pub payload: Vec<Bytes>,
}
