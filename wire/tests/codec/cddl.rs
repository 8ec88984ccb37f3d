//! `tidegate.cddl` and the codec describe the same headers.
//!
//! Whatever the codec writes or reads is valid by the CDDL, and each limit of the CDDL is the
//! codec's: a header at the limit passes both, one step above it passes neither. So a reader who
//! has only the CDDL writes what the codec reads.

use std::time::Duration;

use bytes::Bytes;
use cddl_cat::validate_cbor_bytes;
use proptest::prelude::*;
use tidegate_inference::{
    Digest, Dtype, Failure, FailureKind, NamedTensor, Priority, Shape, Tensor,
};
use tidegate_wire::{
    Answer, ControlMessage, DURATION_MAX, LoadReport, MODULE_BYTES_MAX, ModuleOffer,
    PAYLOAD_BYTES_MAX, ReplyHeader, ReplyMessage, RequestHeader, RequestMessage, SLOTS_MAX,
};

use crate::frames::header;
use crate::strategies;

const CDDL: &str = include_str!("../../tidegate.cddl");

fn is_valid(rule: &str, header: &[u8]) -> bool {
    validate_cbor_bytes(rule, CDDL, header).is_ok()
}

fn reads(rule: &str, header: &[u8]) -> bool {
    match rule {
        "request" => RequestHeader::decode(header).is_ok(),
        "reply" => ReplyHeader::decode(header).is_ok(),
        "control" => ControlMessage::decode(header).is_ok(),
        _ => panic!("no decoder for {rule}"),
    }
}

/// One byte of a header, by position and new value.
type Mutation = (prop::sample::Index, u8);

/// What is written is valid; and what is read of a header with one byte changed, is valid too.
fn check_mutated(rule: &str, head: &Bytes, (index, byte): Mutation) -> Result<(), TestCaseError> {
    let mut bytes = header(head).to_vec();
    prop_assert!(is_valid(rule, &bytes));
    let index = index.index(bytes.len());
    bytes[index] = byte;
    prop_assert!(
        !reads(rule, &bytes) || is_valid(rule, &bytes),
        "{bytes:02x?}"
    );
    Ok(())
}

proptest! {
    #[test]
    fn requests_are_valid(message in strategies::request(), mutation: Mutation) {
        check_mutated("request", &message.encode().unwrap().head, mutation)?;
    }

    #[test]
    fn replies_are_valid(message in strategies::reply(), mutation: Mutation) {
        check_mutated("reply", &message.encode().unwrap().head, mutation)?;
    }

    #[test]
    fn control_messages_are_valid(message in strategies::control(), mutation: Mutation) {
        check_mutated("control", &message.encode().unwrap(), mutation)?;
    }
}

/// `head` holds `at_limit` once and passes; with `above` in its place it does not.
#[track_caller]
fn check_limit(rule: &str, head: &Bytes, at_limit: &[u8], above: &[u8]) {
    let bytes = header(head);
    assert!(
        is_valid(rule, &bytes) && reads(rule, &bytes),
        "{bytes:02x?}"
    );
    let found: Vec<_> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(at_limit))
        .collect();
    let [at] = found[..] else {
        panic!("{at_limit:02x?} is in {bytes:02x?} at {found:?}");
    };
    let changed = [&bytes[..at], above, &bytes[at + at_limit.len()..]].concat();
    assert!(!is_valid(rule, &changed), "the CDDL takes {changed:02x?}");
    assert!(!reads(rule, &changed), "the codec takes {changed:02x?}");
}

/// A head of CBOR text or array of 100 or more, and as many times `fill`.
fn run(head: &[u8], fill: u8, count: usize) -> Vec<u8> {
    [head, &vec![fill; count]].concat()
}

const DAY: &[u8] = b"\x1b\0\0\0\x14\x1d\xd7\x60\0";
const ABOVE_DAY: &[u8] = b"\x1b\0\0\0\x14\x1d\xd7\x60\x01";

fn request(change: impl FnOnce(&mut RequestMessage)) -> Bytes {
    let mut message = RequestMessage {
        module: Digest([9; 32]),
        time_left: Duration::ZERO,
        priority: Priority::Normal,
        outputs: Vec::new(),
        inputs: Vec::new(),
    };
    change(&mut message);
    message.encode().unwrap().head
}

