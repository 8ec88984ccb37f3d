//! Inference with JSON tensors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_inference::Priority;
use tidegate_open_inference::Limits;

use crate::echo::{Echo, infer, send, send_to};

/// Sends one input of this dtype, shape and data to the echo and compares what comes back.
#[track_caller]
fn check(datatype: &str, shape: Value, data: Value, expected: Value) -> impl Future<Output = ()> {
    let input = json!({"name": "a", "shape": shape, "datatype": datatype, "data": data});
    let output = json!({"name": "a", "shape": shape, "datatype": datatype, "data": expected});
    async move {
        let answer = send(infer(json!({"inputs": [input]}).to_string())).await;
        assert_eq!(answer.status, 200, "{input}: {:?}", answer.body);
        assert_eq!(answer.json()["outputs"], json!([output]), "{input}");
    }
}

#[tokio::test]
async fn every_dtype_with_a_json_form_comes_back() {
    for (datatype, data) in [
        ("BOOL", json!([true, false])),
        ("UINT8", json!([0, 255])),
        ("UINT16", json!([0, 65_535])),
        ("UINT32", json!([0, 4_294_967_295_u32])),
        ("UINT64", json!([0, u64::MAX])),
        ("INT8", json!([-128, 127])),
        ("INT16", json!([-32_768, 32_767])),
        ("INT32", json!([i32::MIN, i32::MAX])),
        ("INT64", json!([i64::MIN, i64::MAX])),
        ("FP32", json!([0.5, -1.5e-30])),
        ("FP64", json!([0.1, -1.0e300])),
        ("FP32", json!(["NaN", "-Infinity"])),
        ("FP64", json!(["Infinity", "NaN"])),
        ("BYTES", json!(["", "d\u{e9}j\u{e0} \"vu\"\n"])),
    ] {
        check(datatype, json!([2]), data.clone(), data).await;
    }
}

#[tokio::test]
async fn data_may_be_flat_or_nested_as_the_shape_says() {
    let flat = || json!([1, 2, 3, 4]);
    check("INT8", json!([2, 2]), flat(), flat()).await;
    check("INT8", json!([2, 2]), json!([[1, 2], [3, 4]]), flat()).await;
    check("INT8", json!([1, 2, 2]), json!([[[1, 2], [3, 4]]]), flat()).await;
    check("INT8", json!([4]), flat(), flat()).await;
    check("INT8", json!([]), json!([7]), json!([7])).await;
    check("INT8", json!([0, 9]), json!([]), json!([])).await;
    check("INT8", json!([2, 0]), json!([[], []]), json!([])).await;
    let text = json!(["a", "b"]);
    check("BYTES", json!([2, 1]), json!([["a"], ["b"]]), text).await;
    check(
        "BOOL",
        json!([3]),
        json!([1, 0, true]),
        json!([true, false, true]),
    )
    .await;
    check("FP32", json!([2]), json!([1, -2]), json!([1.0, -2.0])).await;
}

