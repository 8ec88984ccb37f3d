//! Bytes that no honest peer sends: each is refused with an error, and none costs memory.
//!
//! Random bytes, messages cut off at every byte, messages with bytes changed, lengths that lie,
//! encodings that are longer than they need be, keys that do not belong.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_inference::TensorError;
use tidegate_wire::{
    ControlMessage, DecodeError, PREFIX_BYTES, Prefix, ReplyHeader, RequestHeader,
};

use crate::frames::{Unread, header, joined, read_control, read_reply, read_request};
use crate::strategies;

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..600)) {
        let _ = RequestHeader::decode(&bytes);
        let _ = ReplyHeader::decode(&bytes);
        let _ = ControlMessage::decode(&bytes);
        if let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>() {
            let _ = Prefix::decode(prefix);
        }
    }

    #[test]
    fn a_message_cut_off_anywhere_is_no_message(
        request in strategies::request(),
        reply in strategies::reply(),
        control in strategies::control(),
    ) {
        let request = Bytes::from(joined(&request.encode().unwrap()));
        let reply = Bytes::from(joined(&reply.encode().unwrap()));
        let control = control.encode().unwrap();
        for end in 0..request.len() {
            prop_assert_eq!(read_request(&request.slice(..end)).unwrap_err(), Unread::Short);
        }
        for end in 0..reply.len() {
            prop_assert_eq!(read_reply(&reply.slice(..end)).unwrap_err(), Unread::Short);
        }
        for end in 0..control.len() {
            prop_assert_eq!(read_control(&control.slice(..end)).unwrap_err(), Unread::Short);
        }
    }

    #[test]
    fn a_header_cut_off_anywhere_says_where(
        request in strategies::request(),
        reply in strategies::reply(),
        control in strategies::control(),
    ) {
        fn check<T: std::fmt::Debug>(
            head: &Bytes,
            decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
        ) -> Result<(), TestCaseError> {
            let header = header(head);
            for end in 0..header.len() {
                let cut = decode(&header[..end]);
                let says_where = matches!(cut, Err(DecodeError::Truncated { at, .. }) if at == end);
                prop_assert!(says_where, "{end}: {cut:?}");
            }
            Ok(())
        }
        check(&request.encode().unwrap().head, RequestHeader::decode)?;
        check(&reply.encode().unwrap().head, ReplyHeader::decode)?;
        check(&control.encode().unwrap(), ControlMessage::decode)?;
    }

    #[test]
    fn what_is_read_of_a_changed_message_is_what_would_be_written(
        message in strategies::request(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = joined(&message.encode().unwrap());
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        // Only an extension is read and not written again.
        if let Ok(read) = read_request(&bytes.clone().into()) {
            let again = joined(&read.encode().unwrap());
            prop_assert!(bytes.starts_with(&again) || again.len() < bytes.len());
        }
    }

    #[test]
    fn a_payload_of_another_length_is_refused(
        message in strategies::request(),
        extra in vec(any::<u8>(), 1..9),
    ) {
        let encoded = message.encode().unwrap();
        let decode = || RequestHeader::decode(&header(&encoded.head)).unwrap();
        let wanted = decode().payload_len();
        let mut payload = joined(&encoded).split_off(encoded.head.len());
        payload.extend_from_slice(&extra);
        let got = payload.len();
        prop_assert_eq!(
            decode().with_payload(payload.into()),
            Err(DecodeError::PayloadLen { wanted, got })
        );
        if wanted > 0 {
            prop_assert!(decode().with_payload(Bytes::new()).is_err());
        }
    }
}

/// A request header with the given time left, outputs and inputs, and what follows in its map.
fn request_of(map: u8, time_left: &[u8], outputs: &[u8], inputs: &[u8], more: &[u8]) -> Vec<u8> {
    let digest = [9; 32];
    [
        &[map, 0, 0x58, 0x20],
        &digest[..],
        &[1],
        time_left,
        &[2, 1, 3],
        outputs,
        &[4],
        inputs,
        more,
    ]
    .concat()
}

#[track_caller]
fn refused(header: &[u8]) -> DecodeError {
    match RequestHeader::decode(header) {
        Ok(read) => panic!("{header:02x?} is read as {read:?}"),
        Err(error) => error,
    }
}

#[test]
fn the_plain_request_that_the_cases_bend_is_good() {
    let header = request_of(0xa5, b"\0", b"\x80", b"\x80", b"");
    assert_eq!(RequestHeader::decode(&header).unwrap().payload_len(), 0);
}

