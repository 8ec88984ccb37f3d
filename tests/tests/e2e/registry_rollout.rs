//! Versions from a real registry: signed, moved under a tag, refused, and there when the registry is not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tidegate_tests::docker_registry::{Auth, DockerRegistry, Transport};
use tidegate_tests::load::{Load, Offered, turn};
use tidegate_tests::metrics::Page;
use tidegate_tests::models::{Behaviour, doubler, doubler_request, echo_request};
use tidegate_tests::site::{Agent, Site, free_port};
use tidegate_tests::wait::{eventually, within_patience};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What a run of the versions takes that are as they should be.
const SERVICE: Behaviour = Behaviour::EchoAfter(Duration::from_millis(1));

/// A registry, and an author whose key agents trust.
struct Market {
    site: Site,
    registry: DockerRegistry,
}

impl Market {
    fn new() -> Self {
        let site = Site::new();
        for who in ["author", "stranger"] {
            site.must_tidegate(&["keygen", "--out", who]);
        }
        let registry = DockerRegistry::start();
        Self { site, registry }
    }

    /// The reference of a model's tag.
    fn reference(&self, name: &str) -> String {
        reference(self.registry.address(), name)
    }

    /// Packs a version of the model `echo`, and signs it by `who` if anybody.
    fn make(&self, version: &str, behaviour: Behaviour, who: Option<&str>) -> String {
        let file = format!("echo-{version}");
        self.site
            .must_pack_version(&file, "echo", version, behaviour);
        self.sign(&file, who)
    }

    fn sign(&self, file: &str, who: Option<&str>) -> String {
        let file = format!("{file}.wasm");
        if let Some(who) = who {
            let key = format!("{who}.key");
            self.site.must_tidegate(&["sign", &file, "--key", &key]);
        }
        file
    }

    /// Moves the tag of `echo` to a file.
    fn publish(&self, file: &str) {
        let reference = self.reference("echo");
        self.site
            .must_tidegate(&["publish", file, &reference["oci://".len()..]]);
    }

    /// An agent that follows the tag of `echo` and trusts the author. `rollout` are keys of its rollouts.
    fn agent(&self, rollout: &str) -> Agent {
        self.site.agent(&config(&self.reference("echo"), rollout))
    }
}

fn reference(registry: SocketAddr, name: &str) -> String {
    format!("oci://{registry}/models/{name}:stable")
}

fn config(reference: &str, rollout: &str) -> String {
    format!(
        "modules = ['{reference}']\nslo-ms = 30000\nqueue-len-max = 4096\n\
         [rollout]\npoll-s = 1\n{rollout}\n[[trust.rules]]\nnames = ['*']\nkeys = ['author.pub']\n"
    )
}

/// Waits until the agent is ready.
async fn ready(agent: &Agent) {
    eventually("readiness", async || {
        let answer = agent.http.get("/v2/health/ready").await.unwrap();
        answer.status.is_success().then_some(())
    })
    .await;
}

/// Waits until a rollout of the agent has turned so, for the `count`th time.
async fn turned(agent: &Agent, outcome: &str, count: f64) {
    let label = format!("outcome=\"{outcome}\"");
    eventually(outcome, async || {
        let page = Page::fetch(&agent.http).await.unwrap();
        page.sum("tidegate_rollouts_total", &[&label])
            .filter(|sum| *sum == count)
    })
    .await;
}

