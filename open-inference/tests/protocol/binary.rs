//! The binary tensor extension, raw requests and compressed bodies.

use std::io::{Read, Write};

use axum::body::Body;
use axum::http::Request as HttpRequest;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use crate::echo::{Answer, infer_binary, send};

/// The JSON of an answer and the binary data after it.
#[track_caller]
fn split(answer: &Answer) -> (Value, &[u8]) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/octet-stream")
    );
    let len = answer.header("inference-header-content-length").unwrap();
    let (json, tail) = answer.body.split_at(len.parse().unwrap());
    (serde_json::from_slice(json).unwrap(), tail)
}

fn input(name: &str, datatype: &str, shape: &[usize], size: usize) -> Value {
    let parameters = json!({"binary_data_size": size});
    json!({"name": name, "shape": shape, "datatype": datatype, "parameters": parameters})
}

#[tokio::test]
async fn binary_inputs_come_back_in_the_form_asked_for() {
    let tail = [1.5_f32.to_le_bytes(), (-2_f32).to_le_bytes()].concat();
    let a = input("a", "FP32", &[2], 8);
    let as_json = json!({"name": "a", "shape": [2], "datatype": "FP32", "data": [1.5, -2.0]});
    let body = json!({"inputs": [a]});
    let answer = send(infer_binary("echo", &body.to_string(), &tail)).await;
    assert_eq!(answer.json()["outputs"], json!([as_json]));
    for body in [
        json!({"inputs": [a], "parameters": {"binary_data_output": true}}),
        json!({"inputs": [a], "outputs": [{"name": "a", "parameters": {"binary_data": true}}]}),
    ] {
        let answer = send(infer_binary("echo", &body.to_string(), &tail)).await;
        let (json, data) = split(&answer);
        assert_eq!(json["outputs"], json!([a]));
        assert_eq!(data, tail);
    }
}

#[tokio::test]
async fn forms_mix_and_keep_the_order_of_the_json() {
    let b = json!({"name": "b", "shape": [2], "datatype": "INT16", "data": [3, 4]});
    let body = json!({
        "inputs": [input("a", "BYTES", &[2], 9), b, input("c", "FP16", &[1], 2)],
        "parameters": {"binary_data_output": true},
        "outputs": [{"name": "c"}, {"name": "b", "parameters": {"binary_data": false}}, {"name": "a"}],
    });
    let tail = b"\x01\0\0\0x\0\0\0\0\x00\x3c";
    let answer = send(infer_binary("echo", &body.to_string(), tail)).await;
    let (json, data) = split(&answer);
    assert_eq!(
        json["outputs"],
        json!([input("c", "FP16", &[1], 2), b, input("a", "BYTES", &[2], 9)])
    );
    assert_eq!(data, b"\x00\x3c\x01\0\0\0x\0\0\0\0");
}

#[tokio::test]
async fn what_has_no_json_form_must_be_asked_for_in_binary() {
    for (datatype, tail, expected) in [
        ("FP16", &b"\0\0"[..], "FP16 has no JSON form"),
        ("BF16", b"\0\0", "BF16 has no JSON form"),
        ("BYTES", b"\x01\0\0\0\xff", "element 0 is not UTF-8"),
    ] {
        let body = json!({"inputs": [input("a", datatype, &[1], tail.len())]});
        let answer = send(infer_binary("echo", &body.to_string(), tail)).await;
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains(expected), "{}", answer.error());
    }
}