#[test]
fn numbers_and_lengths_must_be_in_their_shortest_form() {
    let check = |time_left: &[u8], outputs: &[u8]| {
        let header = request_of(0xa5, time_left, outputs, b"\x80", b"");
        let error = refused(&header);
        let refused = matches!(error, DecodeError::NotShortest { .. });
        assert!(refused, "{time_left:02x?} {outputs:02x?}: {error}");
    };
    for time_left in [
        &b"\x18\x17"[..],
        b"\x19\0\xff",
        b"\x1a\0\0\xff\xff",
        b"\x1b\0\0\0\0\xff\xff\xff\xff",
    ] {
        check(time_left, b"\x80");
    }
    for outputs in [
        &b"\x98\0"[..],
        b"\x9b\0\0\0\0\0\0\0\0",
        b"\x81\x78\x01o",
        b"\x81\x7a\0\0\0\x01o",
    ] {
        check(b"\0", outputs);
    }
    let long_map = [
        &b"\xb8\x05"[..],
        &request_of(0, b"\0", b"\x80", b"\x80", b"")[1..],
    ]
    .concat();
    assert!(matches!(
        refused(&long_map),
        DecodeError::NotShortest { at: 0, .. }
    ));
    let long_key = [
        &b"\xa5\x18\0"[..],
        &request_of(0, b"\0", b"\x80", b"\x80", b"")[2..],
    ]
    .concat();
    assert!(matches!(
        refused(&long_key),
        DecodeError::NotShortest { at: 1, .. }
    ));
}

#[test]
fn other_types_and_indefinite_lengths_are_refused() {
    let check = |header: &[u8]| {
        let error = refused(header);
        assert!(matches!(error, DecodeError::Type { .. }), "{error}");
    };
    let plain = |time_left, outputs| request_of(0xa5, time_left, outputs, b"\x80", b"");
    check(&request_of(0xbf, b"\0", b"\x80", b"\x80", b"\xff"));
    check(&request_of(0x85, b"\0", b"\x80", b"\x80", b""));
    for time_left in [
        &b"\x20"[..],
        b"\xf6",
        b"\xf4",
        b"\xfb\0\0\0\0\0\0\0\0",
        b"\xc1\0",
        b"\x1c",
    ] {
        check(&plain(time_left, b"\x80"));
    }
    for outputs in [
        &b"\x9f\xff"[..],
        b"\x81\x7f\x61o\xff",
        b"\x81\x41o",
        b"\x81\x61\xff",
        b"\x81\x62\xc3\x28",
        b"\xa0",
    ] {
        check(&plain(b"\0", outputs));
    }
}

#[test]
fn keys_are_known_in_order_and_once_each() {
    let plain = |map, more: &[u8]| request_of(map, b"\0", b"\x80", b"\x80", more);
    let map = "request";
    let end = plain(0xa5, b"").len();
    for key in [5, 4, 0] {
        let (at, got) = (end, i128::from(key));
        assert_eq!(
            refused(&plain(0xa6, &[key, 0])),
            DecodeError::UnknownKey { map, at, got }
        );
    }
    let mut swapped = plain(0xa5, b"");
    swapped[36] = 2;
    let (at, got, wanted) = (36, 2, 1);
    assert_eq!(
        refused(&swapped),
        DecodeError::Key {
            map,
            at,
            got,
            wanted
        }
    );
    let mut short = plain(0xa4, b"");
    short.truncate(end - 2);
    let (at, key) = (end - 2, 4);
    assert_eq!(refused(&short), DecodeError::MissingKey { map, at, key });
    assert!(matches!(
        refused(&plain(0xa6, b"\x60\0")),
        DecodeError::Type { .. }
    ));
    assert_eq!(
        refused(&plain(0xa5, b"\0")),
        DecodeError::Trailing { at: end, len: 1 }
    );
    // A map that claims to go on for ever.
    let endless = [&b"\xbb"[..], &[0xff; 8], &plain(0, b"")[1..]].concat();
    assert!(matches!(refused(&endless), DecodeError::Truncated { .. }));
}

