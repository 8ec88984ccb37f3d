//! New versions come in under load, and bad ones go, without a failed request.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use tidegate_tests::load::{Load, Offered, Ran, turn};
use tidegate_tests::metrics::Page;
use tidegate_tests::models::{Behaviour, echo_request};
use tidegate_tests::site::{Agent, Site};
use tidegate_tests::wait::eventually;

/// Between two requests: 250 a second.
const EVERY: Duration = Duration::from_millis(4);

/// What a run of the versions takes that are as they should be.
const SERVICE: Behaviour = Behaviour::EchoAfter(Duration::from_millis(1));

/// A site with `echo.wasm`, version 1, and an agent that serves it and looks for others.
fn serving(rollout: &str) -> (Site, Agent) {
    let site = Site::new();
    site.must_pack_version("echo", "echo", "1.0.0", SERVICE);
    let agent = start(&site, rollout);
    (site, agent)
}

fn start(site: &Site, rollout: &str) -> Agent {
    site.agent(&format!(
        "modules = ['echo.wasm']\nslo-ms = 30000\nqueue-len-max = 4096\n[rollout]\npoll-s = 1\n{rollout}"
    ))
}

/// Waits until a rollout of the agent has turned so.
async fn turned(agent: &Agent, outcome: &str) {
    let label = format!("outcome=\"{outcome}\"");
    eventually(outcome, async || {
        let page = Page::fetch(&agent.http).await.unwrap();
        page.sum("tidegate_rollouts_total", &[&label])
    })
    .await;
}

/// The versions that the agent says it has.
async fn versions(agent: &Agent) -> serde_json::Value {
    let answer = agent.http.get("/v2/models/echo").await.unwrap();
    answer.json()["versions"].take()
}