#[tokio::test]
async fn a_raw_body_is_the_one_input() {
    let raw = |model: &str, body: &'static [u8]| {
        let request = HttpRequest::post(format!("/v2/models/{model}/infer"))
            .header("inference-header-content-length", "0")
            .body(Body::from(body))
            .unwrap();
        send(request)
    };
    let answer = raw("image", b"\x89PNG").await;
    let (json, data) = split(&answer);
    assert_eq!(json["outputs"], json!([input("image", "BYTES", &[1], 8)]));
    assert_eq!(data, b"\x04\0\0\0\x89PNG");
    let answer = raw("row", &[0; 24]).await;
    let (json, _) = split(&answer);
    assert_eq!(json["outputs"], json!([input("a", "FP32", &[3, 2], 24)]));
    for (model, body, status, expected) in [
        ("row", &b"1234567"[..], 400, "takes 0 bytes, got 7"),
        ("echo", b"", 400, "this one has 2"),
        ("nope", b"", 404, "nope"),
    ] {
        let answer = raw(model, body).await;
        assert_eq!(answer.status, status, "{model}");
        assert!(
            answer.error().contains(expected),
            "{model}: {}",
            answer.error()
        );
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn bodies_are_compressed_both_ways() {
    let json = json!({
        "inputs": [input("a", "UINT8", &[4000], 4000)],
        "parameters": {"binary_data_output": true},
    });
    let json = json.to_string();
    let plain = [json.as_bytes(), &[7; 4000]].concat();
    for (coding, body, accept, coded) in [
        ("gzip", gzip(&plain), "gzip, deflate, br", Some("gzip")),
        ("deflate", deflate(&plain), "deflate", Some("deflate")),
        (
            "gzip",
            [gzip(&plain[..99]), gzip(&plain[99..])].concat(),
            "deflate, gzip;q=0.5",
            Some("gzip"),
        ),
        (
            "GZIP",
            gzip(&plain),
            "gzip;q=0, deflate;q=0.1",
            Some("deflate"),
        ),
        ("identity", plain.clone(), "br, *", None),
        ("identity", plain.clone(), "gzip; q=0.0", None),
    ] {
        let request = HttpRequest::post("/v2/models/echo/infer")
            .header("content-encoding", coding)
            .header("accept-encoding", accept)
            .header("inference-header-content-length", json.len())
            .body(body.into())
            .unwrap();
        let mut answer = send(request).await;
        assert_eq!(answer.status, 200, "{coding}: {:?}", answer.body);
        assert_eq!(
            answer.header("content-encoding"),
            coded,
            "{coding} {accept}"
        );
        let mut expanded = Vec::new();
        match coded {
            Some("gzip") => GzDecoder::new(&answer.body[..])
                .read_to_end(&mut expanded)
                .unwrap(),
            Some(_) => ZlibDecoder::new(&answer.body[..])
                .read_to_end(&mut expanded)
                .unwrap(),
            None => answer.body.as_ref().read_to_end(&mut expanded).unwrap(),
        };
        assert_eq!(
            coded.is_some(),
            answer.body.len() < 1000,
            "{coding} {accept}"
        );
        answer.body = expanded.into();
        let (_, data) = split(&answer);
        assert_eq!(data, [7; 4000], "{coding} {accept}");
    }
}

#[tokio::test]
async fn a_small_reply_is_not_compressed() {
    let request = HttpRequest::post("/v2/models/echo/infer")
        .header("accept-encoding", "gzip")
        .body(r#"{"inputs": []}"#.into())
        .unwrap();
    let answer = send(request).await;
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.json()["outputs"], json!([]));
}

#[tokio::test]
async fn a_coding_that_is_not_known_is_415_and_one_that_lies_is_400() {
    for (coding, body, status, expected) in [
        ("br", vec![], 415, "\"br\" is not understood"),
        ("gzip, deflate", vec![], 415, "is not understood"),
        ("gzip", b"{}".to_vec(), 400, "not valid gzip"),
        (
            "gzip",
            gzip(b"{\"inputs\":[]}")[..15].to_vec(),
            400,
            "not valid gzip",
        ),
        ("deflate", b"{}".to_vec(), 400, "not valid deflate"),
        (
            "deflate",
            [deflate(b"{\"inputs\":[]}"), vec![0]].concat(),
            400,
            "data follows",
        ),
    ] {
        let request = HttpRequest::post("/v2/models/echo/infer")
            .header("content-encoding", coding)
            .body(body.into())
            .unwrap();
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{coding}");
        assert!(
            answer.error().contains(expected),
            "{coding}: {}",
            answer.error()
        );
        let accepted = answer.header("accept-encoding");
        assert_eq!(accepted, (status == 415).then_some("gzip, deflate"));
    }
}