#[test]
fn extensions_are_skipped_and_still_bounded() {
    let header = |map, more: &[u8]| request_of(map, b"\0", b"\x80", b"\x80", more);
    for good in [
        &b"\x20\x01"[..],
        b"\x20\x39\xff\xff",
        b"\x20\xf5",
        b"\x20\x63abc",
        b"\x20\x43abc",
        b"\x38\x63\x81\x81\x81\x81\0",
    ] {
        assert!(
            RequestHeader::decode(&header(0xa6, good)).is_ok(),
            "{good:02x?}"
        );
    }
    assert!(RequestHeader::decode(&header(0xa7, b"\x20\0\x21\0")).is_ok());
    for bad in [
        &b"\x20\x81\x81\x81\x81\x81\0"[..],
        b"\x20\xa0",
        b"\x20\xf6",
        b"\x20\xc1\0",
        b"\x20\xfa\0\0\0\0",
        b"\x20\x18\x01",
        b"\x20\x7f\xff",
        b"\x20\x9f\xff",
        b"\x20\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x20\x5b\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x38\0\0",
        b"\x20",
        b"",
    ] {
        refused(&header(0xa6, bad));
    }
    for unordered in [&b"\x20\0\x20\0"[..], b"\x21\0\x20\0", b"\x20\0\x05\0"] {
        assert!(matches!(
            refused(&header(0xa7, unordered)),
            DecodeError::UnknownKey { .. }
        ));
    }
}

/// A request whose inputs are one or more tensors `(dtype, shape, length)`, in CBOR each.
fn with_tensors(tensors: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
    let mut inputs = vec![0x80 + u8::try_from(tensors.len()).unwrap()];
    for (dtype, shape, len) in tensors {
        inputs.extend_from_slice(&[0xa4, 0, 0x61, b't', 1, *dtype, 2]);
        inputs.extend_from_slice(shape);
        inputs.push(3);
        inputs.extend_from_slice(len);
    }
    request_of(0xa5, b"\0", b"\x80", &inputs, b"")
}

#[test]
fn a_tensor_that_lies_is_refused_before_its_bytes_are_read() {
    let lies =
        |dtype, shape: &[u8], len: &[u8]| match refused(&with_tensors(&[(dtype, shape, len)])) {
            DecodeError::Tensor { name, source } => {
                assert_eq!(name, "t");
                *source
            }
            other => panic!("{other:?}"),
        };
    const UINT8: u8 = 1;
    const FP32: u8 = 11;
    const BYTES: u8 = 13;
    let huge = b"\x82\x1b\x80\0\0\0\0\0\0\0\x02";
    assert_eq!(lies(UINT8, huge, b"\0"), TensorError::Overflow);
    let huge_by_size = b"\x81\x1b\x40\0\0\0\0\0\0\0";
    assert_eq!(lies(FP32, huge_by_size, b"\0"), TensorError::Overflow);
    assert_eq!(lies(BYTES, huge_by_size, b"\0"), TensorError::Overflow);
    let huge_but_empty = b"\x83\0\x1b\x80\0\0\0\0\0\0\0\x02";
    assert_eq!(lies(UINT8, huge_but_empty, b"\0"), TensorError::Overflow);
    for (dtype, shape, len) in [
        (FP32, &b"\x81\x02"[..], b"\x07"),
        (FP32, b"\x81\x02", b"\x09"),
        (UINT8, b"\x80", b"\x00"),
        (UINT8, b"\x81\0", b"\x01"),
        (UINT8, b"\x81\x1b\0\0\x01\0\0\0\0\0", b"\x01"),
        (BYTES, b"\x81\x02", b"\x07"),
        (BYTES, b"\x81\0", b"\x04"),
    ] {
        let lie = lies(dtype, shape, len);
        assert!(matches!(lie, TensorError::Length { .. }), "{lie}");
    }
}

#[test]
fn tensors_within_the_limit_one_by_one_may_not_exceed_it_together() {
    let full: (u8, &[u8], &[u8]) = (1, b"\x81\x1a\x04\0\0\0", b"\x1a\x04\0\0\0");
    let len = 2 << 26;
    assert_eq!(
        refused(&with_tensors(&[full, full])),
        DecodeError::PayloadTooLarge { len }
    );
}

#[test]
fn elements_that_lie_are_refused_when_they_arrive() {
    let join = |tensor, payload: &'static [u8]| {
        let header = RequestHeader::decode(&with_tensors(&[tensor])).unwrap();
        match header.with_payload(Bytes::from_static(payload)) {
            Err(DecodeError::Tensor { source, .. }) => *source,
            other => panic!("{other:?}"),
        }
    };
    let lie = join((13, b"\x81\x01", b"\x05"), b"\xff\xff\xff\xffa");
    assert!(matches!(
        lie,
        TensorError::Elements {
            wanted: 1,
            got: 0,
            ..
        }
    ));
    let lie = join((13, b"\x81\x01", b"\x08"), &[0; 8]);
    assert!(matches!(
        lie,
        TensorError::Elements {
            wanted: 1,
            got: 2,
            ..
        }
    ));
    let lie = join((0, b"\x81\x02", b"\x02"), b"\0\x02");
    assert_eq!(lie, TensorError::Bool { index: 1, value: 2 });
}