/// How many requests each version answered. Every request must have been answered.
fn answered(offered: &[Offered]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in offered {
        *counts.entry(one.version()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_over_under_load_and_no_request_fails() {
    let _turn = turn().await;
    let (site, agent) = serving("canary-share = 0.2\ncanary-requests-min = 50\nwatch-s = 2\n");
    site.must_pack_version("next", "echo", "2.0.0", SERVICE);
    let load = Load::begin(&agent.http, "echo", EVERY);
    agent.answers(100.0, &[]).await;
    site.replace("echo.wasm", "next.wasm");
    turned(&agent, "promoted").await;
    // Both can still be named.
    assert_eq!(versions(&agent).await, json!(["2.0.0", "1.0.0"]));
    for version in ["1.0.0", "2.0.0"] {
        let path = format!("/v2/models/echo/versions/{version}/infer");
        let answer = agent.http.post(&path, echo_request("7", 7).to_string());
        assert_eq!(answer.await.unwrap().json()["model_version"], version);
    }
    turned(&agent, "settled").await;
    assert_eq!(versions(&agent).await, json!(["2.0.0"]));
    agent.answers(50.0, &[]).await;
    let offered = load.end().await;
    let counts = answered(&offered);
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["1.0.0", "2.0.0"]);
    assert_eq!(offered.last().unwrap().version(), "2.0.0");
    let page = Page::fetch(&agent.http).await.unwrap();
    let info = |version| page.sum("tidegate_model_version_info", &[version]);
    assert_eq!(info("version=\"2.0.0\""), Some(1.0));
    assert_eq!(info("version=\"1.0.0\""), None);
    assert!(page.sum("tidegate_module_poll_age_seconds", &[]).unwrap() < 30.0);
}

/// The bad version answers as rarely as it must, no caller notices, and it does not come back.
async fn goes_back(behaviour: Behaviour, cause: &str) {
    let _turn = turn().await;
    let rollout = "canary-s-max = 60\nwatch-s = 2\n";
    let (site, mut agent) = serving(rollout);
    site.must_pack_version("next", "echo", "2.0.0", behaviour);
    let load = Load::begin(&agent.http, "echo", EVERY);
    agent.answers(100.0, &[]).await;
    site.replace("echo.wasm", "next.wasm");
    turned(&agent, "rolled-back").await;
    // Two more looks at the file find the same version, and leave it.
    agent.looks(2).await;
    assert_eq!(versions(&agent).await, json!(["1.0.0"]));
    let offered = load.end().await;
    let counts = answered(&offered);
    assert!(counts["1.0.0"] > counts.get("2.0.0").copied().unwrap_or(0));
    assert_eq!(offered.last().unwrap().version(), "1.0.0");
    let page = Page::fetch(&agent.http).await.unwrap();
    let outcomes = |outcome| page.sum("tidegate_rollouts_total", &[outcome]);
    assert_eq!(outcomes("outcome=\"rolled-back\""), Some(1.0));
    assert_eq!(outcomes("outcome=\"promoted\""), None);
    let log = agent.daemon.log();
    let line = log.lines().find(|line| line.contains("is rolled back"));
    assert!(line.unwrap().contains(cause), "{line:?}");

    // Nor does it after a restart, although the file is still there.
    agent.daemon.kill();
    let agent = start(&site, rollout);
    assert_eq!(versions(&agent).await, json!(["1.0.0"]));
    assert!(agent.daemon.log().contains("rolled back before"));

    // A good one still comes in.
    site.must_pack_version("better", "echo", "3.0.0", SERVICE);
    site.replace("echo.wasm", "better.wasm");
    let load = Load::begin(&agent.http, "echo", EVERY);
    turned(&agent, "promoted").await;
    answered(&load.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_at_times_goes_back_and_callers_do_not_notice() {
    goes_back(Behaviour::TrapAtTimes, "failures").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_slower_goes_back() {
    goes_back(Behaviour::EchoAfter(Duration::from_millis(8)), "latency").await;
}

#[tokio::test]
async fn a_version_that_cannot_follow_is_refused_and_the_old_one_serves_on() {
    let (site, agent) = serving("");
    site.pack_doubler();
    let other = ["pack", "doubler.onnx", "-o", "other.wasm", "--name", "echo"];
    site.must_tidegate(&other);
    site.write("text.wasm", "not WebAssembly");
    let mut refused = 0.0;
    for (bad, reason) in [
        ("text", "not a WebAssembly component"),
        ("doubler", "named"),
        ("other", "its inputs differ"),
    ] {
        site.replace("echo.wasm", &format!("{bad}.wasm"));
        refused += 1.0;
        eventually(bad, async || {
            let page = Page::fetch(&agent.http).await.unwrap();
            let count = page.sum("tidegate_rollouts_total", &["outcome=\"refused\""]);
            count.filter(|count| *count == refused)
        })
        .await;
        assert!(agent.daemon.log().contains(reason), "{reason}");
        let answer = agent.http.infer("echo", &echo_request("1", 1)).await;
        assert_eq!(answer.unwrap().json()["model_version"], "1.0.0");
    }
    // Nor does what is no file at all end the watch.
    let pipe = std::process::Command::new("mkfifo")
        .arg(site.path("pipe.wasm"))
        .status();
    assert!(pipe.unwrap().success());
    std::fs::rename(site.path("pipe.wasm"), site.path("echo.wasm")).unwrap();
    eventually("the pipe", async || {
        let log = agent.daemon.log();
        log.contains("not a regular file").then_some(())
    })
    .await;
    let answer = agent.http.infer("echo", &echo_request("1", 1)).await;
    assert_eq!(answer.unwrap().json()["model_version"], "1.0.0");
    std::fs::remove_file(site.path("echo.wasm")).unwrap();
    site.must_pack_version("echo", "echo", "2.0.0", SERVICE);
    let two = "/v2/models/echo/versions/2.0.0";
    eventually("the canary", async || {
        let answer = agent.http.get(two).await.unwrap();
        answer.status.is_success().then_some(())
    })
    .await;
    assert_eq!(versions(&agent).await, json!(["1.0.0", "2.0.0"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_the_middle_of_a_rollout_finishes_what_is_under_way() {
    let _turn = turn().await;
    let (site, mut agent) = serving("canary-requests-min = 1000000\n");
    site.must_pack_version("next", "echo", "2.0.0", SERVICE);
    site.replace("echo.wasm", "next.wasm");
    eventually("the canary", async || {
        (versions(&agent).await == json!(["1.0.0", "2.0.0"])).then_some(())
    })
    .await;
    let offered = tidegate_tests::load::offer(agent.http.clone(), "echo", 200, EVERY);
    let offered = tokio::spawn(offered);
    agent.answers(80.0, &[]).await;
    agent.daemon.signal(Signal::TERM);
    assert_eq!(agent.daemon.ended().await.code(), Some(0));
    // Those that were accepted were answered; the others found nobody.
    let offered = offered.await.unwrap();
    let accepted: Vec<_> = offered.iter().filter(|one| one.answer.is_ok()).collect();
    assert!(accepted.len() >= 50, "{}", accepted.len());
    for one in accepted {
        let answer = one.answer.as_ref().unwrap();
        assert!([200, 503].contains(&answer.status.as_u16()), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_run_the_version_that_was_promoted() {
    let _turn = turn().await;
    let site = Site::new();
    let relay = site.relay("cloud", "slots = 2\n");
    let slow = Behaviour::EchoAfter(Duration::from_millis(20));
    site.must_pack_version("echo", "echo", "1.0.0", slow);
    site.must_pack_version("next", "echo", "2.0.0", slow);
    let burst = site.burst(&[relay.daemon.address()], "");
    let agent = site.agent(&format!(
        "modules = ['echo.wasm']\nslots = 1\nslo-ms = 4000\n[rollout]\npoll-s = 1\n\
         canary-share = 0.2\ncanary-requests-min = 20\nwatch-s = 2\n{burst}"
    ));
    super::burst::all_connected(&agent, &[&relay]).await;
    // Half as much again as the one slot carries.
    let load = Load::begin(&agent.http, "echo", Duration::from_millis(13));
    eventually("an answer of the relay", async || {
        let page = Page::fetch(&agent.http).await.unwrap();
        page.sum("tidegate_requests_total", &["placement=\"relay\""])
    })
    .await;
    site.replace("echo.wasm", "next.wasm");
    turned(&agent, "promoted").await;
    turned(&agent, "settled").await;
    agent.answers(50.0, &["placement=\"relay\""]).await;
    let offered = load.end().await;
    answered(&offered);
    let on_relay = |one: &&Offered| matches!(one.ran(), Some(Ran::Relay(_)));
    let versions: Vec<_> = offered
        .iter()
        .filter(on_relay)
        .map(Offered::version)
        .collect();
    assert_eq!(versions.first().unwrap(), "1.0.0");
    assert_eq!(versions.last().unwrap(), "2.0.0");
}

#[tokio::test]
async fn a_version_that_does_not_compute_what_its_author_saw_is_refused() {
    let site = Site::new();
    site.pack_doubler();
    let agent = site.agent("modules = ['doubler.wasm']\n[rollout]\npoll-s = 1\n");
    let samples = site.path("samples");
    std::fs::create_dir(&samples).unwrap();
    let x = [1.0, 2.5, -3.0, 0.0];
    std::fs::write(samples.join("in_0_0.npy"), row_of_npy(&x)).unwrap();
    let y = [2.0, 5.0, -6.0, 0.0];
    std::fs::write(samples.join("out_0_0.npy"), row_of_npy(&y)).unwrap();
    for version in ["2.0.0", "3.0.0"] {
        let out = format!("{version}.wasm");
        let pack = ["pack", "doubler.onnx", "-o", &out, "--name", "doubler"];
        let more = ["--version", version, "--samples", "samples"];
        site.must_tidegate(&[&pack[..], &more].concat());
    }
    // The author saw 5.5 where this machine computes 5.
    let module = std::fs::read(site.path("2.0.0.wasm")).unwrap();
    let (saw, computed) = ([2.0, 5.5, -6.0, 0.0], y);
    site.write(
        "2.0.0.wasm",
        replaced(module, &bytes(&computed), &bytes(&saw)),
    );
    site.replace("doubler.wasm", "2.0.0.wasm");
    turned(&agent, "refused").await;
    let log = agent.daemon.log();
    assert!(log.contains("a sample that the module carries"), "{log}");
    let ready = |version| format!("/v2/models/doubler/versions/{version}/ready");
    let answer = agent.http.get(&ready("2.0.0")).await.unwrap();
    assert_eq!(answer.status, 404);
    site.replace("doubler.wasm", "3.0.0.wasm");
    eventually("the version that computes it", async || {
        let answer = agent.http.get(&ready("3.0.0")).await.unwrap();
        answer.status.is_success().then_some(())
    })
    .await;
}

/// A tensor of shape `[1, 4]` as NumPy stores it.
fn row_of_npy(values: &[f32; 4]) -> Vec<u8> {
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }";
    let header = format!("{header:<117}\n");
    let len = u16::try_from(header.len()).unwrap();
    [
        &b"\x93NUMPY\x01\x00"[..],
        &len.to_le_bytes(),
        header.as_bytes(),
        &bytes(values),
    ]
    .concat()
}

fn bytes(values: &[f32; 4]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// `file` with the one occurrence of `from` replaced by `to`, which is as long.
fn replaced(mut file: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = file.windows(from.len()).position(|window| window == from);
    let at = at.expect("the sample lies in the module");
    file[at..at + to.len()].copy_from_slice(to);
    file
}
