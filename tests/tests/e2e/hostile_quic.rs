//! Peers of a relay that have no business there, or do not keep to the protocol.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use tidegate_identity::{IdentityFiles, agent_config};
use tidegate_inference::Digest;
use tidegate_tests::metrics::Page;
use tidegate_tests::models::echo_request;
use tidegate_tests::site::{Agent, Relay, Site};
use tidegate_tests::wait::{PATIENCE, eventually, within_patience};
use tidegate_wire::{ALPN, ControlMessage, ModuleOffer};

use crate::burst::{agent, all_connected};

/// What a relay may have resident, whatever is sent to it.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;

/// A relay, and an agent of it that keeps to the protocol.
struct Scene {
    site: Site,
    relay: Relay,
    agent: Agent,
}

impl Scene {
    async fn start() -> Self {
        let site = Site::new();
        let relay = site.relay("relay", "slots = 1\nstall-ms = 500\n");
        let agent = agent(&site, &[&relay]);
        all_connected(&agent, &[&relay]).await;
        Self { site, relay, agent }
    }

    /// The TLS of an agent with the certificates in `own`, which trusts the relay.
    fn tls(&self, own: &str) -> rustls::ClientConfig {
        let own = self.site.certificates(own);
        let files = IdentityFiles {
            certificate: own.join("agent.pem"),
            key: own.join("agent.key"),
            ca: self.site.path("certs/ca.pem"),
        };
        Arc::unwrap_or_clone(agent_config(&files, ALPN).unwrap())
    }

    async fn connect(&self, tls: rustls::ClientConfig) -> Result<Connection, String> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut endpoint = Endpoint::client(any).unwrap();
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        endpoint.set_default_client_config(ClientConfig::new(Arc::new(crypto)));
        let connecting = endpoint
            .connect(self.relay.daemon.address(), "localhost")
            .unwrap();
        let connected = within_patience("a handshake", connecting).await;
        connected.map_err(|error| error.to_string())
    }

    /// A connection that the relay accepts.
    async fn good_connection(&self) -> Connection {
        self.connect(self.tls("certs")).await.unwrap()
    }

    /// The relay has not grown and its good agent is still connected, and served.
    async fn stands(&self) {
        let resident = self.relay.daemon.peak_resident_bytes();
        assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes");
        let page = Page::fetch(&self.agent.http).await.unwrap();
        assert_eq!(page.sum("tidegate_relays_connected", &[]), Some(1.0));
        let answer = self
            .agent
            .http
            .infer("echo", &echo_request("1", 1))
            .await
            .unwrap();
        assert_eq!(answer.outputs()[0]["data"], json!([1]));
    }
}

/// Waits until the relay closes the connection, and gives the reason.
async fn closed(connection: &Connection) -> String {
    within_patience("the relay closes", connection.closed())
        .await
        .to_string()
}

