//! What does not fit is refused or cut when it is written, never sent.

use std::time::Duration;

use bytes::Bytes;
use tidegate_inference::{
    Digest, Dtype, Failure, FailureKind, NAME_BYTES_MAX, NamedTensor, Priority, Shape, Tensor,
};
use tidegate_wire::{
    Answer, CONTROL_BYTES_MAX, ControlMessage, DURATION_MAX, EncodeError, HEADER_BYTES_MAX,
    LoadReport, MESSAGE_BYTES_MAX, MODULE_BYTES_MAX, MODULES_MAX, ModuleOffer, PAYLOAD_BYTES_MAX,
    REASON_BYTES_MAX, ReplyMessage, RequestMessage, SLOTS_MAX, TENSORS_MAX,
};

use crate::frames::{header, joined, read_control, read_reply, read_request};

fn bytes_tensor(name: &str, data: Bytes) -> NamedTensor {
    let shape = Shape::from_slice(&[data.len()]);
    NamedTensor {
        name: name.to_owned(),
        tensor: Tensor::new(Dtype::Uint8, shape, data).unwrap(),
    }
}

fn request(inputs: Vec<NamedTensor>, outputs: Vec<String>) -> RequestMessage {
    RequestMessage {
        module: Digest([1; 32]),
        time_left: Duration::from_secs(1),
        priority: Priority::Normal,
        outputs,
        inputs,
    }
}

fn read_back(message: &RequestMessage) -> RequestMessage {
    read_request(&joined(&message.encode().unwrap()).into()).unwrap()
}

#[test]
fn a_payload_at_the_limit_crosses_and_one_byte_more_does_not() {
    let half = Bytes::from(vec![7; PAYLOAD_BYTES_MAX / 2]);
    let full = request(
        vec![bytes_tensor("a", half.clone()), bytes_tensor("b", half)],
        Vec::new(),
    );
    assert_eq!(read_back(&full), full);
    let mut above = full;
    above
        .inputs
        .push(bytes_tensor("c", Bytes::from_static(b"x")));
    let len = PAYLOAD_BYTES_MAX + 1;
    assert_eq!(above.encode(), Err(EncodeError::Payload { len }));
}

#[test]
fn lists_and_names_above_their_limits_are_refused() {
    let empty = || bytes_tensor("", Bytes::new());
    assert!(
        request(vec![empty(); TENSORS_MAX], Vec::new())
            .encode()
            .is_ok()
    );
    let (count, max) = (TENSORS_MAX + 1, TENSORS_MAX);
    assert_eq!(
        request(vec![empty(); count], Vec::new()).encode(),
        Err(EncodeError::Count {
            what: "inputs",
            count,
            max
        })
    );
    assert_eq!(
        request(Vec::new(), vec![String::new(); count]).encode(),
        Err(EncodeError::Count {
            what: "outputs",
            count,
            max
        })
    );
    let name = "n".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(
        request(vec![bytes_tensor(&name, Bytes::new())], Vec::new()).encode(),
        Err(EncodeError::Name {
            what: "tensor name",
            name: name.clone()
        })
    );
    assert_eq!(
        request(Vec::new(), vec![name.clone()]).encode(),
        Err(EncodeError::Name {
            what: "output name",
            name
        })
    );
}

