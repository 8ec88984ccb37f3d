//! Draws messages of every kind, within the limits and on them.

use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use tidegate_inference::{
    Digest, Dtype, Failure, FailureKind, NAME_BYTES_MAX, NamedTensor, Priority, RANK_MAX, Shape,
    Tensor,
};
use tidegate_wire::{
    Answer, ControlMessage, DURATION_MAX, LoadReport, MESSAGE_BYTES_MAX, MODULE_BYTES_MAX,
    MODULES_MAX, ModuleOffer, REASON_BYTES_MAX, ReplyMessage, RequestMessage, SLOTS_MAX,
};

/// Text of at most `max` bytes, in scripts of one to four bytes a character.
fn text(max: usize) -> impl Strategy<Value = String> {
    let text = vec(any::<char>(), 0..=max / 4).prop_map(String::from_iter);
    prop_oneof![8 => text, 1 => Just("n".repeat(max))]
}

fn name() -> impl Strategy<Value = String> {
    text(NAME_BYTES_MAX)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn duration() -> impl Strategy<Value = Duration> {
    let max = u64::try_from(DURATION_MAX.as_micros()).unwrap();
    prop_oneof![0..=300_u64, 0..=max, Just(max)].prop_map(Duration::from_micros)
}

fn thousandths(max: u32) -> impl Strategy<Value = f64> {
    (0..=max * 1000).prop_map(|milli| f64::from(milli) / 1000.0)
}

fn tensor() -> impl Strategy<Value = Tensor> {
    (
        prop::sample::select(&Dtype::ALL[..]),
        vec(0..4_usize, 0..=RANK_MAX),
        any::<u8>(),
    )
        .prop_map(|(dtype, mut shape, seed)| {
            // Keeps the product of eight extents small.
            for extent in shape.iter_mut().skip(3) {
                *extent = (*extent).clamp(0, 1);
            }
            let elements: usize = shape.iter().product();
            let data: Vec<u8> = match (dtype, dtype.size()) {
                (Dtype::Bool, _) => vec![seed & 1; elements],
                (_, Some(size)) => vec![seed; elements * size],
                (_, None) => [3, 0, 0, 0, seed, 0, 255].repeat(elements),
            };
            Tensor::new(dtype, Shape::from_vec(shape), Bytes::from(data)).unwrap()
        })
}

fn tensors() -> impl Strategy<Value = Vec<NamedTensor>> {
    let named = (name(), tensor()).prop_map(|(name, tensor)| NamedTensor { name, tensor });
    vec(named, 0..10)
}

pub(crate) fn request() -> impl Strategy<Value = RequestMessage> {
    (
        digest(),
        duration(),
        prop::sample::select(&Priority::ALL[..]),
        vec(name(), 0..8),
        tensors(),
    )
        .prop_map(
            |(module, time_left, priority, outputs, inputs)| RequestMessage {
                module,
                time_left,
                priority,
                outputs,
                inputs,
            },
        )
}

fn load() -> impl Strategy<Value = LoadReport> {
    (
        any::<[u32; 3]>(),
        duration(),
        thousandths(SLOTS_MAX),
        any::<bool>(),
    )
        .prop_map(
            |([slots, busy, queued], wait, reserved, draining)| LoadReport {
                slots,
                busy,
                queued,
                wait,
                reserved,
                draining,
            },
        )
}

fn failure() -> impl Strategy<Value = Failure> {
    (
        prop::sample::select(&FailureKind::ALL[..]),
        text(MESSAGE_BYTES_MAX),
        prop::option::of(duration()),
    )
        .prop_map(|(kind, message, retry_after)| Failure {
            kind,
            message,
            retry_after,
        })
}

pub(crate) fn reply() -> impl Strategy<Value = ReplyMessage> {
    let answer = (tensors(), duration(), duration()).prop_map(|(outputs, queue, service)| Answer {
        outputs,
        queue,
        service,
    });
    let result = prop_oneof![answer.prop_map(Ok), failure().prop_map(Err)];
    (result, load()).prop_map(|(result, load)| ReplyMessage { result, load })
}

fn module() -> impl Strategy<Value = ModuleOffer> {
    (name(), digest(), 0..=MODULE_BYTES_MAX).prop_map(|(name, digest, len)| ModuleOffer {
        name,
        digest,
        len,
    })
}

pub(crate) fn control() -> impl Strategy<Value = ControlMessage> {
    prop_oneof![
        (name(), vec(module(), 0..=MODULES_MAX))
            .prop_map(|(name, modules)| ControlMessage::Hello { name, modules }),
        load().prop_map(ControlMessage::Load),
        digest().prop_map(|digest| ControlMessage::ModuleReady { digest }),
        (thousandths(SLOTS_MAX), duration(), thousandths(1)).prop_map(
            |(slots, horizon, probability)| ControlMessage::Reservation {
                slots,
                horizon,
                probability,
            }
        ),
        any::<u32>().prop_map(|in_flight_max| ControlMessage::Credits { in_flight_max }),
        text(REASON_BYTES_MAX).prop_map(|reason| ControlMessage::GoAway { reason }),
        digest().prop_map(|digest| ControlMessage::ModuleWanted { digest }),
        (digest(), 0..=MODULE_BYTES_MAX)
            .prop_map(|(digest, len)| ControlMessage::ModuleOffered { digest, len }),
    ]
}
