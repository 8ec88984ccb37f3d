//! Takes encoded messages apart and puts them together, as the two ends of a stream do.

use bytes::Bytes;
use tidegate_wire::{
    ControlMessage, DecodeError, Encoded, Kind, PREFIX_BYTES, Prefix, ReplyHeader, ReplyMessage,
    RequestHeader, RequestMessage,
};

/// All bytes of a message in the order in which they cross.
pub(crate) fn joined(encoded: &Encoded) -> Vec<u8> {
    let mut bytes = encoded.head.to_vec();
    for chunk in &encoded.payload {
        bytes.extend_from_slice(chunk);
    }
    bytes
}

/// The header of an encoded message, without prefix and payload.
pub(crate) fn header(head: &Bytes) -> Bytes {
    head.slice(PREFIX_BYTES..)
}

/// Why a stream gives no message.
#[derive(Debug, PartialEq)]
pub(crate) enum Unread {
    /// The stream ends before the message does.
    Short,
    /// The bytes are not a message.
    Malformed(DecodeError),
}

impl From<DecodeError> for Unread {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

/// Splits the prefix and the header off a stream of the given kind.
fn split(stream: &Bytes, kind: Kind) -> Result<(Bytes, Bytes), Unread> {
    let prefix = stream.first_chunk::<PREFIX_BYTES>().ok_or(Unread::Short)?;
    let end = PREFIX_BYTES + Prefix::decode(prefix)?.expect(kind)?;
    if stream.len() < end {
        return Err(Unread::Short);
    }
    Ok((stream.slice(PREFIX_BYTES..end), stream.slice(end..)))
}

fn payload(rest: &Bytes, len: usize) -> Result<Bytes, Unread> {
    if rest.len() < len {
        return Err(Unread::Short);
    }
    Ok(rest.slice(..len))
}

pub(crate) fn read_request(stream: &Bytes) -> Result<RequestMessage, Unread> {
    let (header, rest) = split(stream, Kind::Request)?;
    let header = RequestHeader::decode(&header)?;
    let payload = payload(&rest, header.payload_len())?;
    Ok(header.with_payload(payload)?)
}

pub(crate) fn read_reply(stream: &Bytes) -> Result<ReplyMessage, Unread> {
    let (header, rest) = split(stream, Kind::Reply)?;
    let header = ReplyHeader::decode(&header)?;
    let payload = payload(&rest, header.payload_len())?;
    Ok(header.with_payload(payload)?)
}

pub(crate) fn read_control(stream: &Bytes) -> Result<ControlMessage, Unread> {
    let (header, _) = split(stream, Kind::Control)?;
    Ok(ControlMessage::decode(&header)?)
}
