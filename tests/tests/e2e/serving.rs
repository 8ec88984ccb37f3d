//! One agent, no relay: what it serves and what it refuses.

use std::process::Command;
use std::time::Duration;

use hyper::Request;
use rustix::process::Signal;
use serde_json::{Value, json};
use tidegate_tests::checkout::binary;
use tidegate_tests::daemon::Daemon;
use tidegate_tests::http::Http;
use tidegate_tests::metrics::Page;
use tidegate_tests::models::{Behaviour, doubled, doubler_request, echo_request};
use tidegate_tests::site::Site;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test]
async fn a_packed_onnx_model_answers_in_json_and_in_binary() {
    let site = Site::new();
    site.pack_doubler();
    let agent = site.agent("modules = ['doubler.wasm']\n");

    let answer = agent
        .http
        .infer("doubler", &doubler_request())
        .await
        .unwrap();
    assert_eq!(answer.outputs(), doubled());
    let json = answer.json();
    assert_eq!(json["model_name"], "doubler");
    assert_eq!(json["model_version"], "1.0.0");
    assert_eq!(json["parameters"]["tidegate_placement"], "local");
    assert!(json["parameters"]["tidegate_infer_us"].is_u64(), "{json}");

    let floats = [1.0_f32, -2.0, 0.25, 8.0, 0.0, 1e30, -0.5, 3.0];
    let bytes = |floats: &[f32]| {
        floats
            .iter()
            .flat_map(|f| f.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let input = json!({
        "name": "x", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32},
    });
    let request = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
    let answer = agent
        .http
        .infer_binary("doubler", &request, &bytes(&floats))
        .await
        .unwrap();
    assert_eq!(answer.outputs()[0]["shape"], json!([2, 4]));
    assert_eq!(answer.data(), bytes(&floats.map(|float| float * 2.0)));
}

#[tokio::test]
async fn health_metadata_and_index_tell_what_is_served() {
    let site = Site::new();
    site.pack_doubler();
    site.must_pack_guest("echo", Behaviour::EchoAfter(Duration::ZERO));
    let agent = site.agent("modules = ['doubler.wasm', 'echo.wasm']\n");
    let get = async |path: &str| {
        let answer = agent.http.get(path).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
        answer.json()
    };
    assert_eq!(get("/v2/health/live").await, json!({"live": true}));
    assert_eq!(get("/v2/health/ready").await, json!({"ready": true}));
    assert_eq!(get("/v2/models/doubler/ready").await["ready"], true);
    assert_eq!(get("/v2").await["name"], "tidegate");
    let doubler = get("/v2/models/doubler/versions/1.0.0").await;
    assert_eq!(doubler["versions"], json!(["1.0.0"]));
    let spec = |name: &str| json!([{"name": name, "datatype": "FP32", "shape": [-1, 4]}]);
    assert_eq!(doubler["inputs"], spec("x"));
    assert_eq!(doubler["outputs"], spec("y"));
    let index = get("/v2/repository/index").await;
    let mut names: Vec<_> = index
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["name"])
        .collect();
    names.sort_by_key(|name| name.as_str());
    assert_eq!(names, ["doubler", "echo"]);

    let answer = agent
        .http
        .infer("echo", &echo_request("7", 41))
        .await
        .unwrap();
    assert_eq!(answer.json()["id"], "7");
    assert_eq!(answer.outputs()[0]["data"], json!([41]));
    let page = Page::fetch(&agent.http).await.unwrap();
    let answered = ["model=\"echo\"", "placement=\"local\"", "outcome=\"ok\""];
    assert_eq!(page.sum("tidegate_requests_total", &answered), Some(1.0));
    let labels = ["model=\"echo\""];
    assert_eq!(
        page.sum("tidegate_request_duration_seconds_count", &labels),
        Some(1.0)
    );
}

#[tokio::test]
async fn what_does_not_fit_the_model_is_refused_and_says_why() {
    let site = Site::new();
    site.pack_doubler();
    let agent = site.agent("modules = ['doubler.wasm']\nrequest-bytes-max = 100000\n");
    let input = |name: &str, datatype: &str, shape: Value, data: Value| {
        let input = json!({"name": name, "datatype": datatype, "shape": shape, "data": data});
        json!({"inputs": [input]})
    };
    let four = || json!([1, 2, 3, 4]);
    let good = doubler_request;
    let unknown_output = json!({"inputs": good()["inputs"], "outputs": [{"name": "z"}]});
    for (model, request, status, expected) in [
        (
            "doubler",
            input("x", "FP64", json!([1, 4]), four()),
            400,
            "FP64",
        ),
        (
            "doubler",
            input("x", "FP32", json!([4]), four()),
            400,
            "[4]",
        ),
        (
            "doubler",
            input("x", "FP32", json!([1, 4]), json!([1])),
            400,
            "expected 4 elements, got 1",
        ),
        (
            "doubler",
            input("q", "FP32", json!([1, 4]), four()),
            400,
            "no input \"q\"",
        ),
        (
            "doubler",
            json!({"inputs": []}),
            400,
            "input \"x\" is missing",
        ),
        ("doubler", unknown_output, 400, "no output \"z\""),
        ("nobody", good(), 404, "nobody"),
        ("doubler/versions/9.9.9", good(), 404, "9.9.9"),
    ] {
        let answer = agent.http.infer(model, &request).await.unwrap();
        let error = answer.error(status);
        assert!(error.contains(expected), "{request}: {error}");
    }
    let path = "/v2/models/doubler/infer";
    let malformed = agent.http.post(path, "{\"inputs\": [").await.unwrap();
    assert!(malformed.error(400).contains("EOF"));
    let long = agent.http.post(path, vec![b' '; 100_001]).await.unwrap();
    assert!(long.error(413).contains("100000 bytes"));
    let lies = Request::post(path)
        .header("inference-header-content-length", "999")
        .body("{}".into())
        .unwrap();
    assert!(
        agent
            .http
            .send(lies)
            .await
            .unwrap()
            .error(400)
            .contains("999 bytes of JSON")
    );
    let answer = agent.http.infer("doubler", &good()).await.unwrap();
    assert_eq!(answer.outputs(), doubled());
}

