//! What a relay is for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_inference::{Digest, Dtype, FailureKind, NamedTensor, Shape, Tensor};
use tidegate_wire::{ControlMessage, code};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent::{Agent, Offer, floats, refused, request, soon, write};
use crate::fixture::{certificates, relay, relu_module, slow_input, slow_module, tensor};

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_fetched_once_and_its_requests_are_answered() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let relu = Offer::honest("relu", &relu_module());
    let offers = std::slice::from_ref(&relu);
    let mut first = Agent::connect(relay.local_addr(), &certificates, offers).await;
    let mut second = Agent::connect(relay.local_addr(), &certificates, offers).await;
    first.module_ready(relu.digest()).await;
    second.module_ready(relu.digest()).await;
    let third = Agent::connect(relay.local_addr(), &certificates, offers).await;
    assert_eq!(third.hello, std::slice::from_ref(&relu.offer));
    let asked = [&first, &second, &third].map(|agent| agent.asked.load(Ordering::SeqCst));
    assert_eq!(asked.iter().sum::<usize>(), 1, "{asked:?}");

    for agent in [&first, &second, &third] {
        let reply = agent
            .infer(relu.digest(), vec![tensor(&[3], &[1.5, -2.0, 0.0])])
            .await;
        assert_eq!(reply.load.slots, 1);
        let answer = reply.result.unwrap();
        assert_eq!(floats(&answer), [1.5, 0.0, 0.0]);
        assert!(answer.service > Duration::ZERO);
    }
    // Many packets each way, none of them whole.
    let large: Vec<f32> = (0_u16..50_000)
        .map(|index| f32::from(index) - 7.0)
        .collect();
    let reply = first
        .infer(relu.digest(), vec![tensor(&[large.len()], &large)])
        .await;
    let expected: Vec<f32> = large.iter().map(|value| value.max(0.0)).collect();
    assert_eq!(floats(&reply.result.unwrap()), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_fit_is_refused_with_the_reason() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let relu = Offer::honest("relu", &relu_module());
    let offers = std::slice::from_ref(&relu);
    let mut agent = Agent::connect(relay.local_addr(), &certificates, offers).await;
    agent.module_ready(relu.digest()).await;
    let good = request(relu.digest(), vec![tensor(&[1], &[1.0])]);

    let mut unknown = good.clone();
    unknown.module = Digest([7; 32]);
    let reply = agent.exchange(&unknown).await;
    refused(
        &reply,
        FailureKind::NotFound,
        &["sha256:0707", "not offered"],
    );

    let mut other = good.clone();
    other.outputs = vec!["z".to_owned()];
    refused(
        &agent.exchange(&other).await,
        FailureKind::Invalid,
        &["relu", "\"z\""],
    );

    let mut integers = good.clone();
    integers.inputs = vec![NamedTensor {
        name: "x".to_owned(),
        tensor: Tensor::new(Dtype::Int32, Shape::from_slice(&[1]), vec![0; 4].into()).unwrap(),
    }];
    refused(
        &agent.exchange(&integers).await,
        FailureKind::Invalid,
        &["FP32", "INT32"],
    );

    let mut late = good.clone();
    late.time_left = Duration::ZERO;
    refused(
        &agent.exchange(&late).await,
        FailureKind::DeadlineExceeded,
        &[],
    );

    let mut named = good;
    named.outputs = vec!["y".to_owned()];
    assert_eq!(floats(&agent.exchange(&named).await.result.unwrap()), [1.0]);
}

/// How an agent takes a request back.
enum TakeBack {
    Stop,
    Close,
}

