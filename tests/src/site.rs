//! A folder with everything that one test needs: modules, certificates, configurations, daemons.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::checkout::{binary, state};
use crate::daemon::{Daemon, Ended};
use crate::http::Http;
use crate::metrics::Page;
use crate::models::{Behaviour, doubler, echo_manifest, in_version};
use crate::wait::eventually;

/// A temporary folder, removed on drop.
#[derive(Debug)]
pub struct Site {
    folder: TempDir,
    configurations: AtomicUsize,
}

/// An agent and how to speak to it.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub daemon: Daemon,
    /// Its HTTP.
    pub http: Http,
}

impl Agent {
    /// Waits until `more` requests whose labels contain each of `labels` have been answered from now on.
    pub async fn answers(&self, more: f64, labels: &[&str]) {
        let answered = async || {
            let page = Page::fetch(&self.http).await.ok()?;
            page.sum("tidegate_requests_total", labels)
        };
        let before = answered().await.unwrap_or(0.0);
        eventually("further requests", async || {
            answered().await.filter(|now| *now >= before + more)
        })
        .await;
    }

    /// Waits until the agent, which has one module, has looked for a new version so often from now on.
    pub async fn looks(&self, times: u32) {
        let (mut last, mut looks) = (0.0, 0);
        eventually("further looks at the module", async || {
            let page = Page::fetch(&self.http).await.ok()?;
            let age = page.sum("tidegate_module_poll_age_seconds", &[])?;
            looks += u32::from(age < last);
            last = age;
            (looks >= times).then_some(())
        })
        .await;
    }
}

/// A relay and where its metrics are.
#[derive(Debug)]
pub struct Relay {
    /// The process.
    pub daemon: Daemon,
    /// Its metrics.
    pub metrics: Http,
}

