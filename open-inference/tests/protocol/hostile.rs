//! Requests that lie, overflow, nest, repeat, expand or stall.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request as HttpRequest;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Frame;
use serde_json::json;
use tidegate_open_inference::{ID_BYTES_MAX, Limits, TENSORS_MAX, router};
use tower::ServiceExt;

use crate::echo::{Answer, Echo, infer, infer_binary, send, send_to};

#[track_caller]
fn refused(answer: &Answer, status: u16, expected: &str) {
    let error = answer.error();
    assert_eq!(answer.status, status, "{error}");
    assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    assert!(error.len() <= 1024, "{} bytes", error.len());
}

#[tokio::test]
async fn malformed_json_is_400() {
    let input = r#"{"name":"a","shape":[1],"datatype":"INT8","data":[1]}"#;
    for (body, expected) in [
        ("", "EOF while parsing"),
        ("null", "expected an inference request"),
        ("[]", "expected an inference request"),
        ("{", "EOF while parsing"),
        ("{}", "missing field `inputs`"),
        (r#"{"inputs":[]} x"#, "trailing characters"),
        (r#"{"inputs":{}}"#, "inputs: invalid type: map"),
        (r#"{"inputs":[1]}"#, "inputs[0]: invalid type: integer `1`"),
        (r#"{"inputs":[],"inputs":[]}"#, "duplicate field `inputs`"),
        (r#"{"inputs":[{}]}"#, "inputs[0]: missing field `name`"),
        (r#"{"inputs":[],"id":7}"#, "id: invalid type: integer `7`"),
        (
            r#"{"inputs":[],"outputs":[{}]}"#,
            "outputs[0]: missing field `name`",
        ),
        (r#"{"inputs":[],"outputs":[{"name":""},7]}"#, "outputs[1]: "),
        (
            r#"{"inputs":[{"name":"a","name":"a"}]}"#,
            "inputs[0]: duplicate field `name`",
        ),
        (
            &format!(r#"{{"inputs":[{input}"#),
            "EOF while parsing a list",
        ),
        (
            &format!(r#"{{"inputs":[{input},{input}]}}"#),
            "inputs[1]: input \"a\" is given twice",
        ),
        (
            &format!(r#"{{"inputs":[{input}],"outputs":[{{"name":"a"}},{{"name":"a"}}]}}"#),
            "outputs[1]: output \"a\" is asked for twice",
        ),
        (
            &format!(r#"{{"inputs":[{}]}}"#, input.replace("[1]}", "[01]}")),
            "inputs[0].data[0]: invalid number",
        ),
    ] {
        refused(&send(infer(body.to_owned())).await, 400, expected);
    }
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_400() {
    let mut body =
        br#"{"inputs":[{"name":"a?","shape":[1],"datatype":"BYTES","data":["?"]}]}"#.to_vec();
    for index in (0..body.len())
        .filter(|index| body[*index] == b'?')
        .collect::<Vec<_>>()
    {
        body[index] = 0xff;
        refused(&send(infer(body.clone())).await, 400, "invalid unicode");
        body[index] = b'?';
    }
}

#[tokio::test]
async fn shapes_that_overflow_are_refused_before_anything_is_reserved() {
    let max = u64::MAX;
    for (shape, expected) in [
        (json!([max, max]), "more elements than can be addressed"),
        (
            json!([max]),
            "expected 18446744073709551615 elements, got 1",
        ),
        (
            json!([1_u64 << 40]),
            "expected 1099511627776 elements, got 1",
        ),
        (json!([0, max, max]), "expected 0 elements, got more"),
        (json!([1, 1, 1, 1, 1, 1, 1, 1, 1]), "at most 8 axes"),
    ] {
        for datatype in ["INT8", "FP64", "BYTES"] {
            let data = match datatype {
                "BYTES" => json!([""]),
                _ => json!([1]),
            };
            let input = json!({"name": "a", "shape": shape, "datatype": datatype, "data": data});
            let answer = send(infer(json!({"inputs": [input]}).to_string())).await;
            assert!(
                answer.error().starts_with("inputs[0]."),
                "{}",
                answer.error()
            );
            refused(&answer, 400, expected);
        }
    }
    for body in [
        r#"{"inputs":[{"name":"a","shape":[1e3],"datatype":"INT8","data":[]}]}"#,
        r#"{"inputs":[{"name":"a","shape":[99999999999999999999],"datatype":"INT8","data":[]}]}"#,
    ] {
        refused(&send(infer(body)).await, 400, "inputs[0].shape: ");
    }
    let nested =
        json!({"name": "a", "shape": [2, 0, max, max], "datatype": "INT8", "data": [[], []]});
    refused(
        &send(infer(json!({"inputs": [nested]}).to_string())).await,
        400,
        "more elements than can be addressed",
    );
}

#[tokio::test]
async fn a_header_length_that_lies_is_400() {
    let json = r#"{"inputs":[]}"#;
    for (length, expected) in [
        ("14", "14 bytes of JSON announced, the body has 13"),
        ("18446744073709551615", "announced"),
        ("18446744073709551616", "expected one whole number"),
        ("-1", "expected one whole number"),
        ("+13", "expected one whole number"),
        ("", "expected one whole number"),
        ("1e1", "expected one whole number"),
        ("12", "EOF while parsing"),
        ("1", "EOF while parsing"),
    ] {
        let request = HttpRequest::post("/v2/models/echo/infer")
            .header("inference-header-content-length", length)
            .body(json.into())
            .unwrap();
        refused(&send(request).await, 400, expected);
    }
    let twice = HttpRequest::post("/v2/models/echo/infer")
        .header("inference-header-content-length", "13")
        .header("inference-header-content-length", "13")
        .body(json.into())
        .unwrap();
    refused(&send(twice).await, 400, "expected one whole number");
}

#[tokio::test]
async fn a_binary_size_that_lies_is_400() {
    for (size, tail, expected) in [
        (
            json!(8),
            &b"1234"[..],
            "inputs[0].parameters.binary_data_size: 8 bytes announced, 4 left",
        ),
        (json!(u64::MAX), b"1234", "bytes announced, 4 left"),
        (json!(4), b"12345", "1 bytes follow the last binary tensor"),
        (
            json!(3),
            b"123",
            "inputs[0].data: FP32 of shape [1] takes 4 bytes, got 3",
        ),
        (
            json!(-4),
            b"1234",
            "inputs[0].parameters: invalid value: integer `-4`",
        ),
        (
            json!("4"),
            b"1234",
            "inputs[0].parameters: invalid type: string",
        ),
        (json!(null), b"1234", "neither data nor binary_data_size"),
        (json!(0), b"", "takes 4 bytes, got 0"),
    ] {
        let input = json!({
            "name": "a", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": size},
        });
        let json = json!({"inputs": [input]}).to_string();
        refused(
            &send(infer_binary("echo", &json, tail)).await,
            400,
            expected,
        );
    }
    let both = json!({
        "name": "a", "shape": [1], "datatype": "INT8", "data": [1], "parameters": {"binary_data_size": 1},
    });
    let json = json!({"inputs": [both]}).to_string();
    let expected = "both data and binary_data_size";
    refused(
        &send(infer_binary("echo", &json, b"1")).await,
        400,
        expected,
    );
    for (datatype, tail, expected) in [
        ("BOOL", &b"\x02"[..], "BOOL element 0 is 2"),
        (
            "BYTES",
            b"\xff\xff\xff\xffx",
            "BYTES of shape [1] takes 1 elements, the data holds 0",
        ),
        (
            "BYTES",
            b"\0\0\0\0\0\0\0\0",
            "takes 1 elements, the data holds 2",
        ),
    ] {
        let input = json!({
            "name": "a", "shape": [1], "datatype": datatype,
            "parameters": {"binary_data_size": tail.len()},
        });
        let json = json!({"inputs": [input]}).to_string();
        refused(
            &send(infer_binary("echo", &json, tail)).await,
            400,
            expected,
        );
    }
}

#[tokio::test]
async fn depth_and_counts_are_bounded() {
    let deep = "[".repeat(100_000);
    let input = |data: &str| {
        format!(r#"{{"inputs":[{{"name":"a","shape":[1,1],"datatype":"INT8","data":{data}}}]}}"#)
    };
    let too_deep = "expected an INT8, got an array";
    refused(&send(infer(input(&deep))).await, 400, too_deep);
    let ignored = format!(r#"{{"unknown":{deep}{},"inputs":[]}}"#, "]".repeat(100_000));
    assert_eq!(send(infer(ignored)).await.status, 200);
    let unclosed = format!(r#"{{"unknown":{deep}"#);
    refused(&send(infer(unclosed)).await, 400, "EOF while parsing");
    let many = vec![r#"{"name":"a","shape":[0],"datatype":"INT8","data":[]}"#; 100_000].join(",");
    let expected = format!("inputs: more than {TENSORS_MAX} tensors");
    refused(
        &send(infer(format!(r#"{{"inputs":[{many}]}}"#))).await,
        400,
        &expected,
    );
    let many = vec![r#"{"name":""}"#; 100_000].join(",");
    let expected = format!("outputs: more than {TENSORS_MAX} tensors");
    let body = format!(r#"{{"inputs":[],"outputs":[{many}]}}"#);
    refused(&send(infer(body)).await, 400, &expected);
    let long = "x".repeat(100_000);
    let body = json!({"inputs": [{"name": long, "shape": [0], "datatype": "INT8", "data": []}]});
    refused(
        &send(infer(body.to_string())).await,
        400,
        "a name has at most 128 bytes",
    );
    let body = json!({"inputs": [], "id": long});
    let expected = format!("id: longer than {ID_BYTES_MAX} bytes");
    refused(&send(infer(body.to_string())).await, 400, &expected);
    let body = json!({"inputs": [], "parameters": {"timeout": long}});
    refused(
        &send(infer(body.to_string())).await,
        400,
        "parameters: invalid type: string",
    );
}

#[tokio::test]
async fn numbers_without_end_are_read_or_refused() {
    let digits = "9".repeat(100_000);
    for (datatype, number, ok) in [
        ("INT64", digits.as_str(), false),
        ("FP64", digits.as_str(), false),
        ("FP64", &format!("0.{digits}"), true),
        ("FP64", &format!("1e-{digits}"), true),
        ("FP64", &format!("1e{digits}"), false),
        ("FP64", &format!("0e{digits}"), true),
    ] {
        let body = format!(
            r#"{{"inputs":[{{"name":"a","shape":[1],"datatype":"{datatype}","data":[{number}]}}]}}"#
        );
        let answer = send(infer(body)).await;
        match ok {
            true => assert_eq!(answer.status, 200, "{datatype} {}", &number[..9]),
            false => refused(&answer, 400, "inputs[0].data[0]: "),
        }
    }
}

fn small() -> Limits {
    Limits {
        body_bytes_max: 100_000,
        bodies_bytes_max: 1_000_000,
        body_wait_max: Duration::from_millis(20),
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_announced_or_not() {
    let over = Bytes::from(vec![b' '; 100_001]);
    let send = |body| send_to(Echo::default(), small(), infer(body));
    refused(
        &send(Body::from(over.clone())).await,
        413,
        "larger than 100000 bytes",
    );
    let pieces = Body::new(Frames::of(over.chunks(7000)));
    refused(&send(pieces).await, 413, "larger than 100000 bytes");
    let mut at_limit = br#"{"inputs":[]}"#.to_vec();
    at_limit.resize(100_000, b' ');
    assert_eq!(send(Body::from(at_limit.clone())).await.status, 200);
    let pieces = Body::new(Frames::of(at_limit.chunks(7000)));
    assert_eq!(send(pieces).await.status, 200);
}

#[tokio::test]
async fn a_small_body_that_expands_without_end_is_413() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..1000 {
        encoder.write_all(&[b' '; 100_000]).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    let request = HttpRequest::post("/v2/models/echo/infer")
        .header("content-encoding", "gzip")
        .body(bomb.into())
        .unwrap();
    let answer = send_to(Echo::default(), small(), request).await;
    refused(
        &answer,
        413,
        "the expanded body is larger than 100000 bytes",
    );
}

#[tokio::test]
async fn a_body_that_alone_passes_the_common_budget_is_413() {
    let limits = Limits {
        bodies_bytes_max: 60_000,
        ..small()
    };
    let router = router(Arc::new(Echo::default()), limits);
    // What one request held is there for the next.
    for _ in 0..100 {
        for (len, status) in [(12_000, 200), (12_001, 413), (60_001, 413)] {
            let body = format!("{:len$}", r#"{"inputs":[]}"#);
            let response = router.clone().oneshot(infer(body)).await.unwrap();
            assert_eq!(response.status(), status, "{len} bytes");
        }
    }
}

#[tokio::test]
async fn bodies_that_together_pass_the_common_budget_are_503() {
    let limits = Limits {
        bodies_bytes_max: 100_000,
        body_wait_max: Duration::from_secs(60),
        ..small()
    };
    let router = router(Arc::new(Echo::default()), limits);
    let stalls = Frames {
        pieces: [Bytes::from(vec![b' '; 90_000])].into_iter().collect(),
        end: End::Never,
    };
    let mut first = std::pin::pin!(router.clone().oneshot(infer(Body::new(stalls))));
    let polled = std::future::poll_fn(|context| Poll::Ready(first.as_mut().poll(context)));
    assert!(polled.await.is_pending());
    let second = || router.clone().oneshot(infer(vec![b' '; 10_001]));
    let refused = second().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    first.set(router.clone().oneshot(infer("")));
    assert_eq!(second().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_body_that_stalls_is_408_and_one_that_breaks_off_is_400() {
    let send = |frames| send_to(Echo::default(), small(), infer(Body::new(frames)));
    let start = || [Bytes::from_static(b"{")].into_iter().collect();
    let stalls = Frames {
        pieces: start(),
        end: End::Never,
    };
    refused(&send(stalls).await, 408, "did not end within 20ms");
    let breaks = Frames {
        pieces: start(),
        end: End::Error,
    };
    refused(&send(breaks).await, 400, "broke off");
}

/// A body of unknown length in pieces, and how it ends.
struct Frames {
    pieces: std::collections::VecDeque<Bytes>,
    end: End,
}

enum End {
    Ok,
    Error,
    Never,
}

impl Frames {
    fn of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        Self {
            pieces: pieces.map(Bytes::copy_from_slice).collect(),
            end: End::Ok,
        }
    }
}

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match (self.pieces.pop_front(), &self.end) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, End::Ok) => Poll::Ready(None),
            (None, End::Error) => {
                self.end = End::Ok;
                Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into())))
            }
            (None, End::Never) => Poll::Pending,
        }
    }
}
