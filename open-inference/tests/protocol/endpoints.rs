//! Health, metadata, the index, and the status of every failure.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request as HttpRequest;
use serde_json::json;
use tidegate_inference::FailureKind;
use tidegate_open_inference::Limits;

use crate::echo::{Echo, get, post, send, send_to};

#[tokio::test]
async fn health_and_metadata_say_what_is_served() {
    let row = json!({
        "name": "row", "versions": ["2.1"], "platform": "echo",
        "inputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "a", "datatype": "FP32", "shape": [-1, 2]}],
    });
    let server = json!({
        "name": "tidegate", "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "parameters", "schedule_policy"],
    });
    for (path, expected) in [
        ("/v2", &server),
        ("/v2/", &server),
        ("/v2/health/live", &json!({"live": true})),
        ("/v2/health/ready", &json!({"ready": true})),
        ("/v2/models/row", &row),
        ("/v2/models/r%6Fw/versions/2.1", &row),
        (
            "/v2/models/row/ready",
            &json!({"name": "row", "ready": true}),
        ),
        (
            "/v2/models/row/versions/2.1/ready",
            &json!({"name": "row", "ready": true}),
        ),
    ] {
        let answer = send(get(path)).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.json(), *expected, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn the_index_lists_every_model_by_get_and_by_post() {
    let entry = |name| json!({"name": name, "version": "2.1", "state": "READY", "reason": ""});
    let path = "/v2/repository/index";
    for request in [get(path), post(path, ""), post(path, r#"{"ready": true}"#)] {
        let expected = json!([entry("echo"), entry("row"), entry("image")]);
        assert_eq!(send(request).await.json(), expected);
    }
}

#[tokio::test]
async fn a_server_that_drains_is_live_and_not_ready() {
    for (path, status) in [
        ("/v2/health/live", 200),
        ("/v2/health/ready", 503),
        ("/v2/models/row/ready", 503),
        ("/v2/models/row", 200),
    ] {
        let draining = Echo {
            ready: false,
            ..Echo::default()
        };
        let answer = send_to(draining, Limits::default(), get(path)).await;
        assert_eq!(answer.status, status, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_done_is_405() {
    let unknown = [
        "/",
        "/v3",
        "/v2/model/echo",
        "/v2/models/nope",
        "/v2/models/nope/ready",
        "/v2/models/row/versions/1",
        "/v2/models/row/versions/1/ready",
        "/v2/repository/models/row/load",
    ];
    for path in unknown {
        let answer = send(get(path)).await;
        assert_eq!(answer.status, 404, "{path}");
        answer.error();
    }
    let answer = send(post("/v2/models/nope/infer", r#"{"inputs": []}"#)).await;
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("nope"));
    for (request, allow) in [
        (get("/v2/models/echo/infer"), "POST"),
        (post("/v2/health/live", ""), "GET,HEAD"),
        (post("/v2/models/echo", ""), "GET,HEAD"),
    ] {
        let what = format!("{request:?}");
        let answer = send(request).await;
        assert_eq!(answer.status, 405, "{what}");
        assert_eq!(answer.header("allow"), Some(allow), "{what}");
        answer.error();
    }
}

#[tokio::test]
async fn a_path_that_is_not_utf_8_is_400() {
    let answer = send(get("/v2/models/%ff/ready")).await;
    assert_eq!(answer.status, 400);
    answer.error();
}

#[tokio::test]
async fn each_failure_has_its_status() {
    for kind in FailureKind::ALL {
        let status = match kind {
            FailureKind::Invalid => 400,
            FailureKind::NotFound => 404,
            FailureKind::TooLarge => 413,
            FailureKind::Overloaded | FailureKind::Unavailable => 503,
            FailureKind::DeadlineExceeded => 504,
            FailureKind::Cancelled => 499,
            FailureKind::Module | FailureKind::Internal => 500,
        };
        let path = format!("/v2/models/{}/infer", kind.name());
        let answer = send(post(&path, r#"{"inputs": []}"#)).await;
        assert_eq!(answer.status, status, "{kind:?}");
        assert_eq!(answer.error(), format!("asked to fail as {}", kind.name()));
        let retry = answer.header("retry-after");
        assert_eq!(retry, (status == 503).then_some("1"), "{kind:?}");
    }
}

#[tokio::test]
async fn retry_after_rounds_up_to_whole_seconds() {
    for (wait_ms, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (90_500, "91")] {
        let echo = Echo {
            retry_after: Some(Duration::from_millis(wait_ms)),
            ..Echo::default()
        };
        let request = HttpRequest::post("/v2/models/overloaded/infer")
            .body(Body::from(r#"{"inputs": []}"#))
            .unwrap();
        let answer = send_to(echo, Limits::default(), request).await;
        assert_eq!(answer.header("retry-after"), Some(seconds), "{wait_ms} ms");
    }
}
