//! Why bytes are not a message, and why a message cannot be written.
//!
//! A decoding error names the field and the byte of the header where reading stopped. It holds no
//! byte of the payload, and of the header at most a name, so it may be logged.

use tidegate_inference::TensorError;

use crate::Kind;

/// Why bytes are not a message. The peer is at fault, and the same bytes will fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first bytes are those of another protocol.
    #[error("expected the magic bytes \"TDGT\", got {got:02x?}")]
    Magic {
        /// The bytes found.
        got: [u8; 4],
    },
    /// A version of the framing that this build does not speak.
    #[error("version {got} of the framing is not known, only 1")]
    Version {
        /// The version found.
        got: u8,
    },
    /// A kind of message that version 1 does not have.
    #[error("kind {got} of message is not known")]
    UnknownKind {
        /// The kind found.
        got: u8,
    },
    /// A message that does not belong on this stream.
    #[error("expected a {wanted} here, got a {got}")]
    WrongKind {
        /// What this stream carries.
        wanted: Kind,
        /// What the prefix says.
        got: Kind,
    },
    /// A header above [`crate::HEADER_BYTES_MAX`] or [`crate::CONTROL_BYTES_MAX`].
    #[error("the header of a {kind} is {len} bytes, above the limit of {max}")]
    HeaderLen {
        /// Kind of the message.
        kind: Kind,
        /// Length that the prefix gives.
        len: u32,
        /// The limit of this kind.
        max: usize,
    },
    /// The header ends within a value.
    #[error("the header ends at byte {at}, within {what}")]
    Truncated {
        /// The field.
        what: &'static str,
        /// Offset in the header.
        at: usize,
    },
    /// A value of another type, or of indefinite length, or text that is not UTF-8.
    #[error("header byte {at}: {what} is not {wanted}")]
    Type {
        /// The field.
        what: &'static str,
        /// Offset in the header.
        at: usize,
        /// The type that belongs there.
        wanted: &'static str,
    },
    /// A number or length in more bytes than it needs.
    #[error("header byte {at}: {what} is not in the shortest form")]
    NotShortest {
        /// The field.
        what: &'static str,
        /// Offset in the header.
        at: usize,
    },
    /// A key where another belongs: it is unknown, out of order or given twice.
    #[error("header byte {at}: {map} has key {got} where {wanted} belongs")]
    Key {
        /// The map.
        map: &'static str,
        /// Offset in the header.
        at: usize,
        /// The key found.
        got: i128,
        /// The key that belongs there.
        wanted: u64,
    },
    /// A key behind the last one that the map may have, or an extension's key out of order.
    #[error("header byte {at}: {map} has key {got}, which is unknown, out of order or repeated")]
    UnknownKey {
        /// The map.
        map: &'static str,
        /// Offset in the header.
        at: usize,
        /// The key found.
        got: i128,
    },
    /// A map ends before a key that it must have.
    #[error("header byte {at}: {map} has no key {key}")]
    MissingKey {
        /// The map.
        map: &'static str,
        /// Offset in the header.
        at: usize,
        /// The key wanted.
        key: u64,
    },
    /// Bytes behind the end of the header's one value.
    #[error("{len} bytes follow the header's end at byte {at}")]
    Trailing {
        /// Offset in the header.
        at: usize,
        /// Bytes too many.
        len: usize,
    },
    /// A number above its limit.
    #[error("header byte {at}: {what} is {got}, above the limit of {max}")]
    Range {
        /// The field.
        what: &'static str,
        /// Offset in the header.
        at: usize,
        /// The number found; for text, bytes and lists their length.
        got: u64,
        /// The limit.
        max: u64,
    },
    /// A digest that is not 32 bytes long.
    #[error("header byte {at}: {what} is {len} bytes long, not 32")]
    DigestLen {
        /// The field.
        what: &'static str,
        /// Offset in the header.
        at: usize,
        /// Bytes found.
        len: usize,
    },
    /// A number that names nothing in version 1, such as a dtype.
    #[error("header byte {at}: {what} {got} is not known")]
    Unknown {
        /// The field.
        what: &'static str,
        /// Offset in the header.
        at: usize,
        /// The number found.
        got: u64,
    },
    /// A tensor whose dtype, shape and bytes do not agree.
    #[error("tensor {name:?} is malformed")]
    Tensor {
        /// Its name.
        name: String,
        /// What does not agree.
        source: Box<TensorError>,
    },
    /// Tensors that are each within the limit but not together.
    #[error("the tensors are {len} bytes together, above the limit of {max}", max = crate::PAYLOAD_BYTES_MAX)]
    PayloadTooLarge {
        /// Bytes of all the tensors.
        len: usize,
    },
    /// A payload of another length than the header says.
    #[error("the header announces {wanted} payload bytes, got {got}")]
    PayloadLen {
        /// Bytes that the header announces.
        wanted: usize,
        /// Bytes given.
        got: usize,
    },
}

/// Why a message cannot be written within the limits. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A name above [`tidegate_inference::NAME_BYTES_MAX`].
    #[error("{what} {name:?} is {len} bytes long, above the limit of {max}", len = name.len(), max = tidegate_inference::NAME_BYTES_MAX)]
    Name {
        /// The field.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A list with too many entries.
    #[error("{count} {what} are above the limit of {max}")]
    Count {
        /// What is listed.
        what: &'static str,
        /// Entries given.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A module above [`crate::MODULE_BYTES_MAX`].
    #[error("a module of {len} bytes is above the limit of {max}", max = crate::MODULE_BYTES_MAX)]
    ModuleLen {
        /// Bytes of the module.
        len: u64,
    },
    /// Tensors above [`crate::PAYLOAD_BYTES_MAX`] together.
    #[error("the tensors are {len} bytes together, above the limit of {max}", max = crate::PAYLOAD_BYTES_MAX)]
    Payload {
        /// Bytes of all the tensors.
        len: usize,
    },
    /// Names and shapes that do not fit a header together.
    #[error("the header is {len} bytes, above the limit of {max}")]
    Header {
        /// Bytes of the header.
        len: usize,
        /// The limit of this kind of message.
        max: usize,
    },
}
