//! A relay, an agent's links to it, and the path between them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_cloud_relay::{Config, Relay};
use tidegate_control::{ModelIndex, RelayId};
use tidegate_identity::{IdentityFiles, make_dev_certs};
use tidegate_inference::{Dtype, NamedTensor, Priority, Shape, Tensor, TensorSpec};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Manifest, Model, ModuleFile, Runtime, RuntimeConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::models::{Pin, Served};

use super::super::{Burst, BurstConfig, BurstError, BurstReply, RelayEvent};

/// An ONNX model of one operator, Relu, from `x` to `y`, vectors of 32-bit floats.
const RELU: &[u8] = b"\x08\x08:8\x0a\x0c\x0a\x01x\x12\x01y\x22\x04Relu\x12\x04mainZ\x10\x0a\x01x\
    \x12\x0b\x0a\x09\x08\x01\x12\x05\x0a\x03\x12\x01Nb\x10\x0a\x01y\x12\x0b\x0a\x09\x08\x01\
    \x12\x05\x0a\x03\x12\x01NB\x04\x0a\x00\x10\x0d";

/// Whatever a test waits for comes within this, or the test fails.
pub(super) const SOON: Duration = Duration::from_secs(60);

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what)
        .await
        .expect("it should not take so long")
}

/// A module that needs no guest of its own.
pub(super) fn served(version: &str) -> Arc<Served> {
    let index = ModelIndex(0);
    let model = model(version);
    Arc::new(Served {
        index,
        model,
        kept: None,
    })
}

fn model(version: &str) -> Arc<Model> {
    let spec = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        shape: vec![-1],
    };
    let manifest = Manifest::new("relu", version, vec![spec("x")], vec![spec("y")]);
    let component = pass_through("main").unwrap();
    let file = ModuleFile::assemble(&component, manifest, &[("main", RELU)]).unwrap();
    let runtime = Runtime::start(RuntimeConfig::new(1)).unwrap();
    runtime.load(file.file().clone()).unwrap()
}

pub(super) fn input(values: &[f32]) -> Vec<NamedTensor> {
    let data: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    vec![NamedTensor {
        name: "x".to_owned(),
        tensor: Tensor::new(Dtype::Fp32, Shape::from_slice(&[values.len()]), data.into()).unwrap(),
    }]
}

pub(super) fn identity(folder: &Path) -> IdentityFiles {
    IdentityFiles {
        certificate: folder.join("agent.pem"),
        key: folder.join("agent.key"),
        ca: folder.join("ca.pem"),
    }
}

/// The certificates of one machine, a model, and an agent's links, told of relays by a file.
pub(super) struct Site {
    pub(super) folder: TempDir,
    pub(super) served: Arc<Served>,
    pub(super) burst: Burst,
    pub(super) events: mpsc::Receiver<RelayEvent>,
}

impl Site {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_dev_certs(folder.path()).unwrap();
        let served = served("1.0.0");
        let config = BurstConfig {
            relays: Vec::new(),
            relays_file: Some(folder.path().join("relays.txt")),
            identity: identity(folder.path()),
            name: "test".to_owned(),
        };
        let (send, events) = mpsc::channel(64);
        let burst = Burst::start(config, vec![Arc::clone(&served)], send).unwrap();
        Self {
            folder,
            served,
            burst,
            events,
        }
    }

    pub(super) async fn relay(&self, listen: SocketAddr, extra: &str) -> Relay {
        tidegate_cloud_relay::start(self.config(listen, extra))
            .await
            .unwrap()
    }

    pub(super) fn config(&self, listen: SocketAddr, extra: &str) -> Config {
        let text = format!(
            "listen = \"{listen}\"\ncertificate = \"relay.pem\"\nkey = \"relay.key\"\n\
             ca = \"ca.pem\"\nslots = 1\ntrust.allow-unsigned = true\nstate-dir = \"state\"\n{extra}"
        );
        Config {
            vetting: None,
            tract_guest: None,
            ..Config::parse(&text, &self.folder.path().join("relay.toml")).unwrap()
        }
    }

    pub(super) fn list(&self, relays: &[SocketAddr]) {
        let lines: String = relays.iter().map(|relay| format!("{relay}\n")).collect();
        std::fs::write(self.folder.path().join("relays.txt"), lines).unwrap();
    }

    pub(super) async fn event(&mut self) -> RelayEvent {
        soon(self.events.recv())
            .await
            .expect("the links should live on")
    }

    /// The next relay that can run the model. It has reported its load before.
    pub(super) async fn ready(&mut self) -> RelayId {
        let mut reported = None;
        loop {
            match self.event().await {
                RelayEvent::Report { relay, load } => {
                    assert_eq!(load.slots, 1);
                    reported = Some(relay);
                }
                RelayEvent::ModelReady { relay, model } => {
                    assert_eq!((Some(relay), model), (reported, ModelIndex(0)));
                    return relay;
                }
                RelayEvent::Gone { relay } => panic!("{relay:?} is gone"),
            }
        }
    }

    /// Waits for the last that is heard of `relay`.
    pub(super) async fn gone(&mut self, relay: RelayId) {
        while !matches!(self.event().await, RelayEvent::Gone { relay: gone } if gone == relay) {}
        while let Ok(event) = self.events.try_recv() {
            let (RelayEvent::Report { relay: heard, .. }
            | RelayEvent::ModelReady { relay: heard, .. }
            | RelayEvent::Gone { relay: heard }) = event;
            assert_ne!(heard, relay, "Gone should be the last event");
        }
    }

    pub(super) async fn infer(
        &self,
        relay: RelayId,
        values: &[f32],
    ) -> Result<BurstReply, BurstError> {
        let deadline = Instant::now() + SOON;
        let (served, outputs) = (&self.served, vec!["y".to_owned()]);
        let inputs = input(values);
        soon(self.burst.infer(
            relay,
            served,
            Pin::Any,
            inputs,
            outputs,
            Priority::Normal,
            deadline,
        ))
        .await
    }
}

pub(super) const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// What the relay's metrics page says.
pub(super) async fn metrics(relay: &Relay) -> String {
    let mut stream = TcpStream::connect(relay.metrics_addr().unwrap())
        .await
        .unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: relay\r\n\r\n")
        .await
        .unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

/// Forwards datagrams between one agent and `to` until `dead` is set.
pub(super) async fn path(to: SocketAddr, dead: Arc<AtomicBool>) -> SocketAddr {
    let near = UdpSocket::bind(ANY_PORT).await.unwrap();
    let address = near.local_addr().unwrap();
    tokio::spawn(async move {
        let far = UdpSocket::bind(ANY_PORT).await.unwrap();
        far.connect(to).await.unwrap();
        let mut agent = None;
        let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                Ok((len, from)) = near.recv_from(&mut out) => {
                    agent = Some(from);
                    if !dead.load(Ordering::SeqCst) {
                        let _ = far.send(&out[..len]).await;
                    }
                }
                Ok(len) = far.recv(&mut back) => {
                    if let (Some(agent), false) = (agent, dead.load(Ordering::SeqCst)) {
                        let _ = near.send_to(&back[..len], agent).await;
                    }
                }
            }
        }
    });
    address
}
