//! Peers that should not be here, and what they say before and beside requests.

use std::sync::Arc;

use quinn::rustls;
use quinn::rustls::pki_types::CertificateDer;
use quinn::rustls::pki_types::pem::PemObject;
use quinn::{ConnectionError, Endpoint};
use tempfile::TempDir;
use tidegate_wire::{ALPN, ControlMessage, ModuleOffer, code};

use crate::agent::{Agent, check_neighbour, endpoint, endpoint_with, soon};
use crate::fixture::{certificates, identity, relay};

/// The peer's handshake, or the relay's word after it, ends the connection.
async fn check_kept_out(peer: Endpoint, certificates: &TempDir, reason: &str) {
    let relay = relay(certificates, "").await;
    let error = match soon(peer.connect(relay.local_addr(), "localhost").unwrap()).await {
        Err(error) => error,
        // TLS 1.3 lets a client finish before the server has looked at its certificate.
        Ok(connection) => soon(connection.closed()).await,
    };
    assert!(
        matches!(error, ConnectionError::ConnectionClosed(_)),
        "{error:?}"
    );
    assert!(
        error.to_string().contains(reason),
        "{reason:?} not in {error}"
    );
    check_neighbour(relay.local_addr(), certificates).await;
}

fn roots(certificates: &TempDir) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(certificates.path().join("ca.pem")).unwrap();
    roots.add(ca).unwrap();
    roots
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_a_certificate_is_kept_out() {
    let certificates = certificates();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(&certificates))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let peer = endpoint_with(Arc::new(tls));
    check_kept_out(peer, &certificates, "certificate").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_kept_out() {
    let certificates = certificates();
    let theirs = self::certificates();
    let mut files = identity(theirs.path(), "agent");
    // It trusts the relay all the same, so that it is the relay that refuses.
    files.ca = certificates.path().join("ca.pem");
    let tls = tidegate_identity::agent_config(&files, ALPN).unwrap();
    check_kept_out(endpoint_with(tls), &certificates, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_protocol_is_kept_out() {
    let certificates = certificates();
    let files = identity(certificates.path(), "agent");
    let tls = tidegate_identity::agent_config(&files, b"h3").unwrap();
    check_kept_out(endpoint_with(tls), &certificates, "protocol").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_no_hello_loses_its_connection() {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let peer = endpoint(&certificates);
    let silent = soon(peer.connect(relay.local_addr(), "localhost").unwrap())
        .await
        .unwrap();
    match soon(silent.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code.into_inner(), u64::from(code::TIMED_OUT));
        }
        other => panic!("{other:?}"),
    }
    check_neighbour(relay.local_addr(), &certificates).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_holds_only_so_many_connections() {
    let certificates = certificates();
    let relay = relay(&certificates, "connections-per-peer-max = 2").await;
    let to = relay.local_addr();
    let first = Agent::connect(to, &certificates, &[]).await;
    let _second = Agent::connect(to, &certificates, &[]).await;
    let peer = endpoint(&certificates);
    let third = soon(peer.connect(to, "localhost").unwrap()).await.unwrap();
    match soon(third.closed()).await {
        ConnectionError::ApplicationClosed(close) => {
            assert_eq!(close.error_code.into_inner(), u64::from(code::BUSY));
        }
        other => panic!("{other:?}"),
    }
    // The place of one that leaves is free again, as soon as the relay has heard of it.
    first.connection.close(code::NONE.into(), b"");
    soon(async {
        loop {
            let peer = endpoint(&certificates);
            let next = soon(peer.connect(to, "localhost").unwrap()).await.unwrap();
            tokio::select! {
                _ = next.closed() => {}
                _ = next.accept_uni() => break,
            }
        }
    })
    .await;
}

/// The relay closes the connection of an agent that writes `bytes` to its control stream.
async fn check_control(bytes: &[u8], wanted: u32, reason: &str) {
    let certificates = certificates();
    let relay = relay(&certificates, "").await;
    let mut agent = Agent::connect(relay.local_addr(), &certificates, &[]).await;
    // The relay may close before it has read everything.
    let _ = agent.control.write_all(bytes).await;
    let (code, got) = agent.closed().await;
    assert_eq!(code, u64::from(wanted), "{got}");
    assert!(got.contains(reason), "{reason:?} not in {got:?}");
    check_neighbour(relay.local_addr(), &certificates).await;
}

fn frame(header: &[u8]) -> Vec<u8> {
    let len = u32::try_from(header.len()).unwrap();
    [b"TDGT\x01\x03", &len.to_be_bytes()[..], header].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_control_stream_ends_the_connection() {
    check_control(&[0x5a; 4096], code::MALFORMED, "control stream").await;
    check_control(&frame(b"\xff\xff"), code::MALFORMED, "control stream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_message_that_stalls_ends_the_connection() {
    for begun in [&b"TD"[..], b"TDGT\x01\x03\0\0\0\x10abc"] {
        check_control(begun, code::TIMED_OUT, "control stream").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_over_the_limits_ends_the_connection() {
    let lies = b"TDGT\x01\x03\xff\xff\xff\xff";
    check_control(lies, code::MALFORMED, "control stream").await;
    let hello = ControlMessage::Hello {
        name: "again".to_owned(),
        modules: vec![
            ModuleOffer {
                name: "m".repeat(128),
                digest: tidegate_inference::Digest([1; 32]),
                len: 1,
            };
            64
        ],
    };
    let mut twice = hello.encode().unwrap().to_vec();
    check_control(&twice, code::MALFORMED, "second hello").await;
    // One module more than a hello may list: an array of 65 where 64 stood.
    let array = twice
        .windows(2)
        .position(|window| window == [0x98, 64])
        .unwrap();
    twice[array + 1] = 65;
    check_control(&twice, code::MALFORMED, "control stream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_that_cannot_be_meant_ends_the_connection() {
    // [3, {0: slots, 1: 1000, 2: 500}], with what no encoder writes for the slots.
    let reservation = |slots: &[u8]| {
        frame(
            &[
                b"\x82\x03\xa3\x00",
                slots,
                b"\x01\x19\x03\xe8\x02\x19\x01\xf4",
            ]
            .concat(),
        )
    };
    let check = async |slots: &[u8], reason| {
        check_control(&reservation(slots), code::MALFORMED, reason).await;
    };
    check(b"\x20", "control stream").await;
    check(b"\xf9\x7e\x00", "control stream").await;
    check(b"\xfa\x7f\x80\x00\x00", "control stream").await;
    // 1,000,000.001 slots.
    check(b"\x1a\x3b\x9a\xca\x01", "control stream").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_control_messages_ends_the_connection() {
    let message = ControlMessage::Reservation {
        slots: 1.0,
        horizon: std::time::Duration::from_secs(1),
        probability: 0.5,
    };
    let flood = message.encode().unwrap().repeat(1000);
    check_control(&flood, code::BUSY, "too many").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_relay_says_ends_the_connection() {
    let digest = tidegate_inference::Digest([1; 32]);
    for message in [
        ControlMessage::Load(tidegate_wire::LoadReport::default()),
        ControlMessage::ModuleReady { digest },
        ControlMessage::Credits { in_flight_max: 1 },
        ControlMessage::ModuleOffered { digest, len: 1 },
    ] {
        let bytes = message.encode().unwrap();
        check_control(&bytes, code::MALFORMED, "no place").await;
    }
}
