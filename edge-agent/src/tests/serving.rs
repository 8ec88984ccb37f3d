//! What clients of a running agent see.

use std::time::Duration;

use hyper::StatusCode;

use super::client::Client;
use super::power::{DIAGONAL, SLOW_ROWS};
use super::{running, until};
use crate::Drained;

const SLOW: &str = r#""timeout":60000000"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_here_and_says_so() {
    let running = running("").await;
    let mut client = Client::tcp(running.agent.local_addr()).await;
    let json = r#"{"id":"7","inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[2]}]}"#;
    let answer = client.post("/v2/models/power/infer", json).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    for part in [
        r#""id":"7""#,
        r#""model_version":"1.2.0""#,
        "512",
        r#""tidegate_placement":"local""#,
        r#""tidegate_reason":"capacity""#,
        "tidegate_queue_us",
        "tidegate_infer_us",
    ] {
        assert!(
            answer.text().contains(part),
            "{part} is not in {}",
            answer.text()
        );
    }

    let answer = client.power(2, "").await.unwrap();
    assert_eq!(answer.floats(), [DIAGONAL, 0.0, 0.0, DIAGONAL]);
    let names = client.get("/v2/models/power").await;
    assert!(
        names.text().contains(r#""versions":["1.2.0"]"#),
        "{}",
        names.text()
    );
    assert_eq!(client.get("/v2/health/ready").await.status, StatusCode::OK);

    let page = client.get("/metrics").await;
    assert!(
        page.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics")
    );
    for line in [
        r#"tidegate_requests_total{model="power",placement="local",reason="capacity",outcome="ok"} 2"#,
        r#"tidegate_request_duration_seconds_count{model="power",placement="local"} 2"#,
        "tidegate_slots 1\n",
        "tidegate_queue_length 0\n",
        "tidegate_relays_connected 0\n",
        "tidegate_mode_changes_total 0\n",
        "tidegate_reserved_slots",
        "tidegate_capacity_rps",
        "tidegate_saturation_ratio",
        "tidegate_burst_share_ratio",
        "tidegate_lead_seconds",
        "tidegate_arrival_rps",
        "tidegate_forecast_rps",
        "tidegate_forecast_upper_rps",
        "tidegate_burst_in_flight",
        "tidegate_slots_busy",
    ] {
        assert!(
            page.text().contains(line),
            "{line} is not in\n{}",
            page.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_gets_wrong_is_said_and_counted_without_its_words() {
    let running = running("request-bytes-max = 4096\n").await;
    let mut client = Client::tcp(running.agent.local_addr()).await;
    let one = |shape: &str, datatype: &str| {
        format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":[2]}}]}}"#
        )
    };
    let many = format!(
        r#"{{"inputs":[{{"name":"x","shape":[1,1],"datatype":"FP32","data":[{}2]}}]}}"#,
        " ".repeat(4096)
    );
    let output = r#"{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[2]}],
                     "outputs":[{"name":"z"}]}"#;
    for (path, body, status, part) in [
        ("/v2/models/power/infer", "{", 400, ""),
        (
            "/v2/models/power/infer",
            &one("[1,1]", "INT32"),
            400,
            "FP32",
        ),
        ("/v2/models/power/infer", &one("[1]", "FP32"), 400, "shape"),
        ("/v2/models/power/infer", output, 400, "z"),
        ("/v2/models/power/infer", &many, 413, "4096"),
        (
            "/v2/models/secret/infer",
            &one("[1,1]", "FP32"),
            404,
            "secret",
        ),
        (
            "/v2/models/power/versions/9/infer",
            &one("[1,1]", "FP32"),
            404,
            "1.2.0",
        ),
    ] {
        let answer = client.post(path, body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{path} {body} {}",
            answer.text()
        );
        let text = answer.text();
        assert!(
            text.starts_with(r#"{"error":"#) && text.contains(part),
            "{text}"
        );
    }
    let page = client.get("/metrics").await;
    assert!(!page.text().contains("secret"), "{}", page.text());
    assert_eq!(client.power(2, "").await.unwrap().status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_and_a_late_request_is_told_so() {
    let running = running("queue-len-max = 1\nslo-ms = 60000\n").await;
    let address = running.agent.local_addr();
    let slow = tokio::spawn(async move {
        Client::tcp(address)
            .await
            .power(SLOW_ROWS, SLOW)
            .await
            .unwrap()
    });
    running.loaded(1, 0).await;
    let mut client = Client::tcp(address).await;
    let late = client.power(2, r#""timeout":20000"#).await.unwrap();
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT, "{late:?}");

    running.loaded(1, 0).await;
    let waiting =
        tokio::spawn(async move { Client::tcp(address).await.power(2, SLOW).await.unwrap() });
    running.loaded(1, 1).await;
    let refused = client.power(2, SLOW).await.unwrap();
    assert_eq!(
        refused.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "{refused:?}"
    );
    assert_eq!(refused.headers["retry-after"], "1");

    assert_eq!(slow.await.unwrap().status, StatusCode::OK);
    assert_eq!(waiting.await.unwrap().floats()[0], DIAGONAL);
    let page = client.get("/metrics").await;
    for line in [
        r#"placement="local",reason="capacity",outcome="ok"} 2"#,
        r#"placement="none",reason="none",outcome="overloaded"} 1"#,
        r#"placement="none",reason="none",outcome="deadline-exceeded"} 1"#,
    ] {
        assert!(
            page.text().contains(line),
            "{line} is not in\n{}",
            page.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_frees_its_slot_and_its_place() {
    let running = running("").await;
    let address = running.agent.local_addr();
    let service = &running.agent.service;
    let gone = tokio::spawn(async move { Client::tcp(address).await.power(SLOW_ROWS, SLOW).await });
    running.loaded(1, 0).await;
    let waiting = tokio::spawn(async move { Client::tcp(address).await.power(2, SLOW).await });
    running.loaded(1, 1).await;
    assert_eq!(service.admission.requests(), 2);
    waiting.abort();
    gone.abort();
    running.loaded(0, 0).await;
    until(|| service.admission.requests() == 0).await;
    let page = service.metrics.encode(service.slots.load());
    assert!(page.contains(r#"outcome="cancelled"} 2"#), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_is_in_flight_and_takes_nothing_new() {
    let running = running("").await;
    let address = running.agent.local_addr();
    let mut idle = Client::tcp(address).await;
    assert_eq!(idle.get("/v2/health/live").await.status, StatusCode::OK);
    let slow = tokio::spawn(async move { Client::tcp(address).await.power(SLOW_ROWS, SLOW).await });
    running.loaded(1, 0).await;
    let drained = running.agent.shutdown(Duration::from_secs(60)).await;
    assert_eq!(drained, Drained::Completely);
    let answer = slow.await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        idle.power(2, "").await.is_err(),
        "the idle connection is closed"
    );
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_with_its_grace() {
    let running = running("").await;
    let address = running.agent.local_addr();
    let slow = tokio::spawn(async move { Client::tcp(address).await.power(SLOW_ROWS, SLOW).await });
    running.loaded(1, 0).await;
    assert_eq!(
        running.agent.shutdown(Duration::ZERO).await,
        Drained::CutOff
    );
    assert!(slow.await.unwrap().is_err(), "the connection is cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_wait_for_one_to_close() {
    let running = running("connections-max = 1\n").await;
    let address = running.agent.local_addr();
    let mut first = Client::tcp(address).await;
    assert_eq!(first.get("/v2/health/live").await.status, StatusCode::OK);
    let mut second = Client::tcp(address).await;
    let mut answer = Box::pin(second.get("/v2/health/live"));
    let early = tokio::time::timeout(Duration::from_millis(100), answer.as_mut()).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert_eq!(answer.await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unix_socket_serves_the_same_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead process left its socket");
    let running = running(&format!("unix-socket = '{}'\n", path.display())).await;
    let mut client = Client::unix(&path).await;
    assert_eq!(client.power(2, "").await.unwrap().floats()[3], DIAGONAL);
    drop(client);
    running.agent.shutdown(Duration::from_secs(60)).await;
    assert!(!path.exists());
}
