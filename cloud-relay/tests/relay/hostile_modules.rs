//! Modules that are not what their agents say.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tidegate_inference::{FailureKind, NamedTensor};
use tidegate_wire::{ReplyMessage, code};

use crate::agent::{Agent, Offer, Pace, check_neighbour, floats, refused, soon};
use crate::fixture::{bomb_module, certificates, relay, relu_module, relu_module_named, tensor};

/// The key of somebody who signed nothing.
const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINi16k8/brA7pxptpb2BXh2aBSPSGq+4rF7blHPNjMWT";

fn input() -> Vec<NamedTensor> {
    vec![tensor(&[1], &[1.0])]
}

/// What requests for the module are told once the relay has given it up, and how often it asked. An
/// honest agent of another module that connects meanwhile is served.
async fn given_up(offer: Offer, extra: &str) -> (ReplyMessage, usize) {
    let certificates = certificates();
    let relay = relay(&certificates, extra).await;
    let agent = Agent::connect(
        relay.local_addr(),
        &certificates,
        std::slice::from_ref(&offer),
    )
    .await;
    check_neighbour(relay.local_addr(), &certificates).await;
    let reply = soon(async {
        loop {
            let reply = agent.infer(offer.digest(), input()).await;
            let failure = reply.result.as_ref().unwrap_err();
            if !failure.message.contains("not ready yet") {
                break reply;
            }
            assert_eq!(failure.kind, FailureKind::Unavailable);
            assert!(failure.retry_after.is_some());
        }
    })
    .await;
    (reply, agent.asked.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_match_the_digest_are_not_loaded() {
    let mut offer = Offer::honest("lie", &relu_module_named("lie"));
    let mut other = offer.bytes.to_vec();
    *other.last_mut().unwrap() ^= 1;
    offer.bytes = other.into();
    let (reply, asked) = given_up(offer, "").await;
    refused(
        &reply,
        FailureKind::Unavailable,
        &["cannot run this model", "have digest sha256:"],
    );
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_the_relay_itself_does_not_trust_is_not_run() {
    let offer = Offer::honest("lie", &relu_module_named("lie"));
    let extra = format!(
        "[trust]\nallow-unsigned = true\n[[trust.rules]]\nnames = [\"lie\"]\nkeys = [\"{KEY}\"]\n"
    );
    let (reply, asked) = given_up(offer, &extra).await;
    refused(
        &reply,
        FailureKind::Unavailable,
        &["cannot run this model", "not trusted by rule 1"],
    );
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_module_are_not_run() {
    let offer = Offer::honest("relu", &Bytes::from_static(b"\0asm, but no more of it"));
    let (reply, asked) = given_up(offer, "").await;
    refused(
        &reply,
        FailureKind::Unavailable,
        &["cannot run this model", "not a model module"],
    );
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_that_decodes_to_more_than_memory_takes_nobody_down() {
    let offer = Offer::honest("bomb", &bomb_module());
    let (reply, asked) = given_up(offer, "graph-memory-max = 268435456").await;
    refused(
        &reply,
        FailureKind::Unavailable,
        &[
            "cannot run this model",
            "graph preparation was killed: it wanted more than 268435456 bytes",
        ],
    );
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_over_the_limit_is_not_asked_for() {
    let mut offer = Offer::honest("lie", &relu_module_named("lie"));
    offer.offer.len = 1 << 30;
    offer.offer.digest = tidegate_inference::Digest([9; 32]);
    let (reply, asked) = given_up(offer, "module-bytes-max = 65536").await;
    refused(
        &reply,
        FailureKind::Unavailable,
        &["1073741824 bytes", "65536"],
    );
    assert_eq!(asked, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_of_another_length_than_offered_is_given_up_after_three_tries() {
    let honest = Offer::honest("lie", &relu_module_named("lie"));
    let check = async |change: &dyn Fn(&mut Offer), part: &str| {
        let mut offer = honest.clone();
        change(&mut offer);
        let (reply, asked) = given_up(offer, "").await;
        refused(&reply, FailureKind::Unavailable, &[part]);
        assert_eq!(asked, 3, "{part}");
    };
    let short = |offer: &mut Offer| offer.bytes.truncate(offer.bytes.len() - 5);
    check(&short, "5 bytes early").await;
    let long = |offer: &mut Offer| {
        offer.bytes = [&offer.bytes[..], &[0; 1_000_000]].concat().into();
    };
    check(&long, "more than the announced").await;
    check(&|offer: &mut Offer| offer.announced += 1, "something else").await;
    check(&|offer: &mut Offer| offer.announced = 0, "no longer has it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_is_bounded_and_modules_in_use_stay() {
    let certificates = certificates();
    let relu = Offer::honest("relu", &relu_module());
    // Room for one module and a half.
    let len = relu.offer.len;
    let extra = format!(
        "module-bytes-max = {len}\nstore-bytes-max = {}",
        len + len / 2
    );
    let relay = relay(&certificates, &extra).await;
    let to = relay.local_addr();
    let mut first = Agent::connect(to, &certificates, std::slice::from_ref(&relu)).await;
    first.module_ready(relu.digest()).await;

    // Another module of the same length.
    let other = Offer::honest("rely", &relu_module_named("rely"));
    assert_eq!(other.offer.len, len);
    let mut second = Agent::connect(to, &certificates, std::slice::from_ref(&other)).await;
    let reply = second.infer(other.digest(), input()).await;
    refused(&reply, FailureKind::Unavailable, &["not ready yet"]);
    let reply = first.infer(relu.digest(), input()).await;
    assert_eq!(floats(&reply.result.unwrap()), [1.0]);
    assert_eq!(second.asked.load(Ordering::SeqCst), 0);

    // With its last agent gone, the first makes room.
    drop(first);
    second.module_ready(other.digest()).await;
    let reply = second.infer(other.digest(), input()).await;
    assert_eq!(floats(&reply.result.unwrap()), [1.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_trickles_a_module_does_not_keep_it_from_the_others() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let honest = Offer::honest("shared", &relu_module_named("shared"));
    let mut slow = honest.clone();
    slow.pace = Pace::Trickle;
    let mut slow = Agent::connect(relay.local_addr(), &certificates, &[slow]).await;
    soon(async {
        while slow.asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let offers = std::slice::from_ref(&honest);
    let mut other = Agent::connect(relay.local_addr(), &certificates, offers).await;
    other.module_ready(honest.digest()).await;
    let reply = other.infer(honest.digest(), input()).await;
    assert_eq!(floats(&reply.result.unwrap()), [1.0]);
    assert_eq!(other.asked.load(Ordering::SeqCst), 1);
    let stopped = soon(slow.stopped.wait_for(Option::is_some)).await;
    assert_eq!(*stopped.unwrap(), Some(u64::from(code::TIMED_OUT)));
    slow.module_ready(honest.digest()).await;
}
