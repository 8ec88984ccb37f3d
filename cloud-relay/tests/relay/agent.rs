//! An agent as a test drives it: raw QUIC and the codec, so that it can also break the rules.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::rustls;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, WriteError,
};
use tempfile::TempDir;
use tidegate_inference::{Digest, Failure, FailureKind, NamedTensor, Priority};
use tidegate_runtime::module::sha256;
use tidegate_wire::{
    ALPN, Answer, ControlMessage, Kind, LoadReport, ModuleOffer, PREFIX_BYTES, Prefix, ReplyHeader,
    ReplyMessage, RequestMessage,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, timeout};

use crate::fixture::{identity, relu_module, tensor};

/// Whatever a test waits for comes within this, or the test fails.
const SOON: Duration = Duration::from_secs(60);

/// Waits for `what`, and says where it was waited for if it does not come.
#[track_caller]
pub(crate) fn soon<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let at = Location::caller();
    async move {
        let waited = timeout(SOON, what).await;
        waited.unwrap_or_else(|_| panic!("{at}: it should not take so long"))
    }
}

/// A module and what the agent sends when it is asked for it.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) offer: ModuleOffer,
    pub(crate) announced: u64,
    pub(crate) bytes: Bytes,
    pub(crate) pace: Pace,
}

/// How an agent sends a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as it can.
    Full,
    /// A byte at a time, soon enough after the last to count as no stall.
    Trickle,
}

impl Offer {
    /// The module as it is.
    pub(crate) fn honest(name: &str, file: &Bytes) -> Self {
        let len = u64::try_from(file.len()).unwrap();
        Self {
            offer: ModuleOffer {
                name: name.to_owned(),
                digest: sha256(file),
                len,
            },
            announced: len,
            bytes: file.clone(),
            pace: Pace::Full,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.offer.digest
    }
}

/// A connected and greeted agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) connection: Connection,
    pub(crate) control: SendStream,
    /// What the relay's hello lists.
    pub(crate) hello: Vec<ModuleOffer>,
    /// Modules that the relay has called ready, in its hello or since.
    ready: HashSet<Digest>,
    /// How often the relay asked for a module.
    pub(crate) asked: Arc<AtomicUsize>,
    /// The code that the relay stopped the last trickling transfer with.
    pub(crate) stopped: watch::Receiver<Option<u64>>,
    said: mpsc::UnboundedReceiver<ControlMessage>,
    _endpoint: Endpoint,
}

/// A client endpoint with the certificate of the agent in `certificates`.
pub(crate) fn endpoint(certificates: &TempDir) -> Endpoint {
    let tls = tidegate_identity::agent_config(&identity(certificates.path(), "agent"), ALPN);
    endpoint_with(tls.unwrap())
}

pub(crate) fn endpoint_with(tls: Arc<rustls::ClientConfig>) -> Endpoint {
    let crypto = QuicClientConfig::try_from(tls).unwrap();
    let mut endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
    endpoint
}

impl Agent {
    /// Connects, says hello with `offers`, and hands modules over as they are asked for.
    pub(crate) async fn connect(to: SocketAddr, certificates: &TempDir, offers: &[Offer]) -> Self {
        let endpoint = endpoint(certificates);
        let connection = soon(endpoint.connect(to, "localhost").unwrap())
            .await
            .unwrap();
        Self::greet(endpoint, connection, offers).await
    }

    pub(crate) async fn greet(
        endpoint: Endpoint,
        connection: Connection,
        offers: &[Offer],
    ) -> Self {
        let hello = ControlMessage::Hello {
            name: "test".to_owned(),
            modules: offers.iter().map(|offer| offer.offer.clone()).collect(),
        };
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(&hello.encode().unwrap()).await.unwrap();

        let mut stream = soon(connection.accept_uni()).await.unwrap();
        let ControlMessage::Hello { modules, .. } = soon(read_control(&mut stream)).await.unwrap()
        else {
            panic!("the relay's first message should be a hello");
        };
        let (say, said) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(message) = read_control(&mut stream).await {
                let _ = say.send(message);
            }
        });
        let asked = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = watch::channel(None);
        tokio::spawn(hand_over(
            connection.clone(),
            offers.to_vec(),
            Arc::clone(&asked),
            stop,
        ));
        Self {
            connection,
            control,
            ready: modules.iter().map(|offer| offer.digest).collect(),
            hello: modules,
            asked,
            stopped,
            said,
            _endpoint: endpoint,
        }
    }

    /// Reads control messages until one gives a value.
    pub(crate) async fn hear<T>(&mut self, want: impl Fn(&ControlMessage) -> Option<T>) -> T {
        soon(async {
            loop {
                let message = self
                    .said
                    .recv()
                    .await
                    .expect("the relay should go on talking");
                if let ControlMessage::ModuleReady { digest } = message {
                    self.ready.insert(digest);
                }
                if let Some(value) = want(&message) {
                    return value;
                }
            }
        })
        .await
    }

    /// Waits for a load report that is as `want` says.
    pub(crate) async fn hear_load(&mut self, want: impl Fn(&LoadReport) -> bool) -> LoadReport {
        self.hear(|message| match message {
            ControlMessage::Load(load) => want(load).then(|| load.clone()),
            _ => None,
        })
        .await
    }

    /// Waits until the relay can run the module.
    pub(crate) async fn module_ready(&mut self, wanted: Digest) {
        if !self.ready.contains(&wanted) {
            self.hear(|message| match message {
                ControlMessage::ModuleReady { digest } => (*digest == wanted).then_some(()),
                _ => None,
            })
            .await;
        }
    }

    pub(crate) async fn infer(&self, module: Digest, inputs: Vec<NamedTensor>) -> ReplyMessage {
        self.exchange(&request(module, inputs)).await
    }

    pub(crate) async fn exchange(&self, message: &RequestMessage) -> ReplyMessage {
        let (mut send, mut recv) = soon(self.connection.open_bi()).await.unwrap();
        write(&mut send, message).await;
        send.finish().unwrap();
        soon(read_reply(&mut recv)).await
    }

    /// Why the relay closed the connection.
    pub(crate) async fn closed(&self) -> (u64, String) {
        match soon(self.connection.closed()).await {
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason).into_owned();
                (close.error_code.into_inner(), reason)
            }
            other => panic!("the relay should close the connection, got {other}"),
        }
    }
}

