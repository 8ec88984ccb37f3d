//! Bursting against a real relay on loopback, and over a path that goes dead.

mod site;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_cloud_relay::StartError;
use tidegate_identity::make_dev_certs;
use tidegate_inference::{Failure, FailureKind, Priority};
use tokio::sync::mpsc;

use self::site::{ANY_PORT, SOON, Site, identity, input, metrics, path, served, soon};
use super::{Burst, BurstConfig, BurstError, RelayEvent};
use crate::models::Pin;

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_relay_gets_the_module_and_runs_requests_until_it_is_taken_off_the_list() {
    let mut site = Site::new();
    let relay = site.relay(ANY_PORT, "name = \"cloud-1\"").await;
    site.list(&[relay.local_addr()]);
    let id = site.ready().await;
    assert_eq!(site.burst.relay_name(id).as_deref(), Some("cloud-1"));

    let reply = site.infer(id, &[-1.0, 2.5]).await.unwrap();
    assert_eq!(
        &reply.answer.outputs[0].tensor.data()[..],
        [0, 0, 0, 0, 0, 0, 0x20, 0x40]
    );
    assert!(reply.bytes > 2 * 8, "{}", reply.bytes);
    assert!(reply.sojourn >= reply.answer.service);
    let large: Vec<f32> = vec![1.0; 300_000];
    let reply = site.infer(id, &large).await.unwrap();
    assert_eq!(
        reply.answer.outputs[0].tensor.data(),
        input(&large)[0].tensor.data()
    );

    // What the relay refuses is told with its reason, and is not worth another try.
    let refused = soon(site.burst.infer(
        id,
        &site.served,
        Pin::Any,
        Vec::new(),
        Vec::new(),
        Priority::Normal,
        Instant::now() + SOON,
    ));
    let refused = refused.await.unwrap_err();
    assert!(!refused.is_worth_retrying());
    assert_eq!(Failure::from(refused).kind, FailureKind::Invalid);

    site.list(&[]);
    site.gone(id).await;
    let unknown = site.infer(id, &[1.0]).await.unwrap_err();
    assert!(matches!(unknown, BurstError::Unknown { .. }) && unknown.is_worth_retrying());
    assert_eq!(site.burst.relay_name(id), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_has_its_link_before_that_of_the_old_one_goes() {
    let mut site = Site::new();
    let relay = site.relay(ANY_PORT, "").await;
    site.list(&[relay.local_addr()]);
    let old = site.ready().await;
    let next = served("1.0.1");
    site.burst.offer(vec![Arc::clone(&next)]).unwrap();
    let mut new = None;
    loop {
        match site.event().await {
            RelayEvent::ModelReady { relay, .. } => new = Some(relay),
            RelayEvent::Gone { relay } => {
                assert_eq!(relay, old);
                break;
            }
            RelayEvent::Report { .. } => {}
        }
    }
    let new = new.expect("the new link is ready before the old one goes");
    let reply = site.infer(new, &[2.0]).await.unwrap();
    assert_eq!(reply.served.digest(), next.digest());
    // The old version is not to be had by name any more.
    let pinned = site.burst.infer(
        new,
        &site.served,
        Pin::This,
        input(&[1.0]),
        Vec::new(),
        Priority::Normal,
        Instant::now() + SOON,
    );
    let pinned = soon(pinned).await.unwrap_err();
    assert!(matches!(pinned, BurstError::NotOffered { .. }) && pinned.is_worth_retrying());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_back_is_found_again_under_another_number() {
    let mut site = Site::new();
    let relay = site.relay(ANY_PORT, "").await;
    let address = relay.local_addr();
    site.list(&[address]);
    let first = site.ready().await;
    // Without a name of its own a relay is called by its address.
    assert_eq!(site.burst.relay_name(first), Some(address.to_string()));
    relay.shutdown(SOON).await;
    site.gone(first).await;
    let config = site.config(address, "");
    let _again = soon(async {
        loop {
            // The port is free once the first relay's socket is dropped, which nothing tells.
            match tidegate_cloud_relay::start(config.clone()).await {
                Ok(relay) => break relay,
                Err(StartError::Bind { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await;
    let second = site.ready().await;
    assert_ne!(first, second);
    site.infer(second, &[1.0]).await.unwrap();
    soon(site.burst.shutdown(SOON)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_reaches_the_relay_and_a_shutdown_takes_it_back() {
    let mut site = Site::new();
    let relay = site
        .relay(ANY_PORT, "metrics-listen = \"127.0.0.1:0\"")
        .await;
    site.list(&[relay.local_addr()]);
    let id = site.ready().await;
    let reserved = async |line: &str| {
        soon(async {
            while !metrics(&relay).await.lines().any(|got| got == line) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    site.burst
        .reserve(&[(id, 2.5)], Duration::from_secs(10), 0.9);
    reserved("tidegate_relay_reserved_slots 2.5").await;
    site.burst.reserve(&[], Duration::from_secs(10), 0.9);
    reserved("tidegate_relay_reserved_slots 0.0").await;
    site.burst
        .reserve(&[(id, f64::NAN)], Duration::MAX, f64::NAN);
    site.burst
        .reserve(&[(id, 1.0)], Duration::from_secs(10), 0.9);
    reserved("tidegate_relay_reserved_slots 1.0").await;
    soon(site.burst.shutdown(SOON)).await;
    reserved("tidegate_relay_reserved_slots 0.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_on_a_path_that_goes_dead_fail_long_before_their_deadline() {
    let mut site = Site::new();
    let relay = site.relay(ANY_PORT, "").await;
    let dead = Arc::new(AtomicBool::new(false));
    site.list(&[path(relay.local_addr(), Arc::clone(&dead)).await]);
    let id = site.ready().await;
    site.infer(id, &[1.0]).await.unwrap();

    dead.store(true, Ordering::SeqCst);
    let lost = site.infer(id, &[1.0]).await.unwrap_err();
    assert!(
        matches!(lost, BurstError::Lost { .. }) && lost.is_worth_retrying(),
        "{lost}"
    );
    assert_eq!(Failure::from(lost).kind, FailureKind::Unavailable);
    site.gone(id).await;

    dead.store(false, Ordering::SeqCst);
    let again = site.ready().await;
    site.infer(again, &[1.0]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_holds_on_a_path_that_goes_dead() {
    let mut site = Site::new();
    let relay = site.relay(ANY_PORT, "").await;
    let dead = Arc::new(AtomicBool::new(false));
    site.list(&[path(relay.local_addr(), Arc::clone(&dead)).await]);
    let id = site.ready().await;
    dead.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_millis(50);
    let (served, inputs) = (&site.served, input(&[1.0]));
    let infer = site.burst.infer(
        id,
        served,
        Pin::Any,
        inputs,
        Vec::new(),
        Priority::Normal,
        deadline,
    );
    let late = soon(infer).await.unwrap_err();
    assert!(
        matches!(late, BurstError::Deadline { .. }) && !late.is_worth_retrying(),
        "{late}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_request_takes_it_back_from_the_relay() {
    let mut site = Site::new();
    let relay = site
        .relay(ANY_PORT, "metrics-listen = \"127.0.0.1:0\"")
        .await;
    let dead = Arc::new(AtomicBool::new(false));
    site.list(&[path(relay.local_addr(), Arc::clone(&dead)).await]);
    let id = site.ready().await;
    // Nothing of the request arrives before it is dropped, so it cannot be answered first.
    dead.store(true, Ordering::SeqCst);
    tokio::select! {
        biased;
        reply = site.infer(id, &[1.0]) => panic!("{reply:?}"),
        () = tokio::task::yield_now() => {}
    }
    dead.store(false, Ordering::SeqCst);
    let cancelled = "tidegate_relay_requests_total{outcome=\"cancelled\"} 1";
    soon(async {
        while !metrics(&relay).await.lines().any(|line| line == cancelled) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    site.infer(id, &[1.0]).await.unwrap();
}

#[tokio::test]
async fn what_cannot_work_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    make_dev_certs(folder.path()).unwrap();
    let good = BurstConfig {
        relays: vec!["localhost:4433".parse().unwrap()],
        relays_file: None,
        identity: identity(folder.path()),
        name: "test".to_owned(),
    };
    let start = |config: BurstConfig| Burst::start(config, Vec::new(), mpsc::channel(1).0);
    assert!(start(good.clone()).is_ok());
    let mut name = good.clone();
    name.name = "n".repeat(129);
    assert!(start(name).is_err());
    let mut key = good;
    key.identity.key = folder.path().join("none.key");
    assert!(start(key).is_err());
}
