//! A relay that stops answers what it has begun, within its grace.

use std::time::Duration;

use tidegate_inference::FailureKind;
use tidegate_wire::{ControlMessage, code};

use crate::agent::{Agent, Offer, endpoint, floats, read_reply, request, soon, write};
use crate::fixture::{certificates, relay, relu_module, slow_input, slow_module, tensor};

fn go_away(message: &ControlMessage) -> Option<()> {
    matches!(message, ControlMessage::GoAway { .. }).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_is_answered_and_nothing_new_is_let_in() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let to = relay.local_addr();
    let relu = Offer::honest("relu", &relu_module());
    let slow = Offer::honest("slow", &slow_module());
    let mut agent = Agent::connect(to, &certificates, &[relu.clone(), slow.clone()]).await;
    agent.module_ready(relu.digest()).await;
    agent.module_ready(slow.digest()).await;

    // It is answered when its deadline passes, which is well after the relay was asked to stop.
    let mut long = request(slow.digest(), slow_input());
    long.time_left = Duration::from_secs(3);
    let (mut send, mut recv) = soon(agent.connection.open_bi()).await.unwrap();
    write(&mut send, &long).await;
    send.finish().unwrap();
    agent.hear_load(|load| load.busy == 1).await;

    let stopping = tokio::spawn(relay.shutdown(Duration::from_secs(30)));
    agent.hear_load(|load| load.draining).await;
    agent.hear(go_away).await;
    let latecomer = endpoint(&certificates);
    assert!(
        soon(latecomer.connect(to, "localhost").unwrap())
            .await
            .is_err()
    );
    // A request that crossed the relay's word on its way is still taken.
    let crossing = agent.infer(relu.digest(), vec![tensor(&[1], &[3.0])]);
    let (reply, crossed) = tokio::join!(soon(read_reply(&mut recv)), crossing);
    assert_eq!(
        reply.result.unwrap_err().kind,
        FailureKind::DeadlineExceeded
    );
    assert_eq!(floats(&crossed.result.unwrap()), [3.0]);
    assert_eq!(agent.closed().await.0, u64::from(code::GOING_AWAY));
    soon(stopping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_bounds_the_drain() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let slow = Offer::honest("slow", &slow_module());
    let offers = std::slice::from_ref(&slow);
    let mut agent = Agent::connect(relay.local_addr(), &certificates, offers).await;
    agent.module_ready(slow.digest()).await;
    let (mut send, mut recv) = soon(agent.connection.open_bi()).await.unwrap();
    write(&mut send, &request(slow.digest(), slow_input())).await;
    send.finish().unwrap();
    agent.hear_load(|load| load.busy == 1).await;

    soon(relay.shutdown(Duration::from_millis(100))).await;
    assert!(recv.read_to_end(1).await.is_err());
    assert_eq!(agent.closed().await.0, u64::from(code::GOING_AWAY));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_relay_stops_when_its_agents_leave() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let mut agent = Agent::connect(relay.local_addr(), &certificates, &[]).await;
    let stopping = tokio::spawn(relay.shutdown(Duration::from_secs(600)));
    agent.hear(go_away).await;
    agent.connection.close(code::NONE.into(), b"");
    soon(stopping).await.unwrap();
}