async fn versions(agent: &Agent) -> serde_json::Value {
    let answer = agent.http.get("/v2/models/echo").await.unwrap();
    answer.json()["versions"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_under_load_brings_the_new_version_and_no_request_fails() {
    let _turn = turn().await;
    let market = Market::new();
    market.publish(&market.make("1.0.0", SERVICE, Some("author")));
    let agent = market.agent("canary-share = 0.2\ncanary-requests-min = 50\nwatch-s = 2\n");
    ready(&agent).await;
    let load = Load::begin(&agent.http, "echo", Duration::from_millis(4));
    agent.answers(100.0, &[]).await;
    market.publish(&market.make("2.0.0", SERVICE, Some("author")));
    turned(&agent, "settled", 1.0).await;
    let offered = load.end().await;
    let seen: std::collections::BTreeSet<_> = offered.iter().map(Offered::version).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["1.0.0", "2.0.0"]);
    assert_eq!(versions(&agent).await, json!(["2.0.0"]));

    // From now on the first version is out of date, whoever signed it.
    market.publish("echo-1.0.0.wasm");
    turned(&agent, "refused", 1.0).await;
    assert!(agent.daemon.log().contains("versions never go back"));
    assert_eq!(versions(&agent).await, json!(["2.0.0"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_trusted_signed_is_refused_and_the_old_version_serves_on() {
    let market = Market::new();
    market.publish(&market.make("1.0.0", SERVICE, Some("author")));
    let agent = market.agent("");
    ready(&agent).await;
    let unsigned = market.make("2.0.0", SERVICE, None);
    let of_a_stranger = market.make("3.0.0", SERVICE, Some("stranger"));
    for (count, bad) in [(1.0, unsigned), (2.0, of_a_stranger)] {
        market.publish(&bad);
        turned(&agent, "refused", count).await;
        let log = agent.daemon.log();
        assert!(log.contains("is not trusted by rule 1"), "{log}");
        let answer = agent.http.infer("echo", &echo_request("1", 1)).await;
        assert_eq!(answer.unwrap().json()["model_version"], "1.0.0");
    }
    assert_eq!(versions(&agent).await, json!(["1.0.0"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_rolled_back_stays_away_after_a_restart() {
    let _turn = turn().await;
    let market = Market::new();
    market.publish(&market.make("1.0.0", SERVICE, Some("author")));
    let mut agent = market.agent("canary-s-max = 60\n");
    ready(&agent).await;
    let load = Load::begin(&agent.http, "echo", Duration::from_millis(4));
    market.publish(&market.make("2.0.0", Behaviour::TrapAtTimes, Some("author")));
    turned(&agent, "rolled-back", 1.0).await;
    let offered = load.end().await;
    assert_eq!(offered.last().unwrap().version(), "1.0.0");
    agent.daemon.kill();
    let agent = market.agent("");
    ready(&agent).await;
    eventually("the version that was rolled back", async || {
        let log = agent.daemon.log();
        log.contains("left alone what was rolled back")
            .then_some(())
    })
    .await;
    assert_eq!(versions(&agent).await, json!(["1.0.0"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_registry_is_gone_starts_with_what_it_has() {
    let market = Market::new();
    market.publish(&market.make("1.0.0", SERVICE, Some("author")));
    let mut agent = market.agent("");
    ready(&agent).await;
    let Market { site, registry } = market;
    let gone = reference(registry.address(), "echo");
    drop(registry);
    eventually("the registry missed", async || {
        let log = agent.daemon.log();
        log.contains("failed to look at a module").then_some(())
    })
    .await;
    let answer = agent.http.infer("echo", &echo_request("1", 1)).await;
    assert_eq!(answer.unwrap().json()["model_version"], "1.0.0");
    agent.daemon.kill();
    let agent = site.agent(&config(&gone, ""));
    ready(&agent).await;
    let answer = agent.http.infer("echo", &echo_request("1", 1)).await;
    assert_eq!(answer.unwrap().json()["model_version"], "1.0.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_registry_is_trusted_by_the_authority_that_the_configuration_names() {
    let mut market = Market::new();
    let certs = market.site.certificates("certs");
    let (certificate, key) = (certs.join("relay.pem"), certs.join("relay.key"));
    market.registry = DockerRegistry::start_with(Auth::Nobody, Transport::Tls(&certificate, &key));
    let reference = market.reference("echo");
    let file = market.make("1.0.0", SERVICE, Some("author"));
    let publish = ["publish", &file, &reference["oci://".len()..]];
    let publish = [&publish[..], &["--ca", "certs/ca.pem"]].concat();
    market.site.must_tidegate(&publish);
    let ca = "[registry]\nca = 'certs/ca.pem'\n";
    let agent = market
        .site
        .agent(&format!("{}{ca}", config(&reference, "")));
    ready(&agent).await;
    let ca = "[registry]\nca = 'certs/none.pem'\n";
    let refused = market
        .site
        .try_agent(&format!("{}{ca}", config(&reference, "")));
    let log = refused.expect_err("there is no such file").log;
    assert!(log.contains("none.pem"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_without_the_registry_serves_the_rest_and_catches_up() {
    let market = Market::new();
    market.publish(&market.make("1.0.0", SERVICE, Some("author")));
    market.site.write("doubler.onnx", doubler());
    market
        .site
        .must_tidegate(&["pack", "doubler.onnx", "-o", "doubler.wasm"]);
    market.sign("doubler", Some("author"));
    let port = free_port();
    let modules = format!("'doubler.wasm', '{}'", reference(port, "echo"));
    let config = config("", "").replace("''", &modules);
    let agent = market.site.agent(&config);
    let answer = agent
        .http
        .infer("doubler", &doubler_request())
        .await
        .unwrap();
    assert!(answer.status.is_success());
    let answer = agent.http.get("/v2/health/ready").await.unwrap();
    assert_eq!(answer.status, 503);
    let answer = agent
        .http
        .infer("echo", &echo_request("1", 1))
        .await
        .unwrap();
    assert!(answer.error(503).contains("still to come"));
    assert!(answer.header("retry-after").is_some());

    let listener = TcpListener::bind(port).await.unwrap();
    let forwarder = tokio::spawn(forward(listener, market.registry.address(), None));
    ready(&agent).await;
    let answer = agent
        .http
        .infer("echo", &echo_request("1", 1))
        .await
        .unwrap();
    assert_eq!(answer.json()["model_version"], "1.0.0");
    forwarder.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_during_a_pull_changes_nothing_for_that_pull() {
    let market = Market::new();
    market.publish(&market.make("1.0.0", SERVICE, Some("author")));
    market.make("2.0.0", SERVICE, Some("author"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = listener.local_addr().unwrap();
    let gate = Arc::new(Gate::default());
    let far = market.registry.address();
    let forwarder = tokio::spawn(forward(listener, far, Some(Arc::clone(&gate))));
    let agent = market.site.agent(&config(
        &reference(near, "echo"),
        "canary-s-max = 1\nwatch-s = 1\n",
    ));
    // The agent knows which version it wants, and asks for its bytes.
    within_patience("a pull", gate.reached.notified()).await;
    market.publish("echo-2.0.0.wasm");
    gate.opened.notify_one();
    ready(&agent).await;
    let load = Load::begin(&agent.http, "echo", Duration::from_millis(4));
    turned(&agent, "settled", 1.0).await;
    let offered = load.end().await;
    let seen: Vec<_> = offered.iter().map(Offered::version).collect();
    assert_eq!(
        seen.first().unwrap(),
        "1.0.0",
        "the version that was asked for"
    );
    assert_eq!(seen.last().unwrap(), "2.0.0");
    let log = agent.daemon.log();
    assert!(!log.contains("ERROR"), "{log}");
    forwarder.abort();
}

/// Where a forwarder stops once, before it asks for bytes of a module.
#[derive(Default)]
struct Gate {
    is_passed: AtomicBool,
    reached: Notify,
    opened: Notify,
}

/// Hands on every connection, and stops at the gate if there is one.
async fn forward(listener: TcpListener, to: SocketAddr, gate: Option<Arc<Gate>>) {
    loop {
        let (near, _) = listener.accept().await.unwrap();
        tokio::spawn(hand_on(near, to, gate.clone()));
    }
}

async fn hand_on(mut near: TcpStream, to: SocketAddr, gate: Option<Arc<Gate>>) {
    let mut far = TcpStream::connect(to).await.unwrap();
    let (mut near_in, mut near_out) = near.split();
    let (mut far_in, mut far_out) = far.split();
    let asks = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(len @ 1..) = near_in.read(&mut buffer).await {
            let asked = String::from_utf8_lossy(&buffer[..len]);
            if let Some(gate) = &gate
                && asked.contains("/blobs/")
                && !gate.is_passed.swap(true, Ordering::Relaxed)
            {
                gate.reached.notify_one();
                gate.opened.notified().await;
            }
            if far_out.write_all(&buffer[..len]).await.is_err() {
                break;
            }
        }
        let _ = far_out.shutdown().await;
    };
    let _ = tokio::join!(asks, tokio::io::copy(&mut far_in, &mut near_out));
}