#[test]
fn names_that_fit_one_by_one_may_not_fit_together() {
    let names = vec!["n".repeat(NAME_BYTES_MAX); 32];
    let refused = request(Vec::new(), names).encode();
    let Err(EncodeError::Header { len, max }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(max, HEADER_BYTES_MAX);
    assert!(len > max);
}

#[test]
fn a_full_hello_fits_and_a_fuller_one_is_refused() {
    let module = ModuleOffer {
        name: "m".repeat(NAME_BYTES_MAX),
        digest: Digest([2; 32]),
        len: MODULE_BYTES_MAX,
    };
    let hello = |count| ControlMessage::Hello {
        name: "a".repeat(NAME_BYTES_MAX),
        modules: vec![module.clone(); count],
    };
    let full = hello(MODULES_MAX).encode().unwrap();
    assert!(header(&full).len() <= CONTROL_BYTES_MAX);
    assert_eq!(read_control(&full).unwrap(), hello(MODULES_MAX));
    assert!(matches!(
        hello(MODULES_MAX + 1).encode(),
        Err(EncodeError::Count {
            what: "modules",
            ..
        })
    ));
    let digest = Digest([2; 32]);
    let len = MODULE_BYTES_MAX + 1;
    assert_eq!(
        ControlMessage::ModuleOffered { digest, len }.encode(),
        Err(EncodeError::ModuleLen { len })
    );
}

/// Sends a failure with a load that is out of bounds in every field.
fn extreme_failure(message: String) -> ReplyMessage {
    let mut failure = Failure::new(FailureKind::Internal, message);
    failure.retry_after = Some(Duration::MAX);
    ReplyMessage {
        result: Err(failure),
        load: LoadReport {
            slots: u32::MAX,
            busy: u32::MAX,
            queued: u32::MAX,
            wait: Duration::MAX,
            reserved: f64::INFINITY,
            draining: true,
        },
    }
}

#[test]
fn a_failure_always_fits() {
    // One byte of ASCII before characters of four bytes: the cut must not split one.
    let message = "x".to_owned() + &"\u{1f30a}".repeat(MESSAGE_BYTES_MAX);
    let encoded = extreme_failure(message).encode().unwrap();
    let read = read_reply(&joined(&encoded).into()).unwrap();
    let failure = read.result.unwrap_err();
    assert_eq!(failure.message.len(), 1 + (MESSAGE_BYTES_MAX - 1) / 4 * 4);
    assert_eq!(failure.retry_after, Some(DURATION_MAX));
    assert_eq!(read.load.wait, DURATION_MAX);
    assert_eq!(read.load.reserved, f64::from(SLOTS_MAX));
}

#[test]
fn numbers_that_are_none_or_out_of_bounds_are_moved_to_a_bound() {
    let check = |slots: f64, probability: f64, wanted: (f64, f64)| {
        let message = ControlMessage::Reservation {
            slots,
            horizon: Duration::from_nanos(1999),
            probability,
        };
        let (slots, probability) = wanted;
        let horizon = Duration::from_micros(1);
        assert_eq!(
            read_control(&message.encode().unwrap()).unwrap(),
            ControlMessage::Reservation {
                slots,
                horizon,
                probability
            }
        );
    };
    check(f64::NAN, f64::NAN, (0.0, 0.0));
    check(-1.0, -0.5, (0.0, 0.0));
    check(f64::INFINITY, 7.0, (f64::from(SLOTS_MAX), 1.0));
    check(2.00049, 0.9995, (2.0, 1.0));
    check(2.0006, 0.9, (2.001, 0.9));
}

#[test]
fn a_reason_is_cut() {
    let reason = "r".repeat(REASON_BYTES_MAX + 1);
    let cut = "r".repeat(REASON_BYTES_MAX);
    let encoded = ControlMessage::GoAway { reason }.encode().unwrap();
    assert_eq!(
        read_control(&encoded).unwrap(),
        ControlMessage::GoAway { reason: cut }
    );
}

#[test]
fn outputs_above_the_limit_are_refused_so_that_a_failure_can_be_sent_instead() {
    let outputs = vec![bytes_tensor("o", vec![0; PAYLOAD_BYTES_MAX + 1].into())];
    let reply = ReplyMessage {
        result: Ok(Answer {
            outputs,
            queue: Duration::ZERO,
            service: Duration::ZERO,
        }),
        load: LoadReport::default(),
    };
    let len = PAYLOAD_BYTES_MAX + 1;
    assert_eq!(reply.encode(), Err(EncodeError::Payload { len }));
}
