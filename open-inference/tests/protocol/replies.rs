//! Replies count against the memory set aside until they are taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request as HttpRequest;
use axum::response::Response;
use serde_json::json;
use tidegate_open_inference::{Limits, router};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;

use crate::echo::{Echo, infer_binary};

/// Time enough for any step on a busy machine.
const AMPLE: Duration = Duration::from_secs(60);

/// Far above what the buffers of two sockets hold.
const LARGE: usize = 24 << 20;

fn front() -> Router {
    let limits = Limits {
        body_bytes_max: 32 << 20,
        bodies_bytes_max: 40 << 20,
        body_wait_max: AMPLE,
    };
    router(Arc::new(Echo::default()), limits)
}

/// The head of an inference request that is answered with its one BOOL tensor of `len` bytes.
fn echoing(len: usize, binary: bool) -> String {
    let parameters = json!({ "binary_data_size": len });
    let input =
        json!({ "name": "a", "shape": [len], "datatype": "BOOL", "parameters": parameters });
    let parameters = json!({ "binary_data_output": binary });
    json!({ "inputs": [input], "parameters": parameters }).to_string()
}

async fn ask(front: &Router, len: usize, binary: bool) -> Response {
    let request: HttpRequest<Body> = infer_binary("echo", &echoing(len, binary), &vec![1; len]);
    front.clone().oneshot(request).await.unwrap()
}

#[track_caller]
fn overloaded(response: &Response) {
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
}

#[tokio::test]
async fn a_reply_counts_until_its_body_is_dropped() {
    let front = front();
    let first = ask(&front, LARGE, true).await;
    assert_eq!(first.status(), 200);
    overloaded(&ask(&front, LARGE, true).await);
    // One that fits beside the first as it comes, but not as it goes: each byte becomes `true,`.
    let small = LARGE / 6;
    assert_eq!(ask(&front, small, true).await.status(), 200);
    overloaded(&ask(&front, small, false).await);
    drop(first);
    assert_eq!(ask(&front, small, false).await.status(), 200);
    assert_eq!(ask(&front, LARGE, true).await.status(), 200);
    // Alone it would pass the whole: to try again is no use.
    assert_eq!(ask(&front, LARGE / 2, false).await.status(), 413);
    assert_eq!(ask(&front, LARGE, true).await.status(), 200);
}

#[tokio::test]
async fn a_compressed_reply_counts_as_what_is_sent() {
    let front = front();
    let json = echoing(LARGE / 2, true);
    let mut request = infer_binary("echo", &json, &vec![1; LARGE / 2]);
    let gzip = "gzip".parse().unwrap();
    request.headers_mut().insert("accept-encoding", gzip);
    let compressed = front.clone().oneshot(request).await.unwrap();
    assert_eq!(compressed.headers()["content-encoding"], "gzip");
    assert_eq!(ask(&front, LARGE, true).await.status(), 200);
    drop(compressed);
}

/// Sends a request of `LARGE` bytes and reads the reply's head, or all of a reply that is an error.
async fn start(address: std::net::SocketAddr) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let json = echoing(LARGE, true);
    let head = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: a\r\n\
         inference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n{json}",
        json.len(),
        json.len() + LARGE
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![1; LARGE]).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

/// Asks until there is room again, which is soon.
async fn until_accepted(address: std::net::SocketAddr) -> TcpStream {
    let started = Instant::now();
    loop {
        let (stream, head) = start(address).await;
        if head.starts_with("HTTP/1.1 200") {
            return stream;
        }
        assert!(started.elapsed() < AMPLE, "{head}");
    }
}

#[tokio::test]
async fn a_slow_reader_s_reply_counts_until_it_is_written_or_the_connection_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(axum::serve(listener, front()).into_future());

    let (mut slow, head) = start(address).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for _ in 0..3 {
        let (_, head) = start(address).await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(head.contains("retry-after: 1"), "{head}");
    }
    // Taken to its end, on a connection that stays open.
    let body = head.split("content-length: ").last().unwrap();
    let (len, _) = body.split_once("\r\n").unwrap();
    let mut body = vec![0; len.parse().unwrap()];
    slow.read_exact(&mut body).await.unwrap();
    let second = until_accepted(address).await;
    let (_, head) = start(address).await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    // Never taken.
    drop(second);
    drop(until_accepted(address).await);
    serving.abort();
}