impl Site {
    /// An empty folder.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "making a folder is not a default value"
    )]
    pub fn new() -> Self {
        Self {
            folder: TempDir::new().expect("a temporary folder"),
            configurations: AtomicUsize::new(0),
        }
    }

    /// Where `name` lies in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, contents).unwrap_or_else(|error| panic!("{name}: {error}"));
        path
    }

    /// Runs `tidegate` in the folder.
    pub fn tidegate(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("tidegate"));
        command.env("XDG_STATE_HOME", state());
        let output = command.args(arguments).current_dir(&self.folder).output();
        output.expect("tidegate runs")
    }

    /// Runs `tidegate` in the folder, which must succeed.
    pub fn must_tidegate(&self, arguments: &[&str]) {
        let output = self.tidegate(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {error}");
    }

    /// Packs the doubler as `doubler.wasm`.
    pub fn pack_doubler(&self) {
        self.write("doubler.onnx", doubler());
        self.must_tidegate(&["pack", "doubler.onnx", "-o", "doubler.wasm"]);
    }

    /// Packs a guest of this behaviour as `NAME.wasm`.
    pub fn pack_guest(&self, name: &str, behaviour: Behaviour) -> Output {
        self.pack(name, &behaviour.component(), &echo_manifest(name))
    }

    /// Packs a guest of this behaviour as `NAME.wasm`, which must succeed.
    pub fn must_pack_guest(&self, name: &str, behaviour: Behaviour) {
        self.must_pack(name, &behaviour.component(), &echo_manifest(name));
    }

    /// Packs a guest of this behaviour as version `version` of the model `name`, in `FILE.wasm`, which must
    /// succeed.
    pub fn must_pack_version(&self, file: &str, name: &str, version: &str, behaviour: Behaviour) {
        let manifest = in_version(echo_manifest(name), version);
        self.must_pack(file, &behaviour.component(), &manifest);
    }

    /// Packs a guest as `FILE.wasm`, which must succeed.
    pub fn must_pack(&self, file: &str, component: &[u8], manifest: &Value) {
        let output = self.pack(file, component, manifest);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{file}: {error}");
    }

    fn pack(&self, file: &str, component: &[u8], manifest: &Value) -> Output {
        self.write("graph.onnx", doubler());
        let guest = format!("{file}.guest.wasm");
        self.write(&guest, component);
        let written = format!("{file}.json");
        self.write(&written, manifest.to_string());
        let out = format!("{file}.wasm");
        let guest = ["--guest", &guest, "--manifest", &written];
        self.tidegate(&[&["pack", "graph.onnx", "-o", &out], &guest[..]].concat())
    }

    /// Puts a copy of one file of the folder in the place of another, at once.
    pub fn replace(&self, name: &str, by: &str) {
        let new = self.path("new");
        std::fs::copy(self.path(by), &new).unwrap_or_else(|error| panic!("{by}: {error}"));
        std::fs::rename(new, self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// The folder of the certificates, made by `tidegate dev-certs`.
    pub fn certificates(&self, name: &str) -> PathBuf {
        let folder = self.path(name);
        if !folder.exists() {
            self.must_tidegate(&["dev-certs", "--out", name]);
        }
        folder
    }

    /// Starts an agent on a free port. `config` are its other keys.
    #[must_use]
    pub fn agent(&self, config: &str) -> Agent {
        self.try_agent(config)
            .unwrap_or_else(|Ended { status, log }| {
                panic!("the agent ended before it was ready, {status}:\n{log}")
            })
    }

    /// Starts an agent on a free port, if it starts.
    pub fn try_agent(&self, config: &str) -> Result<Agent, Ended> {
        let trust = trust(config);
        let config = format!("listen = '127.0.0.1:0'\nstate-dir = 'state'\n{trust}{config}");
        let daemon = self.daemon(&["agent"], &config)?;
        let http = Http::Tcp(daemon.address());
        Ok(Agent { daemon, http })
    }

    /// Starts a relay of this name on a free port. `config` are its other keys.
    #[must_use]
    pub fn relay(&self, name: &str, config: &str) -> Relay {
        self.certificates("certs");
        let (metrics, trust) = (free_port(), trust(config));
        let config = format!(
            "name = '{name}'\nlisten = '127.0.0.1:0'\nmetrics-listen = '{metrics}'\n\
             certificate = 'certs/relay.pem'\nkey = 'certs/relay.key'\nca = 'certs/ca.pem'\n{trust}{config}"
        );
        let daemon = self
            .daemon(&["relay"], &config)
            .unwrap_or_else(|Ended { status, log }| {
                panic!("relay {name} ended before it was ready, {status}:\n{log}")
            });
        let metrics = Http::Tcp(metrics);
        Relay { daemon, metrics }
    }

    /// Starts `tidegate COMMAND --config` with a configuration of this text.
    pub fn daemon(&self, command: &[&str], config: &str) -> Result<Daemon, Ended> {
        let path = self.configuration(command[0], config);
        let mut process = Command::new(binary("tidegate"));
        process.args(command).arg("--config").arg(path);
        Daemon::start(&mut process, command[0])
    }

    /// Writes a configuration file for `what`.
    pub fn configuration(&self, what: &str, text: &str) -> PathBuf {
        let number = self.configurations.fetch_add(1, Ordering::Relaxed);
        self.write(&format!("{what}-{number}.toml"), text)
    }

    /// The table `[burst]` of an agent that knows these relays. `config` are its other keys.
    #[must_use]
    pub fn burst(&self, relays: &[SocketAddr], config: &str) -> String {
        self.certificates("certs");
        let relays: Vec<_> = relays.iter().map(|relay| format!("'{relay}'")).collect();
        let relays = relays.join(", ");
        format!(
            "[burst]\nrelays = [{relays}]\n\
             certificate = 'certs/agent.pem'\nkey = 'certs/agent.key'\nca = 'certs/ca.pem'\n{config}"
        )
    }

    /// The folder itself.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The key that lets unsigned modules run, for all tests but those that have a table `[trust]`.
fn trust(config: &str) -> &'static str {
    match config.contains("trust") {
        true => "",
        false => "trust.allow-unsigned = true\n",
    }
}

/// A port of loopback that nothing listens on, or did a moment ago.
#[must_use]
pub fn free_port() -> SocketAddr {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(any).expect("loopback has a free port");
    listener.local_addr().expect("a listener has an address")
}
