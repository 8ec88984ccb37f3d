//! `tidegate scale` with real relays, and an agent's metrics page that the test writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::{PROGRAM, STATE, tidegate};

/// Longest wait for anything, on a machine that has much else to do.
const WITHIN: Duration = Duration::from_secs(120);

/// A scaler for one agent, whose announced demand the test sets.
struct Scene {
    scaler: Child,
    reserved: Arc<Mutex<f64>>,
    relays_file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certs = folder.path().join("certs");
        tidegate(&["dev-certs".as_ref(), "--out".as_ref(), certs.as_os_str()]).ok();
        let relays_file = folder.path().join("relays.txt");
        fs::write(&relays_file, "127.0.0.1:1\n").unwrap();
        let reserved = Arc::new(Mutex::new(0.0));
        let url = serve_metrics(Arc::clone(&reserved)).await;
        let scaler = Command::new(PROGRAM)
            .args(["scale", "--agents", &url, "--dwell", "0"])
            .arg("--relays-file")
            .arg(&relays_file)
            .arg("--certs")
            .arg(&certs)
            .args(more)
            .env("XDG_STATE_HOME", STATE)
            // A scaler that is killed leaves its temporary folder behind.
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            scaler,
            reserved,
            relays_file,
            _folder: folder,
        }
    }

    fn reserve(&self, slots: f64) {
        *self.reserved.lock().unwrap() = slots;
    }

    /// Waits until this many relays are listed.
    async fn listed(&self, count: usize) -> Vec<String> {
        until(|| {
            let text = fs::read_to_string(&self.relays_file).unwrap();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            (lines.len() == count && !text.contains(":1\n")).then_some(lines)
        })
        .await
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.scaler.id().unwrap().try_into().unwrap()).unwrap()
    }
}

/// The value of `seen`, once it has one.
async fn until<T>(mut seen: impl FnMut() -> Option<T>) -> T {
    timeout(WITHIN, async {
        loop {
            if let Some(value) = seen() {
                return value;
            }
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it happens in time")
}

async fn serve_metrics(reserved: Arc<Mutex<f64>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let slots = *reserved.lock().unwrap();
            let page =
                format!("tidegate_reserved_slots {slots}\ntidegate_burst_in_flight 0\n# EOF\n");
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                page.len()
            );
            let _ = stream.write_all((head + &page).as_bytes()).await;
        }
    });
    url
}

/// The processes whose parent is this one.
fn children(parent: Pid) -> Vec<Pid> {
    let path = format!("/proc/{0}/task", parent.as_raw_nonzero());
    let threads = fs::read_dir(path).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|text| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|pid| Pid::from_raw(pid.parse().unwrap()))
        .collect()
}

fn lives(pid: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    // A process that nobody waited for yet is dead all the same.
    fs::read_to_string(Path::new(&path)).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_follow_the_demand_between_floor_and_ceiling() {
    let mut scene = Scene::start(&["--max", "2"]).await;
    assert!(scene.listed(0).await.is_empty());
    scene.reserve(0.5);
    let first = scene.listed(1).await;
    scene.reserve(9.0);
    let both = scene.listed(2).await;
    assert_eq!(both[0], first[0], "the first relay stays");
    assert_eq!(children(scene.pid()).len(), 2);
    scene.reserve(0.5);
    assert_eq!(scene.listed(1).await, first, "the youngest goes first");
    scene.reserve(0.0);
    scene.listed(0).await;
    until(|| children(scene.pid()).is_empty().then_some(())).await;
    kill_process(scene.pid(), Signal::TERM).unwrap();
    let mut printed = String::new();
    scene
        .scaler
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut printed)
        .await
        .unwrap();
    assert!(scene.scaler.wait().await.unwrap().success());
    assert!(printed.starts_with("relay-seconds "), "{printed}");
    assert!(
        printed.ends_with("most relays at once 2, started 2, crashed 0\n"),
        "{printed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_killed_is_replaced() {
    let scene = Scene::start(&["--min", "1", "--max", "1"]).await;
    let before = scene.listed(1).await;
    let [relay] = children(scene.pid())[..] else {
        panic!("one relay runs")
    };
    kill_process(relay, Signal::KILL).unwrap();
    until(|| {
        let now = fs::read_to_string(&scene.relays_file).unwrap();
        (!now.is_empty() && now.trim_end() != before[0]).then_some(())
    })
    .await;
    assert!(!lives(relay));
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_end_with_their_scaler_however_it_ends() {
    for signal in [Signal::KILL, Signal::TERM] {
        let mut scene = Scene::start(&["--min", "2"]).await;
        scene.listed(2).await;
        let relays = children(scene.pid());
        assert_eq!(relays.len(), 2);
        kill_process(scene.pid(), signal).unwrap();
        scene.scaler.wait().await.unwrap();
        until(|| relays.iter().all(|relay| !lives(*relay)).then_some(())).await;
        if signal == Signal::TERM {
            assert_eq!(fs::read_to_string(&scene.relays_file).unwrap(), "");
        }
    }
}

#[test]
fn what_cannot_be_scaled_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    tidegate(&["dev-certs", "--out", &path("certs")]).ok();
    let (certs, list) = (path("certs"), path("relays.txt"));
    let scale = |more: &[&str]| {
        let common = [
            "scale",
            "--agents",
            "http://127.0.0.1:1",
            "--relays-file",
            &list,
        ];
        tidegate(&[&common[..], more].concat())
    };
    scale(&["--certs", &path("none")]).fails(64, &["none/relay.pem", "dev-certs"]);
    scale(&["--certs", &certs, "--min", "3", "--max", "2"]).fails(64, &["3", "2"]);
    scale(&["--certs", &certs, "--max", "1000"]).fails(64, &["1000", "64"]);
    scale(&["--relay-config", &path("none.toml")]).fails(64, &["none.toml"]);
    assert!(!Path::new(&list).exists());
    let inside = path("no/relays.txt");
    tidegate(&[
        "scale",
        "--agents",
        "http://127.0.0.1:1",
        "--certs",
        &certs,
        "--relays-file",
        &inside,
    ])
    .fails(1, &[&inside]);
}