#[tokio::test]
async fn a_unix_socket_serves_the_same() {
    let site = Site::new();
    site.pack_doubler();
    let agent = site.agent("modules = ['doubler.wasm']\nunix-socket = 'agent.sock'\n");
    let http = Http::Unix(site.path("agent.sock"));
    let answer = http.infer("doubler", &doubler_request()).await.unwrap();
    assert_eq!(answer.outputs(), doubled());
    drop(agent);
}

#[tokio::test]
async fn a_deadline_that_passes_is_504_and_the_slot_is_free_again() {
    let site = Site::new();
    site.must_pack_guest("slow", Behaviour::EchoAfter(Duration::from_secs(3600)));
    site.pack_doubler();
    let agent = site.agent("modules = ['slow.wasm', 'doubler.wasm']\nslots = 1\nslo-ms = 20000\n");
    let mut request = echo_request("late", 1);
    request["parameters"] = json!({"timeout": 200_000});
    let started = Instant::now();
    let answer = agent.http.infer("slow", &request).await.unwrap();
    assert!(!answer.error(504).is_empty());
    assert!(
        started.elapsed() >= Duration::from_millis(200),
        "{:?}",
        started.elapsed()
    );
    let answer = agent
        .http
        .infer("doubler", &doubler_request())
        .await
        .unwrap();
    assert_eq!(answer.outputs(), doubled());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let site = Site::new();
    site.must_pack_guest("slow", Behaviour::EchoAfter(Duration::from_millis(500)));
    let config = "modules = ['slow.wasm']\nslots = 1\nqueue-len-max = 1\nslo-ms = 30000\n";
    let agent = site.agent(config);
    let mut under_way = JoinSet::new();
    for number in 0..8 {
        let http = agent.http.clone();
        under_way.spawn(async move {
            let request = echo_request(&number.to_string(), number);
            http.infer("slow", &request).await.unwrap()
        });
    }
    let answers = under_way.join_all().await;
    let of = |status: u16| answers.iter().filter(move |answer| answer.status == status);
    assert_eq!(of(200).count() + of(503).count(), 8, "{answers:?}");
    assert!(
        of(200).count() >= 2,
        "a slot and a place in the queue: {answers:?}"
    );
    assert!(of(503).count() >= 1, "{answers:?}");
    for refused in of(503) {
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(wait >= 1);
    }
}

#[tokio::test]
async fn sigterm_finishes_what_is_under_way_and_exits_0() {
    let site = Site::new();
    site.must_pack_guest("slow", Behaviour::EchoAfter(Duration::from_secs(1)));
    let mut agent = site.agent("modules = ['slow.wasm']\nslo-ms = 30000\n");
    let http = agent.http.clone();
    let request = tokio::spawn(async move { http.infer("slow", &echo_request("1", 1)).await });
    tidegate_tests::wait::eventually("a busy slot", async || {
        let page = Page::fetch(&agent.http).await.unwrap();
        page.sum("tidegate_slots_busy", &[])
            .filter(|busy| *busy == 1.0)
    })
    .await;
    agent.daemon.signal(Signal::TERM);
    let answer = request.await.unwrap().unwrap();
    assert_eq!(answer.outputs()[0]["data"], json!([1]));
    let status = agent.daemon.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(agent.http.get("/v2/health/live").await.is_err());
}

#[tokio::test]
async fn the_daemon_of_its_own_name_is_the_same_and_says_one_line() {
    let site = Site::new();
    site.pack_doubler();
    let text = "listen = '127.0.0.1:0'\nmodules = ['doubler.wasm']\ntrust.allow-unsigned = true\n";
    let config = site.configuration("agent", text);
    let mut command = Command::new(binary("tidegate-agent"));
    let mut daemon = Daemon::start(command.arg("--config").arg(config), "tidegate-agent").unwrap();
    let http = Http::Tcp(daemon.address());
    let answer = http.infer("doubler", &doubler_request()).await.unwrap();
    assert_eq!(answer.outputs(), doubled());
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert_eq!(daemon.further_output(), Vec::<String>::new());
}