async fn check_taken_back(how: TakeBack) {
    let certificates = certificates();
    let relay = relay(&certificates, "queue-len-max = 1").await;
    let relu = Offer::honest("relu", &relu_module());
    let slow = Offer::honest("slow", &slow_module());
    let offers = [relu.clone(), slow.clone()];
    let mut watcher = Agent::connect(relay.local_addr(), &certificates, &offers).await;
    watcher.module_ready(relu.digest()).await;
    watcher.module_ready(slow.digest()).await;

    let agent = Agent::connect(relay.local_addr(), &certificates, &offers).await;
    let mut running = soon(agent.connection.open_bi()).await.unwrap();
    write(&mut running.0, &request(slow.digest(), slow_input())).await;
    running.0.finish().unwrap();
    watcher
        .hear_load(|load| load.busy == 1 && load.queued == 0)
        .await;
    let mut waiting = soon(agent.connection.open_bi()).await.unwrap();
    write(&mut waiting.0, &request(slow.digest(), slow_input())).await;
    waiting.0.finish().unwrap();
    let full = watcher.hear_load(|load| load.queued == 1).await;
    assert_eq!((full.slots, full.busy), (1, 1));
    let reply = watcher
        .infer(relu.digest(), vec![tensor(&[1], &[1.0])])
        .await;
    refused(&reply, FailureKind::Overloaded, &["queue"]);

    match how {
        TakeBack::Stop => {
            running.1.stop(code::CANCELLED.into()).unwrap();
            waiting.1.stop(code::CANCELLED.into()).unwrap();
        }
        TakeBack::Close => agent.connection.close(code::NONE.into(), b"gone"),
    }
    watcher
        .hear_load(|load| load.busy == 0 && load.queued == 0)
        .await;
    // The slow run would have held the only slot for longer than this request waits.
    let mut quick = request(relu.digest(), vec![tensor(&[1], &[1.0])]);
    quick.time_left = Duration::from_secs(5);
    assert_eq!(
        floats(&watcher.exchange(&quick).await.result.unwrap()),
        [1.0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_reply_drops_the_queued_and_the_running_job() {
    check_taken_back(TakeBack::Stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_connection_drops_the_queued_and_the_running_job() {
    check_taken_back(TakeBack::Close).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reservations_are_reported_to_every_agent_until_their_own_is_gone() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let mut first = Agent::connect(relay.local_addr(), &certificates, &[]).await;
    let mut second = Agent::connect(relay.local_addr(), &certificates, &[]).await;
    for (agent, slots) in [(&mut first, 1.5), (&mut second, 2.0)] {
        let message = ControlMessage::Reservation {
            slots,
            horizon: Duration::from_secs(60),
            probability: 0.9,
        };
        agent
            .control
            .write_all(&message.encode().unwrap())
            .await
            .unwrap();
    }
    first.hear_load(|load| load.reserved == 3.5).await;
    second.connection.close(code::NONE.into(), b"");
    first.hear_load(|load| load.reserved == 1.5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_slots_as_the_protocol_can_say_count_as_what_one_agent_may_mean() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let mut agent = Agent::connect(relay.local_addr(), &certificates, &[]).await;
    for (slots, counted) in [(1e6, 4096.0), (2.5, 2.5)] {
        let message = ControlMessage::Reservation {
            slots,
            horizon: Duration::from_secs(60),
            probability: 0.9,
        };
        let message = message.encode().unwrap();
        agent.control.write_all(&message).await.unwrap();
        agent.hear_load(|load| load.reserved == counted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_module_is_ready_at_once_and_the_metrics_count_its_requests() {
    let certificates = certificates();
    std::fs::write(certificates.path().join("relu.wasm"), relu_module()).unwrap();
    let extra = "modules = [\"relu.wasm\"]\nmetrics-listen = \"127.0.0.1:0\"";
    let relay = relay(&certificates, extra).await;
    let relu = Offer::honest("relu", &relu_module());
    let offers = std::slice::from_ref(&relu);
    let agent = Agent::connect(relay.local_addr(), &certificates, offers).await;
    assert_eq!(agent.hello, std::slice::from_ref(&relu.offer));
    let reply = agent.infer(relu.digest(), vec![tensor(&[1], &[1.0])]).await;
    assert_eq!(floats(&reply.result.unwrap()), [1.0]);
    refused(
        &agent.infer(relu.digest(), vec![]).await,
        FailureKind::Invalid,
        &["missing"],
    );
    assert_eq!(agent.asked.load(Ordering::SeqCst), 0);

    let get = async |path: &str| {
        let to = relay.metrics_addr().unwrap();
        let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: relay\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        soon(stream.read_to_string(&mut response)).await.unwrap();
        response
    };
    let page = get("/metrics").await;
    for line in [
        "HTTP/1.1 200 OK",
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8",
        "tidegate_relay_requests_total{outcome=\"ok\"} 1",
        "tidegate_relay_requests_total{outcome=\"invalid\"} 1",
        "tidegate_relay_in_flight 0",
        "tidegate_relay_slots 1",
        "tidegate_relay_reserved_slots 0.0",
        "tidegate_relay_connections 1",
        "# EOF",
    ] {
        assert!(
            page.lines().any(|got| got == line),
            "{line:?} not in\n{page}"
        );
    }
    assert!(get("/").await.starts_with("HTTP/1.1 404"));
}
