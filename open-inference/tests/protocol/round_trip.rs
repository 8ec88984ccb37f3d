//! Random tensors come back as they were; random bytes get an answer in JSON.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_inference::{Dtype, Shape, Tensor};

use crate::echo::{Answer, infer, infer_binary, send};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(future)
}

fn any_tensor() -> impl Strategy<Value = Tensor> {
    let dtype = proptest::sample::select(Dtype::ALL.to_vec());
    let shape = vec(0_usize..4, 0..5);
    (dtype, shape).prop_flat_map(|(dtype, shape)| {
        let len = shape.iter().product::<usize>();
        let data = match dtype.size() {
            Some(size) => vec(any::<u8>(), len * size)
                .prop_map(move |mut data| {
                    if dtype == Dtype::Bool {
                        data.iter_mut().for_each(|byte| *byte &= 1);
                    }
                    Bytes::from(data)
                })
                .boxed(),
            None => vec(any::<String>(), len)
                .prop_map(|texts| Tensor::from_byte_elements(&texts).data().clone())
                .boxed(),
        };
        data.prop_map(move |data| Tensor::new(dtype, Shape::from_slice(&shape), data).unwrap())
    })
}

/// Reads the outputs of an answer as the protocol's document says, apart from the code under test.
fn binary_outputs(answer: &Answer) -> Vec<(Value, Bytes)> {
    let len = answer.header("inference-header-content-length");
    let len = len.map_or(answer.body.len(), |len| len.parse().unwrap());
    let json: Value = serde_json::from_slice(&answer.body[..len]).unwrap();
    let mut tail = answer.body.slice(len..);
    let outputs = json["outputs"].as_array().unwrap().iter();
    let outputs = outputs
        .map(|output| {
            let size = output["parameters"]["binary_data_size"].as_u64().unwrap();
            (output.clone(), tail.split_to(size.try_into().unwrap()))
        })
        .collect();
    assert!(tail.is_empty());
    outputs
}

fn nested(flat: &[Value], shape: &[usize]) -> Value {
    match shape {
        [] | [_] => flat.into(),
        [rows, inner @ ..] => {
            let len = flat.len() / (*rows).max(1);
            let row = |index: usize| nested(&flat[index * len..(index + 1) * len], inner);
            (0..*rows).map(row).collect()
        }
    }
}

/// NaNs lose their payload in JSON, which has one NaN.
fn canonical(tensor: &Tensor) -> Vec<u8> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::Fp32 => {
            let floats = data
                .as_chunks()
                .0
                .iter()
                .map(|chunk| f32::from_le_bytes(*chunk));
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value };
            floats.flat_map(|value| one(value).to_le_bytes()).collect()
        }
        Dtype::Fp64 => {
            let floats = data
                .as_chunks()
                .0
                .iter()
                .map(|chunk| f64::from_le_bytes(*chunk));
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value };
            floats.flat_map(|value| one(value).to_le_bytes()).collect()
        }
        _ => data.to_vec(),
    }
}

proptest! {
    #[test]
    fn tensors_in_binary_come_back_bit_for_bit(tensors in vec(any_tensor(), 0..6)) {
        let inputs: Vec<_> = tensors.iter().enumerate().map(|(index, tensor)| json!({
            "name": format!("input {index}"),
            "datatype": tensor.dtype().name(),
            "shape": tensor.shape(),
            "parameters": {"binary_data_size": tensor.data().len()},
        })).collect();
        let tail: Vec<u8> = tensors.iter().flat_map(|tensor| tensor.data().to_vec()).collect();
        let json = json!({"inputs": inputs, "parameters": {"binary_data_output": true}});
        let answer = block_on(send(infer_binary("echo", &json.to_string(), &tail)));
        prop_assert_eq!(answer.status, 200, "{:?}", answer.body);
        let outputs = binary_outputs(&answer);
        prop_assert_eq!(outputs.len(), tensors.len());
        for ((output, data), (input, tensor)) in outputs.iter().zip(inputs.iter().zip(&tensors)) {
            prop_assert_eq!(output, input);
            prop_assert_eq!(data, tensor.data());
        }
    }

    #[test]
    fn tensors_in_json_come_back_value_for_value(tensor in any_tensor(), as_rows in any::<bool>()) {
        prop_assume!(!matches!(tensor.dtype(), Dtype::Fp16 | Dtype::Bf16));
        let describe = |data: Option<&Value>| {
            let mut input = json!({
                "name": "a", "datatype": tensor.dtype().name(), "shape": tensor.shape(),
            });
            match data {
                Some(data) => input["data"] = data.clone(),
                None => input["parameters"] = json!({"binary_data_size": tensor.data().len()}),
            }
            input
        };
        let json = json!({"inputs": [describe(None)]}).to_string();
        let written = block_on(send(infer_binary("echo", &json, tensor.data())));
        prop_assert_eq!(written.status, 200, "{:?}", written.body);
        let written = written.json();
        let Some(Value::Array(flat)) = written["outputs"][0].get("data") else { panic!() };
        let data = match as_rows {
            true => nested(flat, tensor.shape()),
            false => flat.clone().into(),
        };
        let json = json!({
            "inputs": [describe(Some(&data))], "parameters": {"binary_data_output": true},
        });
        let read = block_on(send(infer(json.to_string())));
        prop_assert_eq!(read.status, 200, "{:?}", read.body);
        let outputs = binary_outputs(&read);
        prop_assert_eq!(&outputs[0].0, &describe(None));
        prop_assert_eq!(&outputs[0].1[..], &canonical(&tensor)[..]);
    }

    #[test]
    fn random_bytes_get_an_answer_in_json(
        body in vec(any::<u8>(), 0..200),
        headers in vec((
            proptest::sample::select(vec![
                "inference-header-content-length", "content-encoding", "accept-encoding", "content-type",
            ]),
            vec(proptest::sample::select(b"0123456789gzip deflate,;q=\xff-".to_vec()), 0..9),
        ), 0..4),
    ) {
        let mut request = infer(body);
        for (name, value) in headers {
            request.headers_mut().insert(name, value.as_slice().try_into().unwrap());
        }
        let answer = block_on(send(request));
        prop_assert!(answer.status.is_client_error(), "{answer:?}");
        answer.error();
    }

    #[test]
    fn a_good_request_with_a_few_bytes_changed_gets_an_answer(
        tensor in any_tensor(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let json = json!({
            "id": "7",
            "inputs": [{
                "name": "a", "datatype": tensor.dtype().name(), "shape": tensor.shape(),
                "parameters": {"binary_data_size": tensor.data().len()},
            }],
            "outputs": [{"name": "a", "parameters": {"binary_data": true}}],
            "parameters": {"priority": 1, "timeout": 5},
        }).to_string();
        let mut body = [json.as_bytes(), tensor.data()].concat();
        for (index, byte) in changes {
            let index = index.index(body.len());
            body[index] = byte;
        }
        let mut request = infer(body);
        request.headers_mut().insert("inference-header-content-length", json.len().into());
        let answer = block_on(send(request));
        if !answer.status.is_success() {
            prop_assert!(answer.status.is_client_error(), "{answer:?}");
            answer.error();
        }
    }
}