fn input(name: String, dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Vec<NamedTensor> {
    let tensor = Tensor::new(dtype, Shape::from_slice(shape), data.into()).unwrap();
    vec![NamedTensor { name, tensor }]
}

#[test]
fn limits_of_requests_agree() {
    let check =
        |head, at_limit: &[u8], above: &[u8]| check_limit("request", &head, at_limit, above);
    let plain = || request(|_| {});
    check(plain(), &run(b"\x58\x20", 9, 32), &run(b"\x58\x21", 9, 33));
    check(plain(), &run(b"\x58\x20", 9, 32), &run(b"\x58\x1f", 9, 31));
    check(request(|r| r.time_left = DURATION_MAX), DAY, ABOVE_DAY);
    check(
        request(|r| r.priority = Priority::High),
        b"\x02\x02\x03",
        b"\x02\x03\x03",
    );
    let long = request(|r| r.outputs = vec!["o".repeat(128)]);
    check(
        long,
        &run(b"\x78\x80", b'o', 128),
        &run(b"\x78\x81", b'o', 129),
    );
    let many = request(|r| r.outputs = vec![String::new(); 128]);
    check(
        many,
        &run(b"\x98\x80", 0x60, 128),
        &run(b"\x98\x81", 0x60, 129),
    );
    let tensors = vec![input(String::new(), Dtype::Uint8, &[0], Vec::new()).remove(0); 128];
    let one = b"\xa4\0\x60\x01\x01\x02\x81\0\x03\0";
    let (at_limit, above) = (one.repeat(128), one.repeat(129));
    check(
        request(|r| r.inputs = tensors),
        &[b"\x98\x80", &at_limit[..]].concat(),
        &[b"\x98\x81", &above[..]].concat(),
    );
    let named = request(|r| r.inputs = input("i".repeat(128), Dtype::Uint8, &[1], vec![0]));
    check(
        named,
        &run(b"\x78\x80", b'i', 128),
        &run(b"\x78\x81", b'i', 129),
    );
    let strings = request(|r| r.inputs = input("i".into(), Dtype::Bytes, &[1], vec![0; 4]));
    check(strings, b"\x01\x0d\x02", b"\x01\x0e\x02");
    let ranked = request(|r| r.inputs = input("i".into(), Dtype::Uint8, &[1; 8], vec![0]));
    check(ranked, b"\x88\x01", b"\x89\x01\x01");
    let full = vec![0; PAYLOAD_BYTES_MAX];
    let large = request(|r| r.inputs = input("i".into(), Dtype::Uint8, &[full.len()], full));
    check(large, b"\x03\x1a\x04\0\0\0", b"\x03\x1a\x04\0\0\x01");
}

fn reply(result: Result<Answer, Failure>, load: LoadReport) -> Bytes {
    ReplyMessage { result, load }.encode().unwrap().head
}

fn refused(message: String, retry_after: Option<Duration>) -> Bytes {
    let mut failure = Failure::new(FailureKind::Internal, message);
    failure.retry_after = retry_after;
    reply(Err(failure), LoadReport::default())
}

fn loaded(change: impl FnOnce(&mut LoadReport)) -> Bytes {
    let mut load = LoadReport::default();
    change(&mut load);
    reply(Err(Failure::new(FailureKind::Invalid, "")), load)
}

#[test]
fn limits_of_replies_agree() {
    let check = |head, at_limit: &[u8], above: &[u8]| check_limit("reply", &head, at_limit, above);
    check(
        refused("m".into(), None),
        b"\0\x08\x01\x61m",
        b"\0\x09\x01\x61m",
    );
    let long = refused("m".repeat(1024), None);
    check(
        long,
        &run(b"\x79\x04\0", b'm', 1024),
        &run(b"\x79\x04\x01", b'm', 1025),
    );
    check(refused("m".into(), Some(DURATION_MAX)), DAY, ABOVE_DAY);
    let (most, above) = (b"\x1a\xff\xff\xff\xff", b"\x1b\0\0\0\x01\0\0\0\0");
    check(loaded(|load| load.slots = u32::MAX), most, above);
    check(loaded(|load| load.busy = u32::MAX), most, above);
    check(loaded(|load| load.queued = u32::MAX), most, above);
    check(loaded(|load| load.wait = DURATION_MAX), DAY, ABOVE_DAY);
    let reserved = loaded(|load| load.reserved = f64::from(SLOTS_MAX));
    check(reserved, b"\x1a\x3b\x9a\xca\0", b"\x1a\x3b\x9a\xca\x01");
    check(
        loaded(|load| load.draining = true),
        b"\x05\xf5",
        b"\x05\x01",
    );
    let answer = |queue, service| {
        let outputs = Vec::new();
        let answer = Answer {
            outputs,
            queue,
            service,
        };
        reply(Ok(answer), LoadReport::default())
    };
    check(answer(DURATION_MAX, Duration::ZERO), DAY, ABOVE_DAY);
    check(answer(Duration::ZERO, DURATION_MAX), DAY, ABOVE_DAY);
    // Neither an answer nor a failure.
    check(
        answer(Duration::ZERO, Duration::ZERO),
        b"\x01\xa3",
        b"\x03\xa3",
    );
}

#[test]
fn limits_of_control_messages_agree() {
    let check = |message: ControlMessage, at_limit: &[u8], above: &[u8]| {
        check_limit("control", &message.encode().unwrap(), at_limit, above);
    };
    let digest = Digest([9; 32]);
    let wanted = ControlMessage::ModuleWanted { digest };
    check(
        wanted.clone(),
        &run(b"\x58\x20", 9, 32),
        &run(b"\x58\x21", 9, 33),
    );
    check(wanted, b"\x82\x06", b"\x82\x08");
    let ready = ControlMessage::ModuleReady { digest };
    check(ready, b"\x82\x02\xa1\0", b"\x82\x02\xa1\x01");
    let hello = |name: String, modules| ControlMessage::Hello { name, modules };
    let named = hello("a".repeat(128), Vec::new());
    check(
        named,
        &run(b"\x78\x80", b'a', 128),
        &run(b"\x78\x81", b'a', 129),
    );
    let module = |name: String, len| ModuleOffer { name, digest, len };
    let listed = hello(String::new(), vec![module("m".repeat(128), 0)]);
    check(
        listed,
        &run(b"\x78\x80", b'm', 128),
        &run(b"\x78\x81", b'm', 129),
    );
    let (most, above) = (b"\x1b\0\0\0\x01\0\0\0\0", b"\x1b\0\0\0\x01\0\0\0\x01");
    let large = hello(String::new(), vec![module(String::new(), MODULE_BYTES_MAX)]);
    check(large, most, above);
    let one = [&b"\xa3\0\x60\x01"[..], &run(b"\x58\x20", 9, 32), b"\x02\0"].concat();
    check(
        hello(String::new(), vec![module(String::new(), 0); 64]),
        &[b"\x98\x40", &one.repeat(64)[..]].concat(),
        &[b"\x98\x41", &one.repeat(65)[..]].concat(),
    );
    let offered = ControlMessage::ModuleOffered {
        digest,
        len: MODULE_BYTES_MAX,
    };
    check(offered, most, above);
    let reservation = ControlMessage::Reservation {
        slots: f64::from(SLOTS_MAX),
        horizon: DURATION_MAX,
        probability: 1.0,
    };
    check(
        reservation.clone(),
        b"\x1a\x3b\x9a\xca\0",
        b"\x1a\x3b\x9a\xca\x01",
    );
    check(reservation.clone(), DAY, ABOVE_DAY);
    check(reservation, b"\x19\x03\xe8", b"\x19\x03\xe9");
    let credits = ControlMessage::Credits {
        in_flight_max: u32::MAX,
    };
    check(credits, b"\x1a\xff\xff\xff\xff", b"\x1b\0\0\0\x01\0\0\0\0");
    let reason = "r".repeat(256);
    let go_away = ControlMessage::GoAway { reason };
    check(
        go_away,
        &run(b"\x79\x01\0", b'r', 256),
        &run(b"\x79\x01\x01", b'r', 257),
    );
    let load = ControlMessage::Load(LoadReport {
        slots: u32::MAX,
        ..LoadReport::default()
    });
    check(load, b"\x1a\xff\xff\xff\xff", b"\x1b\0\0\0\x01\0\0\0\0");
}
