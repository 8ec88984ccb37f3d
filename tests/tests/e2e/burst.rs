//! An agent with one slot under more load than it carries, and relays that take the excess.
//!
//! The model echoes after a fixed time on the clock, so what one slot can answer is bounded by
//! arithmetic, whatever the machine: answers beyond that came from relays.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tidegate_tests::load::{Ran, offer, turn};
use tidegate_tests::metrics::Page;
use tidegate_tests::models::{Behaviour, echo_request};
use tidegate_tests::site::{Agent, Relay, Site};
use tidegate_tests::wait::eventually;
use tokio::time::Instant;

const SERVICE: Duration = Duration::from_millis(40);

/// Requests of one burst.
const COUNT: usize = 160;

/// Half as much again as one slot can answer.
const EVERY: Duration = Duration::from_millis(25);

/// An agent with one slot that knows `relays`, which lack its module.
pub(crate) fn agent(site: &Site, relays: &[&Relay]) -> Agent {
    site.must_pack_guest("echo", Behaviour::EchoAfter(SERVICE));
    let relays: Vec<_> = relays.iter().map(|relay| relay.daemon.address()).collect();
    let burst = site.burst(&relays, "");
    site.agent(&format!(
        "modules = ['echo.wasm']\nslots = 1\nslo-ms = 4000\n{burst}"
    ))
}

/// Waits until each relay has fetched the module and the agent knows them all.
pub(crate) async fn all_connected(agent: &Agent, relays: &[&Relay]) {
    let wanted = relays.len() as f64;
    eventually("every relay connected", async || {
        let page = Page::fetch(&agent.http).await.unwrap();
        page.sum("tidegate_relays_connected", &[])
            .filter(|connected| *connected == wanted)
    })
    .await;
    for relay in relays {
        eventually("the module on the relay", async || {
            let page = Page::fetch(&relay.metrics).await.ok()?;
            page.sum("tidegate_relay_store_bytes", &[])
                .filter(|bytes| *bytes > 0.0)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_take_the_excess_and_every_request_is_answered_once() {
    let _turn = turn().await;
    let site = Site::new();
    let relays = [
        site.relay("relay-a", "slots = 1\n"),
        site.relay("relay-b", "slots = 1\n"),
    ];
    let relays: Vec<_> = relays.iter().collect();
    let agent = agent(&site, &relays);
    all_connected(&agent, &relays).await;

    let started = Instant::now();
    let offered = offer(agent.http.clone(), "echo", COUNT, EVERY).await;
    let took = started.elapsed();
    assert_eq!(offered.len(), COUNT);
    let numbers: HashSet<_> = offered.iter().map(|offered| offered.number).collect();
    assert_eq!(numbers.len(), COUNT);
    let ran: Vec<_> = offered.iter().filter_map(|offered| offered.ran()).collect();
    let local = ran.iter().filter(|ran| **ran == Ran::Local).count();
    let names: HashSet<_> = ran.iter().filter(|ran| **ran != Ran::Local).collect();
    let slot_max = took.as_millis() / SERVICE.as_millis() + 1;
    assert!(
        local as u128 <= slot_max,
        "{local} answers of one slot in {took:?}"
    );
    assert!(
        !names.is_empty(),
        "no relay answered; {local} of {COUNT} ran here"
    );
    for name in &names {
        assert!(
            matches!(name, Ran::Relay(name) if name.starts_with("relay-")),
            "{name:?}"
        );
    }
    assert_eq!(
        ran.len(),
        COUNT,
        "three slots carry this load, none is refused"
    );

    let page = Page::fetch(&agent.http).await.unwrap();
    let count = |labels: &[&str]| page.sum("tidegate_requests_total", labels).unwrap_or(0.0);
    assert_eq!(count(&["outcome=\"ok\""]), COUNT as f64);
    assert_eq!(
        count(&["outcome=\"ok\"", "placement=\"local\""]),
        local as f64
    );
    let mut on_relays = 0.0;
    for relay in &relays {
        let page = Page::fetch(&relay.metrics).await.unwrap();
        let ok = page.sum("tidegate_relay_requests_total", &["outcome=\"ok\""]);
        on_relays += ok.unwrap_or(0.0);
    }
    // A request that is slow on one relay may run on another too; the caller sees one answer.
    assert!(
        on_relays >= (COUNT - local) as f64,
        "{on_relays} on relays, {local} here"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_relay_that_answers_the_agent_serves_alone() {
    let site = Site::new();
    site.must_pack_guest("echo", Behaviour::EchoAfter(Duration::ZERO));
    let nobody = tidegate_tests::site::free_port();
    let burst = site.burst(&[nobody], "");
    let agent = site.agent(&format!("modules = ['echo.wasm']\n{burst}"));
    for number in 0..10 {
        let request = echo_request(&number.to_string(), number);
        let answer = agent.http.infer("echo", &request).await.unwrap();
        assert_eq!(answer.outputs()[0]["data"], json!([number]));
        assert_eq!(answer.json()["parameters"]["tidegate_placement"], "local");
    }
}
