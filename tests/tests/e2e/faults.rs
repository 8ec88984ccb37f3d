//! Relays that die or stop in the middle of a burst.

use std::time::Duration;

use rustix::process::Signal;
use tidegate_tests::load::{Offered, Ran, offer, turn};
use tidegate_tests::metrics::Page;
use tidegate_tests::models::echo_request;
use tidegate_tests::site::{Agent, Site};
use tidegate_tests::wait::{eventually, within_patience};
use tokio::task::JoinHandle;

use crate::burst::{agent, all_connected};

/// Requests of one burst: 6 s of load, and the fault somewhere in it.
const COUNT: usize = 200;

/// A third more than one slot can answer; two slots carry it.
const EVERY: Duration = Duration::from_millis(30);

/// Starts the load and waits until a relay works on some of it.
async fn burst(agent: &Agent) -> JoinHandle<Vec<Offered>> {
    let load = tokio::spawn(offer(agent.http.clone(), "echo", COUNT, EVERY));
    eventually("a request in flight to a relay", async || {
        let page = Page::fetch(&agent.http).await.unwrap();
        page.sum("tidegate_burst_in_flight", &[])
            .filter(|sent| *sent >= 1.0)
    })
    .await;
    load
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_one_of_two_relays_is_killed() {
    let _turn = turn().await;
    let site = Site::new();
    let mut dies = site.relay("relay-dies", "slots = 1\n");
    let stays = site.relay("relay-stays", "slots = 1\n");
    let agent = agent(&site, &[&dies, &stays]);
    all_connected(&agent, &[&dies, &stays]).await;
    let load = burst(&agent).await;
    dies.daemon.kill();
    let offered = within_patience("the burst", load).await.unwrap();
    assert_eq!(offered.len(), COUNT);
    let refused: Vec<_> = offered
        .iter()
        .filter(|offered| offered.ran().is_none())
        .collect();
    assert!(refused.is_empty(), "the other relay had room: {refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_answered_or_refused_when_all_relays_are_killed() {
    let _turn = turn().await;
    let site = Site::new();
    let mut relays = [
        site.relay("relay-a", "slots = 1\n"),
        site.relay("relay-b", "slots = 1\n"),
    ];
    let agent = agent(&site, &relays.each_ref());
    all_connected(&agent, &relays.each_ref()).await;
    let load = burst(&agent).await;
    for relay in &mut relays {
        relay.daemon.kill();
    }
    let offered = within_patience("the burst", load).await.unwrap();
    assert_eq!(offered.len(), COUNT);
    let served = offered
        .iter()
        .filter(|offered| offered.ran().is_some())
        .count();
    assert!(
        served >= COUNT / 2,
        "one slot carries three quarters: {served} of {COUNT}"
    );
    // The deadline of each is 4 s; an answer after it, refusals included, would be a hang.
    for offered in &offered {
        assert!(offered.took < Duration::from_secs(8), "{offered:?}");
    }
    let answer = agent
        .http
        .infer("echo", &echo_request("after", 5))
        .await
        .unwrap();
    assert_eq!(answer.json()["parameters"]["tidegate_placement"], "local");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_told_to_stop_finishes_its_work_and_exits_0() {
    let _turn = turn().await;
    let site = Site::new();
    let mut stops = site.relay("relay-stops", "slots = 1\n");
    let agent = agent(&site, &[&stops]);
    all_connected(&agent, &[&stops]).await;
    let load = burst(&agent).await;
    stops.daemon.signal(Signal::TERM);
    assert_eq!(stops.daemon.ended().await.code(), Some(0));
    let offered = within_patience("the burst", load).await.unwrap();
    let ran: Vec<_> = offered.iter().filter_map(Offered::ran).collect();
    assert!(
        ran.iter().any(|ran| matches!(ran, Ran::Relay(_))),
        "it took part before it stopped"
    );
    for offered in &offered {
        assert!(offered.took < Duration::from_secs(8), "{offered:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_comes_back_is_used_again() {
    let _turn = turn().await;
    let site = Site::new();
    let first = site.relay("relay-first", "slots = 1\n");
    let address = first.daemon.address();
    let agent = agent(&site, &[&first]);
    all_connected(&agent, &[&first]).await;
    drop(first);
    eventually("the relay missed", async || {
        let page = Page::fetch(&agent.http).await.unwrap();
        page.sum("tidegate_relays_connected", &[])
            .filter(|connected| *connected == 0.0)
    })
    .await;
    let text = format!(
        "name = 'relay-second'\nlisten = '{address}'\nslots = 1\n\
         certificate = 'certs/relay.pem'\nkey = 'certs/relay.key'\nca = 'certs/ca.pem'\n"
    );
    let second = site.daemon(&["relay"], &text).unwrap();
    eventually("the relay found", async || {
        let page = Page::fetch(&agent.http).await.unwrap();
        page.sum("tidegate_relays_connected", &[])
            .filter(|connected| *connected == 1.0)
    })
    .await;
    drop(second);
}