pub(crate) fn request(module: Digest, inputs: Vec<NamedTensor>) -> RequestMessage {
    RequestMessage {
        module,
        time_left: Duration::from_secs(30),
        priority: Priority::Normal,
        outputs: Vec::new(),
        inputs,
    }
}

/// A message's bytes as they cross.
pub(crate) fn bytes_of(message: &RequestMessage) -> Vec<u8> {
    let encoded = message.encode().unwrap();
    let mut bytes = encoded.head.to_vec();
    encoded
        .payload
        .iter()
        .for_each(|chunk| bytes.extend_from_slice(chunk));
    bytes
}

pub(crate) async fn write(send: &mut SendStream, message: &RequestMessage) {
    // A relay that refuses by the header stops the rest.
    let _ = send.write_all(&bytes_of(message)).await;
}

pub(crate) async fn read_reply(recv: &mut RecvStream) -> ReplyMessage {
    let mut prefix = [0; PREFIX_BYTES];
    recv.read_exact(&mut prefix).await.unwrap();
    let mut header = vec![
        0;
        Prefix::decode(&prefix)
            .unwrap()
            .expect(Kind::Reply)
            .unwrap()
    ];
    recv.read_exact(&mut header).await.unwrap();
    let header = ReplyHeader::decode(&header).unwrap();
    let payload = recv.read_to_end(header.payload_len()).await.unwrap();
    header.with_payload(payload.into()).unwrap()
}

async fn read_control(recv: &mut RecvStream) -> Option<ControlMessage> {
    let mut prefix = [0; PREFIX_BYTES];
    recv.read_exact(&mut prefix).await.ok()?;
    let mut header = vec![
        0;
        Prefix::decode(&prefix)
            .unwrap()
            .expect(Kind::Control)
            .unwrap()
    ];
    recv.read_exact(&mut header).await.ok()?;
    Some(ControlMessage::decode(&header).unwrap())
}

async fn hand_over(
    connection: Connection,
    offers: Vec<Offer>,
    asked: Arc<AtomicUsize>,
    stopped: watch::Sender<Option<u64>>,
) {
    while let Ok((mut send, mut recv)) = connection.accept_bi().await {
        asked.fetch_add(1, Ordering::SeqCst);
        let Some(ControlMessage::ModuleWanted { digest }) = read_control(&mut recv).await else {
            panic!("the relay opens streams for modules only");
        };
        let offer = offers
            .iter()
            .find(|offer| offer.digest() == digest)
            .unwrap();
        let len = offer.announced;
        let head = ControlMessage::ModuleOffered { digest, len };
        // The relay stops a transfer that it will not have.
        let _ = send.write_all(&head.encode().unwrap()).await;
        match offer.pace {
            Pace::Full => {
                let _ = send.write_all(&offer.bytes).await;
            }
            Pace::Trickle => {
                if let Err(WriteError::Stopped(code)) = trickle(&mut send, &offer.bytes).await {
                    stopped.send_replace(Some(code.into_inner()));
                }
            }
        }
        let _ = send.finish();
    }
}

async fn trickle(send: &mut SendStream, bytes: &[u8]) -> Result<(), WriteError> {
    let mut ticks = interval(Duration::from_millis(100));
    for byte in bytes {
        ticks.tick().await;
        send.write_all(&[*byte]).await?;
    }
    Ok(())
}

/// Values of the only output.
pub(crate) fn floats(answer: &Answer) -> Vec<f32> {
    let [output] = &answer.outputs[..] else {
        panic!("one output is expected, got {:?}", answer.outputs);
    };
    let (values, rest) = output.tensor.data().as_chunks::<4>();
    assert!(rest.is_empty());
    values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect()
}

#[track_caller]
pub(crate) fn refused(reply: &ReplyMessage, kind: FailureKind, parts: &[&str]) -> Failure {
    let failure = reply
        .result
        .as_ref()
        .expect_err("the relay should refuse this");
    assert_eq!(failure.kind, kind, "{failure}");
    for part in parts {
        assert!(
            failure.message.contains(part),
            "{part:?} not in {:?}",
            failure.message
        );
    }
    failure.clone()
}

/// Checks that an honest agent on a connection of its own is served.
pub(crate) async fn check_neighbour(to: SocketAddr, certificates: &TempDir) {
    let relu = Offer::honest("relu", &relu_module());
    let mut agent = Agent::connect(to, certificates, std::slice::from_ref(&relu)).await;
    agent.module_ready(relu.digest()).await;
    let reply = agent
        .infer(relu.digest(), vec![tensor(&[2], &[-1.0, 2.0])])
        .await;
    assert_eq!(floats(&reply.result.unwrap()), [0.0, 2.0]);
}
