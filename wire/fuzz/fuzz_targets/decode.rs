//! Reads arbitrary bytes as a peer's stream. Run with `cargo +nightly fuzz run decode`.
//!
//! Nothing may panic or take more memory than the limits allow, and what is read must be writable
//! again, to bytes that read as the same message: of two encodings of one message at most one is
//! accepted, extensions aside.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate_wire::{
    ControlMessage, DecodeError, Kind, PREFIX_BYTES, Prefix, ReplyHeader, RequestHeader,
};

fuzz_target!(|stream: &[u8]| {
    // The header alone, so that the fuzzer need not find the prefix first.
    if let Some((kind, header)) = stream.split_first() {
        read(Kind::ALL[usize::from(*kind) % Kind::ALL.len()], header, &[]);
    }
    let Some((prefix, rest)) = stream.split_first_chunk::<PREFIX_BYTES>() else {
        return;
    };
    let Ok(prefix) = Prefix::decode(prefix) else {
        return;
    };
    if let Some((header, payload)) = rest.split_at_checked(prefix.header_len) {
        read(prefix.kind, header, payload);
    }
});

fn read(kind: Kind, header: &[u8], payload: &[u8]) {
    match kind {
        Kind::Request => {
            let decode = |header: &[u8], payload: &Bytes| {
                let header = RequestHeader::decode(header)?;
                let payload = first(payload, header.payload_len())?;
                header.with_payload(payload)
            };
            let payload = Bytes::copy_from_slice(payload);
            if let Ok(message) = decode(header, &payload) {
                let again = message.encode().expect("it was within the limits");
                let head = &again.head[PREFIX_BYTES..];
                assert!(head == header || head.len() < header.len());
                assert_eq!(decode(head, &payload), Ok(message));
            }
        }
        Kind::Reply => {
            let decode = |header: &[u8], payload: &Bytes| {
                let header = ReplyHeader::decode(header)?;
                let payload = first(payload, header.payload_len())?;
                header.with_payload(payload)
            };
            let payload = Bytes::copy_from_slice(payload);
            if let Ok(message) = decode(header, &payload) {
                let again = message.encode().expect("it was within the limits");
                let head = &again.head[PREFIX_BYTES..];
                assert!(head == header || head.len() < header.len());
                assert_eq!(decode(head, &payload), Ok(message));
            }
        }
        Kind::Control => {
            if let Ok(message) = ControlMessage::decode(header) {
                let again = message.encode().expect("it was within the limits");
                let head = &again[PREFIX_BYTES..];
                assert!(head == header || head.len() < header.len());
                assert_eq!(ControlMessage::decode(head), Ok(message));
            }
        }
    }
}

/// The payload's start; a stream that holds less is as one whose length lies.
fn first(payload: &Bytes, wanted: usize) -> Result<Bytes, DecodeError> {
    let got = payload.len();
    if got < wanted {
        return Err(DecodeError::PayloadLen { wanted, got });
    }
    Ok(payload.slice(..wanted))
}
