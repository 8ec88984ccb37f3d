//! What does a message cost beside moving its bytes?
//!
//! Header encode and decode of a small request, of a reply and of a full hello. The payload is
//! shared, so its size does not matter.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_inference::{Digest, Dtype, NAME_BYTES_MAX, NamedTensor, Priority, Shape, Tensor};
use tidegate_wire::{
    Answer, ControlMessage, LoadReport, MODULES_MAX, ModuleOffer, PREFIX_BYTES, ReplyHeader,
    ReplyMessage, RequestHeader, RequestMessage,
};

fn tensor(name: &str, shape: &[usize]) -> NamedTensor {
    let data = Bytes::from(vec![0; shape.iter().product()]);
    NamedTensor {
        name: name.to_owned(),
        tensor: Tensor::new(Dtype::Uint8, Shape::from_slice(shape), data)
            .expect("the data is as long as the shape says"),
    }
}

fn request(criterion: &mut Criterion) {
    let message = RequestMessage {
        module: Digest([7; 32]),
        time_left: Duration::from_millis(800),
        priority: Priority::Normal,
        outputs: Vec::new(),
        inputs: vec![tensor("image", &[1, 3, 16, 16])],
    };
    criterion.bench_function("encode a request of one tensor", |b| {
        b.iter(|| black_box(&message).encode());
    });
    let encoded = message.encode().expect("it is small");
    criterion.bench_function("decode a request of one tensor", |b| {
        b.iter(|| {
            let header = RequestHeader::decode(black_box(&encoded.head[PREFIX_BYTES..]))?;
            header.with_payload(encoded.payload[0].clone())
        });
    });
}

fn reply(criterion: &mut Criterion) {
    let outputs = vec![tensor("boxes", &[10, 4]), tensor("scores", &[10])];
    let answer = Answer {
        outputs,
        queue: Duration::from_micros(1200),
        service: Duration::from_micros(28_000),
    };
    let load = LoadReport {
        slots: 8,
        busy: 5,
        wait: Duration::from_millis(3),
        reserved: 4.25,
        ..LoadReport::default()
    };
    let message = ReplyMessage {
        result: Ok(answer),
        load,
    };
    criterion.bench_function("encode a reply of two tensors", |b| {
        b.iter(|| black_box(&message).encode());
    });
    let encoded = message.encode().expect("it is small");
    let payload = Bytes::from(encoded.payload.concat());
    criterion.bench_function("decode a reply of two tensors", |b| {
        b.iter(|| {
            let header = ReplyHeader::decode(black_box(&encoded.head[PREFIX_BYTES..]))?;
            header.with_payload(payload.clone())
        });
    });
}

fn hello(criterion: &mut Criterion) {
    let module = ModuleOffer {
        name: "m".repeat(NAME_BYTES_MAX),
        digest: Digest([7; 32]),
        len: 1 << 20,
    };
    let message = ControlMessage::Hello {
        name: "agent".to_owned(),
        modules: vec![module; MODULES_MAX],
    };
    let encoded = message.encode().expect("a full hello fits");
    criterion.bench_function("decode a full hello", |b| {
        b.iter(|| ControlMessage::decode(black_box(&encoded[PREFIX_BYTES..])));
    });
}

criterion_group!(benches, request, reply, hello);
criterion_main!(benches);
