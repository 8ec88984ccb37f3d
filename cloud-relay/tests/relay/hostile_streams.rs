//! Requests that lie about themselves, stop halfway, or want too much.

use quinn::{ReadError, ReadToEndError};
use tidegate_inference::FailureKind;
use tidegate_wire::{PREFIX_BYTES, ReplyMessage, code};

use crate::agent::{
    Agent, Offer, bytes_of, check_neighbour, floats, read_reply, refused, request, soon,
};
use crate::fixture::{certificates, relay, relu_module, tensor};

/// The reply to `bytes` and the end of the stream. The same connection is served afterwards.
async fn answer(bytes: &[u8]) -> ReplyMessage {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let relu = Offer::honest("relu", &relu_module());
    let offers = std::slice::from_ref(&relu);
    let mut agent = Agent::connect(relay.local_addr(), &certificates, offers).await;
    agent.module_ready(relu.digest()).await;
    let (mut send, mut recv) = soon(agent.connection.open_bi()).await.unwrap();
    // The relay may refuse before it has read everything.
    let _ = send.write_all(bytes).await;
    let _ = send.finish();
    let reply = soon(read_reply(&mut recv)).await;
    let good = agent.infer(relu.digest(), vec![tensor(&[1], &[4.0])]).await;
    assert_eq!(floats(&good.result.unwrap()), [4.0]);
    reply
}

fn good() -> Vec<u8> {
    let relu = Offer::honest("relu", &relu_module());
    bytes_of(&request(relu.digest(), vec![tensor(&[2], &[1.0, 2.0])]))
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_request_are_refused() {
    let check = async |bytes: &[u8], parts: &[&str]| {
        refused(&answer(bytes).await, FailureKind::Invalid, parts);
    };
    check(&[0x5a; 100_000], &["magic"]).await;
    check(b"", &["early"]).await;
    check(b"TDG", &["7 bytes early"]).await;
    check(b"TDGT\x02\x01\0\0\0\x01x", &["version"]).await;
    check(b"TDGT\x01\x03\0\0\0\x01x", &["control message"]).await;
    check(b"TDGT\x01\x01\0\0\x10\x01x", &["4097", "limit"]).await;
    check(b"TDGT\x01\x01\0\0\x10\0x", &["4095 bytes early"]).await;
    check(
        &[&b"TDGT\x01\x01\0\0\0\x20"[..], &[0xff; 32]].concat(),
        &["message"],
    )
    .await;
    let good = good();
    // One byte of the header goes to the payload: the CBOR ends early.
    let mut lies = good.clone();
    lies[PREFIX_BYTES - 1] -= 1;
    check(&lies, &["message"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_of_another_length_than_announced_is_refused() {
    let good = good();
    let short = answer(&good[..good.len() - 3]).await;
    refused(&short, FailureKind::Invalid, &["3 bytes early"]);
    let long = answer(&[&good[..], b"x"].concat()).await;
    refused(
        &long,
        FailureKind::Invalid,
        &["more than the announced 8 bytes"],
    );
    let longer = answer(&[&good[..], &[0; 1_000_000]].concat()).await;
    refused(
        &longer,
        FailureKind::Invalid,
        &["more than the announced 8 bytes"],
    );
    floats(&answer(&good).await.result.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_stall_are_reset_and_hold_up_nobody_else() {
    let certificates = certificates();
    let relay = relay(&certificates, "requests-per-connection-max = 32").await;
    let relu = Offer::honest("relu", &relu_module());
    let offers = std::slice::from_ref(&relu);
    let mut agent = Agent::connect(relay.local_addr(), &certificates, offers).await;
    agent.module_ready(relu.digest()).await;
    let good = good();
    let mut stalled = Vec::new();
    for index in 0..32 {
        let (mut send, recv) = soon(agent.connection.open_bi()).await.unwrap();
        // Within the prefix, the header and the payload by turns.
        let sent = [3, PREFIX_BYTES + 5, good.len() - 1][index % 3];
        send.write_all(&good[..sent]).await.unwrap();
        stalled.push((send, recv));
    }
    check_neighbour(relay.local_addr(), &certificates).await;
    for (_send, mut recv) in stalled {
        let end = soon(recv.read_to_end(1)).await.unwrap_err();
        let reset = ReadError::Reset(code::TIMED_OUT.into());
        assert_eq!(end, ReadToEndError::Read(reset));
    }
    // Their streams are free again.
    let reply = agent.infer(relu.digest(), vec![tensor(&[1], &[1.0])]).await;
    assert_eq!(floats(&reply.result.unwrap()), [1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_cannot_take_the_room_of_the_others() {
    let certificates = certificates();
    // The least that may be configured: one connection holds at most 64 MiB of the 128.
    let relay = relay(
        &certificates,
        "held-bytes-max = 134217728\nstall-ms = 60000",
    )
    .await;
    let relu = Offer::honest("relu", &relu_module());
    let offers = std::slice::from_ref(&relu);
    let mut greedy = Agent::connect(relay.local_addr(), &certificates, offers).await;
    greedy.module_ready(relu.digest()).await;
    let large = bytes_of(&request(
        relu.digest(),
        vec![tensor(&[10 << 20], &vec![1.0; 10 << 20])],
    ));

    let mut first = soon(greedy.connection.open_bi()).await.unwrap();
    let mut second = soon(greedy.connection.open_bi()).await.unwrap();
    first.0.write_all(&large[..2048]).await.unwrap();
    second.0.write_all(&large[..2048]).await.unwrap();
    // The one that the relay reads second finds too little room, before its payload is sent.
    let reply = tokio::select! {
        reply = soon(read_reply(&mut first.1)) => reply,
        reply = soon(read_reply(&mut second.1)) => reply,
    };
    let failure = refused(&reply, FailureKind::Overloaded, &["bytes"]);
    assert!(failure.retry_after.is_some());
    check_neighbour(relay.local_addr(), &certificates).await;
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reads_no_reply_loses_the_stream_and_frees_the_slot() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let relu = Offer::honest("relu", &relu_module());
    let offers = std::slice::from_ref(&relu);
    let mut agent = Agent::connect(relay.local_addr(), &certificates, offers).await;
    agent.module_ready(relu.digest()).await;
    // More than the windows of the connection take without anybody reading.
    let message = bytes_of(&request(
        relu.digest(),
        vec![tensor(&[5 << 20], &vec![1.0; 5 << 20])],
    ));
    let (mut send, mut recv) = soon(agent.connection.open_bi()).await.unwrap();
    send.write_all(&message).await.unwrap();
    send.finish().unwrap();
    let reset = soon(recv.received_reset()).await.unwrap();
    assert_eq!(reset, Some(code::TIMED_OUT.into()));
    let reply = agent.infer(relu.digest(), vec![tensor(&[1], &[1.0])]).await;
    assert_eq!(floats(&reply.result.unwrap()), [1.0]);
    check_neighbour(relay.local_addr(), &certificates).await;
}
