//! What is written reads back as it was, and is written the same again.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tidegate_inference::{Digest, Dtype, NamedTensor, Priority, Shape, Tensor};
use tidegate_wire::RequestMessage;

use crate::frames::{joined, read_control, read_reply, read_request};
use crate::strategies;

proptest! {
    #[test]
    fn requests(message in strategies::request()) {
        let encoded = message.encode().unwrap();
        let read = read_request(&joined(&encoded).into()).unwrap();
        prop_assert_eq!(read.encode().unwrap(), encoded);
        prop_assert_eq!(read, message);
    }

    #[test]
    fn replies(message in strategies::reply()) {
        let encoded = message.encode().unwrap();
        let read = read_reply(&joined(&encoded).into()).unwrap();
        prop_assert_eq!(read.encode().unwrap(), encoded);
        prop_assert_eq!(read, message);
    }

    #[test]
    fn control_messages(message in strategies::control()) {
        let encoded = message.encode().unwrap();
        let read = read_control(&encoded).unwrap();
        prop_assert_eq!(read.encode().unwrap(), encoded);
        prop_assert_eq!(read, message);
    }

    #[test]
    fn tensors_share_the_payload(message in strategies::request()) {
        let stream = Bytes::from(joined(&message.encode().unwrap()));
        for input in read_request(&stream).unwrap().inputs {
            let data = input.tensor.data();
            let within = stream.as_ptr_range().contains(&data.as_ptr());
            prop_assert!(data.is_empty() || within);
        }
    }
}

/// The example of `docs/protocol.md`, as text, is what the codec writes.
#[test]
fn the_documented_example() {
    const PAGE: &str = include_str!("../../../docs/protocol.md");
    let example = PAGE
        .split("```")
        .nth(1)
        .unwrap()
        .replace("9a..9a", &"9a ".repeat(32));
    let hex = |line: &str| {
        let bytes = line.split_whitespace().map_while(|word| match word.len() {
            2 => u8::from_str_radix(word, 16).ok(),
            _ => None,
        });
        bytes.collect::<Vec<_>>()
    };
    let documented: Vec<u8> = example.lines().flat_map(hex).collect();
    let data = Bytes::from_static(&[1, 2, 3]);
    let message = RequestMessage {
        module: Digest([0x9a; 32]),
        time_left: Duration::from_millis(1500),
        priority: Priority::Normal,
        outputs: Vec::new(),
        inputs: vec![NamedTensor {
            name: "x".to_owned(),
            tensor: Tensor::new(Dtype::Uint8, Shape::from_slice(&[3]), data).unwrap(),
        }],
    };
    assert_eq!(documented, joined(&message.encode().unwrap()));
}