#[tokio::test]
async fn what_does_not_fit_is_told_by_path() {
    let input = |shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"name":"a","shape":{shape},"datatype":"{datatype}","data":{data}}}"#)
    };
    for (shape, datatype, data, expected) in [
        (
            "[4]",
            "FP32",
            "[1,2,3]",
            "inputs[0].data: expected 4 elements, got 3",
        ),
        (
            "[2]",
            "FP32",
            "[1,2,3]",
            "inputs[0].data: expected 2 elements, got more",
        ),
        (
            "[2,2]",
            "INT8",
            "[[1,2],[3]]",
            "inputs[0].data[1]: expected 2 elements, got 1",
        ),
        (
            "[2,2]",
            "INT8",
            "[[1,2]]",
            "inputs[0].data: expected 2 rows, got 1",
        ),
        (
            "[2,2]",
            "INT8",
            "[[1,2],3,4]",
            "inputs[0].data[1]: expected an array",
        ),
        (
            "[2,2]",
            "INT8",
            "[1,2,[3,4]]",
            "inputs[0].data[2]: expected an INT8, got an array",
        ),
        (
            "[1]",
            "INT8",
            "[[1]]",
            "inputs[0].data[0]: expected an INT8, got an array",
        ),
        (
            "[1]",
            "UINT8",
            "[256]",
            "inputs[0].data[0]: 256 is not a UINT8",
        ),
        (
            "[1]",
            "UINT64",
            "[-1]",
            "inputs[0].data[0]: -1 is not a UINT64",
        ),
        (
            "[1]",
            "INT64",
            "[9223372036854775808]",
            "9223372036854775808 is not an INT64",
        ),
        (
            "[1]",
            "INT32",
            "[1.5]",
            "inputs[0].data[0]: 1.5 is not an INT32",
        ),
        ("[1]", "FP32", "[1e39]", "inputs[0].data[0]: "),
        (
            "[1]",
            "FP64",
            "[1e999]",
            "inputs[0].data[0]: number out of range",
        ),
        ("[1]", "FP32", "[\"nan\"]", "a string is not an FP32"),
        (
            "[1]",
            "FP32",
            "[null]",
            "inputs[0].data[0]: invalid type: null",
        ),
        ("[1]", "BOOL", "[2]", "inputs[0].data[0]: 2 is not a BOOL"),
        (
            "[1]",
            "BYTES",
            "[1]",
            "inputs[0].data[0]: 1 is not a string",
        ),
        (
            "[1]",
            "FP32",
            "3",
            "inputs[0].data: invalid type: integer `3`",
        ),
        (
            "[1]",
            "FP16",
            "[1]",
            "inputs[0].data: FP16 has no JSON form",
        ),
        (
            "[1]",
            "BF16",
            "[1]",
            "inputs[0].data: BF16 has no JSON form",
        ),
        (
            "[1]",
            "FP8",
            "[1]",
            "inputs[0].datatype: unknown datatype \"FP8\"",
        ),
        ("[-1]", "FP32", "[1]", "inputs[0].shape: "),
        ("3", "FP32", "[1]", "inputs[0].shape: invalid type"),
    ] {
        let good = input("[1]", "UINT8", "[1]").replace("\"a\"", "\"b\"");
        let bad = input(shape, datatype, data);
        let answer = send(infer(format!(r#"{{"inputs":[{bad},{good}]}}"#))).await;
        assert_eq!(answer.status, 400, "{bad}");
        let error = answer.error();
        assert!(error.contains(expected), "{bad}: {error}");
        let answer = send(infer(format!(r#"{{"inputs":[{good},{bad}]}}"#))).await;
        let error = answer.error();
        assert!(error.starts_with("inputs[1]."), "{bad}: {error}");
    }
}

#[tokio::test]
async fn data_before_its_datatype_is_read_all_the_same() {
    for input in [
        r#"{"data":[1,2],"datatype":"INT16","name":"a","shape":[2]}"#,
        r#"{"name":"a","datatype":"INT16","data":[1,2],"shape":[2]}"#,
        r#"{"shape":[2],"data":[[1,2],"skipped"],"datatype":"INT16","name":"a"}"#,
    ] {
        let answer = send(infer(format!(r#"{{"outputs":[],"inputs":[{input}]}}"#))).await;
        if input.contains("skipped") {
            assert!(answer.error().starts_with("inputs[0].data[0]: "), "{input}");
        } else {
            assert_eq!(
                answer.json()["outputs"][0]["data"],
                json!([1, 2]),
                "{input}"
            );
        }
    }
}

#[tokio::test]
async fn a_reply_names_its_request_and_says_where_it_ran() {
    let input = json!({"name": "a", "shape": [1], "datatype": "INT8", "data": [1]});
    let answer = send(infer(
        json!({"id": "to a relay", "inputs": [input]}).to_string(),
    ))
    .await;
    assert_eq!(
        answer.json(),
        json!({
            "model_name": "echo", "model_version": "2.1", "id": "to a relay",
            "parameters": {
                "tidegate_placement": "relay", "tidegate_relay": "relay-7",
                "tidegate_reason": "capacity",
                "tidegate_queue_us": 12, "tidegate_infer_us": 3400,
            },
            "outputs": [input],
        })
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("inference-header-content-length"), None);
    let local = send(infer(json!({"inputs": []}).to_string())).await.json();
    assert_eq!(local["parameters"]["tidegate_placement"], "local");
    assert_eq!(local["parameters"].get("tidegate_relay"), None);
    assert_eq!(local.get("id"), None);
}

#[tokio::test]
async fn only_the_outputs_asked_for_come_back() {
    let input = |name| json!({"name": name, "shape": [1], "datatype": "INT8", "data": [1]});
    let ask = |outputs: Value| {
        let body = json!({"inputs": [input("a"), input("b")], "outputs": outputs});
        send(infer(body.to_string()))
    };
    assert_eq!(
        ask(json!([{"name": "b"}])).await.json()["outputs"],
        json!([input("b")])
    );
    let all = json!([input("a"), input("b")]);
    assert_eq!(ask(json!([])).await.json()["outputs"], all);
    assert_eq!(ask(Value::Null).await.json()["outputs"], all);
    let error = ask(json!([{"name": "a"}, {"name": "c"}])).await.error();
    assert_eq!(error, r#"outputs[1].name: model "echo" has no output "c""#);
}

#[tokio::test]
async fn parameters_set_deadline_and_priority() {
    for (parameters, priority, timeout_us) in [
        (json!({}), Priority::Normal, None),
        (Value::Null, Priority::Normal, None),
        (json!({"priority": 0, "timeout": 0}), Priority::Normal, None),
        (json!({"priority": 1}), Priority::High, None),
        (json!({"priority": 2}), Priority::Normal, None),
        (json!({"priority": 3}), Priority::Low, None),
        (json!({"priority": u64::MAX}), Priority::Low, None),
        (
            json!({"timeout": 1_500_000}),
            Priority::Normal,
            Some(1_500_000),
        ),
        (
            json!({"timeout": null, "sequence_id": {"deep": [1]}}),
            Priority::Normal,
            None,
        ),
    ] {
        let echo = Arc::new(Echo::default());
        let body = json!({"inputs": [], "parameters": parameters, "unknown": [{}]});
        let before = Instant::now();
        let answer = send_to(
            Arc::clone(&echo),
            Limits::default(),
            infer(body.to_string()),
        )
        .await;
        assert_eq!(answer.status, 200, "{parameters}: {:?}", answer.body);
        let seen = &echo.seen.lock().unwrap()[0];
        assert_eq!(seen.priority, priority, "{parameters}");
        let deadline = timeout_us.map(Duration::from_micros);
        match (seen.deadline, deadline) {
            (None, None) => {}
            (Some(at), Some(wait)) => {
                assert!(
                    at >= before + wait && at <= Instant::now() + wait,
                    "{parameters}"
                );
            }
            other => panic!("{parameters}: {other:?}"),
        }
    }
    for (parameters, expected) in [
        (
            json!({"timeout": -1}),
            "parameters: invalid value: integer `-1`",
        ),
        (json!({"timeout": "1s"}), "parameters: invalid type: string"),
        (
            json!({"priority": 0.5}),
            "parameters: invalid type: floating point",
        ),
        (json!([]), "parameters: "),
    ] {
        let body = json!({"inputs": [], "parameters": parameters});
        let answer = send(infer(body.to_string())).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.error().contains(expected),
            "{parameters}: {}",
            answer.error()
        );
    }
}

#[tokio::test]
async fn extensions_that_would_change_the_reply_are_refused() {
    let output =
        |parameters| json!({"inputs": [], "outputs": [{"name": "a", "parameters": parameters}]});
    let region = json!({"shared_memory_region": "r", "shared_memory_byte_size": 4});
    let input = json!({"name": "a", "shape": [1], "datatype": "FP32", "parameters": region});
    for body in [
        output(json!({"classification": 3})),
        output(region.clone()),
        json!({"inputs": [input]}),
    ] {
        let answer = send(infer(body.to_string())).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            answer.error().contains("not served"),
            "{body}: {}",
            answer.error()
        );
    }
}

#[tokio::test]
async fn an_array_of_600_kilobytes_comes_back_whole() {
    let data: Vec<f32> = (0_u16..50_000)
        .map(|index| f32::from(index) / 7.0)
        .collect();
    let data: Vec<f32> = data.repeat(3);
    let input = json!({"name": "a", "shape": [3, 50_000], "datatype": "FP32", "data": data});
    let answer = send(infer(json!({"inputs": [input]}).to_string())).await;
    let output: Vec<f32> = Vec::deserialize(&answer.json()["outputs"][0]["data"]).unwrap();
    assert!(output == data);
}
