//! Clients that send half of what they should, or far too much of it.

use std::time::Duration;

use tidegate_tests::models::{doubled, doubler_request};
use tidegate_tests::site::{Agent, Site};
use tidegate_tests::wait::within_patience;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What an agent may have resident, whatever is sent to it: the engine's pool and the model take a
/// tenth of it, the limits on bodies another.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;

/// Connections of one hostile client: within the agent's limit, so that others still get in.
const CONNECTIONS: usize = 200;

fn agent(site: &Site, config: &str) -> Agent {
    site.pack_doubler();
    site.agent(&format!("modules = ['doubler.wasm']\n{config}"))
}

async fn connect(agent: &Agent) -> TcpStream {
    TcpStream::connect(agent.daemon.address()).await.unwrap()
}

/// The agent still serves, and has not grown.
async fn serves(agent: &Agent) {
    let answer = agent
        .http
        .infer("doubler", &doubler_request())
        .await
        .unwrap();
    assert_eq!(answer.outputs(), doubled());
    let resident = agent.daemon.peak_resident_bytes();
    assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes");
}

#[tokio::test]
async fn heads_and_bodies_that_stop_half_way_cost_little() {
    let site = Site::new();
    let agent = agent(&site, "");
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = connect(&agent).await;
        let start: &[u8] = match number % 4 {
            0 => b"",
            1 => b"POST /v2/models/doubler/infer HTTP/1.1\r\nhost: x\r\nx-slow: ",
            2 => b"POST /v2/models/doubler/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 60000000\r\n\r\n{",
            _ => b"POST /v2/models/doubler/infer HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{",
        };
        stream.write_all(start).await.unwrap();
        open.push(stream);
    }
    serves(&agent).await;
    drop(open);
    serves(&agent).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_408() {
    let site = Site::new();
    let agent = agent(&site, "body-wait-s = 1\n");
    let mut stream = connect(&agent).await;
    let head = b"POST /v2/models/doubler/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    within_patience("an answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("{\"error\":"), "{answer}");
    serves(&agent).await;
}

#[tokio::test]
async fn what_is_not_http_is_turned_away() {
    let site = Site::new();
    let agent = agent(&site, "");
    let long_head = [&b"GET / HTTP/1.1\r\nx: "[..], &[b'a'; 1 << 20]].concat();
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not TLS here"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\ncontent-length: 6\r\n\r\n",
        &[0; 4096],
        &long_head,
    ] {
        let mut stream = connect(&agent).await;
        // The agent may close before all of it is written or its answer is read: both are refusals.
        let _ = stream.write_all(garbage).await;
        let mut answer = Vec::new();
        let _ = within_patience("the end", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    serves(&agent).await;
}

#[tokio::test]
async fn many_large_bodies_at_once_are_bounded_together() {
    let site = Site::new();
    let limits = "request-bytes-max = 16777216\nheld-bytes-max = 134217728\n";
    let agent = agent(&site, limits);
    let mut open = Vec::new();
    let chunk = vec![b' '; 1 << 20];
    for _ in 0..40 {
        let mut stream = connect(&agent).await;
        let head = b"POST /v2/models/doubler/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 16777216\r\n\r\n";
        stream.write_all(head).await.unwrap();
        // 15 MiB of 16: the rest never comes. A connection refused for want of memory may close.
        for _ in 0..15 {
            let written = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&chunk));
            if !matches!(written.await, Ok(Ok(()))) {
                break;
            }
        }
        open.push(stream);
    }
    let resident = agent.daemon.peak_resident_bytes();
    assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes");
    drop(open);
    tidegate_tests::wait::eventually("memory given back", async || {
        let answer = agent
            .http
            .infer("doubler", &doubler_request())
            .await
            .unwrap();
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let site = Site::new();
    let agent = agent(&site, "connections-max = 8\n");
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(connect(&agent).await);
    }
    let http = agent.http.clone();
    let waiting = tokio::spawn(async move { http.infer("doubler", &doubler_request()).await });
    // Whoever has a place is served again and again, and the newcomer all the while is not.
    for _ in 0..50 {
        let stream = &mut open[0];
        stream
            .write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"{\"live\":true}") {
            let byte = within_patience("an answer", stream.read_u8())
                .await
                .unwrap();
            answer.push(byte);
        }
    }
    assert!(!waiting.is_finished());
    drop(open);
    let answer = within_patience("a place", waiting).await.unwrap().unwrap();
    assert_eq!(answer.outputs(), doubled());
}