fn roots(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_without_the_right_certificate_or_protocol_gets_no_connection() {
    let scene = Scene::start().await;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut anonymous = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&scene.site.path("certs/ca.pem")))
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![ALPN.to_vec()];
    let mut other_protocol = scene.tls("certs");
    other_protocol.alpn_protocols = vec![b"h3".to_vec()];
    let mut no_protocol = scene.tls("certs");
    no_protocol.alpn_protocols.clear();
    for (what, tls) in [
        ("no certificate", anonymous),
        ("the certificate of another CA", scene.tls("strangers")),
        ("another protocol", other_protocol),
        ("no protocol", no_protocol),
    ] {
        // In TLS 1.3 a client may believe itself connected until the refusal arrives.
        let reason = match scene.connect(tls).await {
            Ok(connection) => closed(&connection).await,
            Err(reason) => reason,
        };
        assert!(!reason.contains("timed out"), "{what}: {reason}");
    }
    scene.stands().await;
    let page = Page::fetch(&scene.relay.metrics).await.unwrap();
    assert_eq!(page.sum("tidegate_relay_connections", &[]), Some(1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_that_are_not_quic_change_nothing() {
    let scene = Scene::start().await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut state = 7_u64;
    for len in (0..1200).step_by(3) {
        let garbage: Vec<u8> = (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                state.to_be_bytes()[0]
            })
            .collect();
        socket
            .send_to(&garbage, scene.relay.daemon.address())
            .unwrap();
    }
    scene.stands().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_a_control_stream_ends_the_connection_and_no_other() {
    let scene = Scene::start().await;
    let oversized = [&b"TDGT\x01\x03"[..], &u32::MAX.to_be_bytes()].concat();
    let wrong_kind = b"TDGT\x01\x01\0\0\0\0";
    for (what, bytes) in [
        ("text", &b"GET / HTTP/1.1\r\n\r\n"[..]),
        ("a header of 4 GiB", &oversized),
        ("a request", wrong_kind),
        ("another version", b"TDGT\x09\x03\0\0\0\x01\x80"),
        ("no CBOR", b"TDGT\x01\x03\0\0\0\x04\xff\xff\xff\xff"),
    ] {
        let connection = scene.good_connection().await;
        let mut control = connection.open_uni().await.unwrap();
        control.write_all(bytes).await.unwrap();
        let reason = closed(&connection).await;
        assert!(!reason.contains("timed out"), "{what}: {reason}");
    }
    scene.stands().await;
}

/// Sends a hello that offers `module`, as an agent does first, on a control stream.
async fn try_say_hello(
    connection: &Connection,
    module: Digest,
) -> Result<quinn::SendStream, quinn::WriteError> {
    let offer = ModuleOffer {
        name: "echo".into(),
        digest: module,
        len: 1000,
    };
    let hello = ControlMessage::Hello {
        name: "hostile".into(),
        modules: vec![offer],
    };
    let mut control = connection.open_uni().await?;
    control.write_all(&hello.encode().unwrap()).await?;
    Ok(control)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_with_garbage_or_nothing_on_them_end_and_neighbours_are_served() {
    let scene = Scene::start().await;
    let connection = scene.good_connection().await;
    let _control = try_say_hello(&connection, Digest([7; 32])).await.unwrap();
    let mut stalled = Vec::new();
    for bytes in [
        &b""[..],
        b"TDGT",
        b"TDGT\x01\x01\0\0\x0f\xff",
        b"TDGT\x01\x01\0\0\0\x09\xa5",
    ] {
        for _ in 0..8 {
            let (mut send, recv) = connection.open_bi().await.unwrap();
            // A stream exists for the peer once something is sent on it.
            send.write_all(if bytes.is_empty() { b"T" } else { bytes })
                .await
                .unwrap();
            stalled.push((send, recv));
        }
    }
    scene.stands().await;
    for (_send, mut recv) in stalled {
        let ended = tokio::time::timeout(PATIENCE, recv.read_to_end(1 << 16)).await;
        assert!(ended.is_ok(), "a stalled stream is given up");
    }
    let oversized = [&b"TDGT\x01\x01"[..], &u32::MAX.to_be_bytes()].concat();
    for bytes in [
        &oversized[..],
        b"nonsense, and more of it",
        b"TDGT\x01\x01\0\0\0\x02\xff\xff",
    ] {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let _ = send.finish();
        let ended = tokio::time::timeout(PATIENCE, recv.read_to_end(1 << 16)).await;
        assert!(ended.is_ok(), "{bytes:?} is answered or reset");
    }
    scene.stands().await;
    connection.close(0_u32.into(), b"");
    eventually("one connection left", async || {
        let page = Page::fetch(&scene.relay.metrics).await.unwrap();
        page.sum("tidegate_relay_connections", &[])
            .filter(|connections| *connections == 1.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_name_cannot_take_every_connection() {
    // The relay's default, of which the good agent holds one.
    const CONNECTIONS_PER_PEER_MAX: usize = 8;

    let scene = Scene::start().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_PER_PEER_MAX {
        let connection = scene.good_connection().await;
        let control = try_say_hello(&connection, Digest([7; 32])).await;
        open.push((connection, control));
    }
    // Handshakes end in any order, so any of them may be the one too many.
    let reasons = eventually("a connection refused", async || {
        let reasons: Vec<_> = open
            .iter()
            .filter_map(|(connection, _)| connection.close_reason())
            .collect();
        (!reasons.is_empty()).then_some(reasons)
    })
    .await;
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons[0].to_string().contains("too many connections"),
        "{reasons:?}"
    );
    scene.stands().await;
}
