//! Whole handshakes in memory: who gets in, who does not, and which side says why.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, RootCertStore,
    ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use tidegate_identity::{
    DEV_VALIDITY, IdentityFiles, PeerError, Role, agent_config, make_dev_certs, make_dev_certs_at,
    peer_name, relay_config,
};

use crate::authority::Authority;

const ALPN: &[u8] = b"tidegate/1";
const DEVICE: &str = "spiffe://d.example/tenant/t/device/d";
const RELAY: &str = "spiffe://d.example/relay/r";

/// Flights of a handshake are few; more means that the two never finish.
const FLIGHTS_MAX: usize = 10;

type Sides = (ClientConnection, ServerConnection);

fn connect(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    host: &str,
) -> Result<Sides, Error> {
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), host)?;
    let mut server = ServerConnection::new(Arc::clone(server))?;
    for _ in 0..FLIGHTS_MAX {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        server.read_tls(&mut flight.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut flight = Vec::new();
        server.write_tls(&mut flight).unwrap();
        client.read_tls(&mut flight.as_slice()).unwrap();
        client.process_new_packets()?;
        if !client.is_handshaking() && !server.is_handshaking() && !client.wants_write() {
            return Ok((client, server));
        }
    }
    panic!("the handshake does not end");
}

fn connect_files(agent: &IdentityFiles, relay: &IdentityFiles) -> Result<Sides, Error> {
    let client = agent_config(agent, ALPN).unwrap();
    let server = relay_config(relay, ALPN).unwrap();
    connect(&client, &server, "localhost")
}

fn dev_certs(now: SystemTime) -> (tempfile::TempDir, IdentityFiles, IdentityFiles) {
    let dir = tempfile::tempdir().unwrap();
    make_dev_certs_at(dir.path(), now).unwrap();
    let files = |side: &str| IdentityFiles {
        certificate: dir.path().join(format!("{side}.pem")),
        key: dir.path().join(format!("{side}.key")),
        ca: dir.path().join("ca.pem"),
    };
    let (agent, relay) = (files("agent"), files("relay"));
    (dir, agent, relay)
}

#[track_caller]
fn peer_error(result: Result<Sides, Error>) -> PeerError {
    match result {
        Err(Error::InvalidCertificate(CertificateError::Other(other))) => {
            other.0.downcast_ref::<PeerError>().unwrap().clone()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn development_certificates_connect_and_name_both_sides() {
    let (_dir, agent, relay) = dev_certs(SystemTime::now());
    let client = agent_config(&agent, ALPN).unwrap();
    let server = relay_config(&relay, ALPN).unwrap();
    for host in ["localhost", "127.0.0.1", "::1"] {
        let (client, server) = connect(&client, &server, host).unwrap();
        assert_eq!(client.alpn_protocol(), Some(ALPN));
        assert_eq!(
            client.protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
        let relay = peer_name(client.peer_certificates().unwrap()).unwrap();
        assert_eq!((relay.role(), relay.short()), (Role::Relay, "relay"));
        let agent = peer_name(server.peer_certificates().unwrap()).unwrap();
        assert_eq!((agent.role(), agent.short()), (Role::Device, "agent"));
        assert_eq!(agent.trust_domain(), relay.trust_domain());
    }
}

#[test]
fn every_connection_is_a_full_handshake() {
    let (_dir, agent, relay) = dev_certs(SystemTime::now());
    let client = agent_config(&agent, ALPN).unwrap();
    let server = relay_config(&relay, ALPN).unwrap();
    for _ in 0..3 {
        let (client, server) = connect(&client, &server, "localhost").unwrap();
        let full = Some(rustls::HandshakeKind::Full);
        assert_eq!(
            (client.handshake_kind(), server.handshake_kind()),
            (full, full)
        );
        assert_eq!(client.tls13_tickets_received(), 0);
    }
    assert_eq!(server.max_early_data_size, 0);
    assert!(!client.enable_early_data);
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let (dir, _, relay) = dev_certs(SystemTime::now());
    let client = anonymous_client(&dir.path().join("ca.pem"), &[&rustls::version::TLS13]);
    let server = relay_config(&relay, ALPN).unwrap();
    let refused = connect(&client, &server, "localhost").unwrap_err();
    assert_eq!(refused, Error::NoCertificatesPresented);
}

#[test]
fn a_client_of_tls_1_2_is_refused() {
    let (dir, _, relay) = dev_certs(SystemTime::now());
    let client = anonymous_client(&dir.path().join("ca.pem"), &[&rustls::version::TLS12]);
    let server = relay_config(&relay, ALPN).unwrap();
    let refused = connect(&client, &server, "localhost").unwrap_err();
    assert!(matches!(refused, Error::PeerIncompatible(_)), "{refused}");
}

fn anonymous_client(
    ca: &std::path::Path,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    let ca = rustls::pki_types::CertificateDer::from_pem_file(ca).unwrap();
    roots.add(ca).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

#[test]
fn a_certificate_of_another_ca_is_refused_by_either_side() {
    let (_one, agent, relay) = dev_certs(SystemTime::now());
    let (_two, other_agent, other_relay) = dev_certs(SystemTime::now());
    let unknown = |certificate| {
        matches!(
            certificate,
            CertificateError::UnknownIssuer | CertificateError::BadSignature
        )
    };
    match connect_files(&agent, &other_relay).unwrap_err() {
        Error::InvalidCertificate(error) => assert!(unknown(error)),
        other => panic!("{other}"),
    }
    // This agent trusts the relay's CA, but its own certificate is of the other one.
    let trusting = IdentityFiles {
        ca: relay.ca.clone(),
        ..other_agent
    };
    match connect_files(&trusting, &relay).unwrap_err() {
        Error::InvalidCertificate(error) => assert!(unknown(error)),
        other => panic!("{other}"),
    }
}

#[test]
fn an_expired_certificate_is_refused() {
    let day = Duration::from_secs(24 * 60 * 60);
    let (_dir, agent, relay) = dev_certs(SystemTime::now() - DEV_VALIDITY - day);
    let refused = connect_files(&agent, &relay).unwrap_err();
    let expired = matches!(
        refused,
        Error::InvalidCertificate(CertificateError::ExpiredContext { .. })
    );
    assert!(expired, "{refused}");
    let (_dir, agent, relay) = dev_certs(SystemTime::now() + day);
    let refused = connect_files(&agent, &relay).unwrap_err();
    let early = matches!(
        refused,
        Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })
    );
    assert!(early, "{refused}");
}

#[test]
fn certificates_made_a_moment_before_their_end_still_connect() {
    let hour = Duration::from_secs(60 * 60);
    let (_dir, agent, relay) = dev_certs(SystemTime::now() - DEV_VALIDITY + hour);
    connect_files(&agent, &relay).unwrap();
}

#[test]
fn a_relay_under_another_host_name_is_refused() {
    let (_dir, agent, relay) = dev_certs(SystemTime::now());
    let client = agent_config(&agent, ALPN).unwrap();
    let server = relay_config(&relay, ALPN).unwrap();
    for host in ["relay.example", "127.0.0.2"] {
        let refused = connect(&client, &server, host).unwrap_err();
        let named = matches!(
            refused,
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })
        );
        assert!(named, "{refused}");
    }
}

#[test]
fn another_protocol_is_refused() {
    let (_dir, agent, relay) = dev_certs(SystemTime::now());
    let client = agent_config(&agent, b"tidegate/2").unwrap();
    let server = relay_config(&relay, ALPN).unwrap();
    let refused = connect(&client, &server, "localhost").unwrap_err();
    assert_eq!(refused, Error::NoApplicationProtocol);
}

#[test]
fn a_peer_of_the_wrong_role_or_domain_is_refused_by_name() {
    let authority = Authority::new();
    let device = authority.sign("device", &[DEVICE], "localhost");
    let relay = authority.sign("relay", &[RELAY], "localhost");
    connect_files(&device, &relay).unwrap();

    // The configurations refuse a certificate of the wrong side, so the hostile peers are built
    // from the library's own types.
    let impostor_server = server_with(&device);
    let client = agent_config(&device, ALPN).unwrap();
    assert_eq!(
        peer_error(connect(&client, &impostor_server, "localhost")),
        PeerError::Role {
            name: DEVICE.parse().unwrap(),
            wanted: Role::Relay
        }
    );
    let impostor_client = client_with(&relay);
    let server = relay_config(&relay, ALPN).unwrap();
    assert_eq!(
        peer_error(connect(&impostor_client, &server, "localhost")),
        PeerError::Role {
            name: RELAY.parse().unwrap(),
            wanted: Role::Device
        }
    );

    let foreign = "spiffe://other.example/tenant/t/device/d";
    let stranger = authority.sign("stranger", &[foreign], "localhost");
    assert_eq!(
        peer_error(connect(&client_with(&stranger), &server, "localhost")),
        PeerError::Domain {
            name: foreign.parse().unwrap(),
            domain: "d.example".to_owned()
        }
    );
    let foreign = "spiffe://other.example/relay/r";
    let stranger = authority.sign("foreign", &[foreign], "localhost");
    assert_eq!(
        peer_error(connect(&client, &server_with(&stranger), "localhost")),
        PeerError::Domain {
            name: foreign.parse().unwrap(),
            domain: "d.example".to_owned()
        }
    );
}

#[test]
fn a_peer_without_exactly_one_good_name_is_refused() {
    let authority = Authority::new();
    let relay = authority.sign("relay", &[RELAY], "localhost");
    let server = relay_config(&relay, ALPN).unwrap();
    let check = |ids: &[&str]| {
        let peer = authority.sign("peer", ids, "localhost");
        peer_error(connect(&client_with(&peer), &server, "localhost"))
    };
    assert_eq!(check(&[]), PeerError::NotOneName { count: 0 });
    assert_eq!(check(&[DEVICE, RELAY]), PeerError::NotOneName { count: 2 });
    let PeerError::NotAName(error) = check(&["https://d.example/device"]) else {
        panic!("another error");
    };
    assert_eq!(error.id, "https://d.example/device");
}

#[test]
fn key_usage_alone_refuses_development_certificates_on_the_wrong_side() {
    let (_dir, agent, relay) = dev_certs(SystemTime::now());
    let server = relay_config(&relay, ALPN).unwrap();
    let refused = connect(&client_with(&relay), &server, "localhost").unwrap_err();
    let purpose = matches!(
        refused,
        Error::InvalidCertificate(CertificateError::InvalidPurposeContext { .. })
    );
    assert!(purpose, "{refused}");
    // A server with the agent's certificate has no host name in it either.
    let client = agent_config(&agent, ALPN).unwrap();
    let refused = connect(&client, &server_with(&agent), "localhost").unwrap_err();
    assert!(matches!(refused, Error::InvalidCertificate(_)), "{refused}");
}

/// A client that presents whatever certificate it is given and trusts its CA.
fn client_with(files: &IdentityFiles) -> Arc<ClientConfig> {
    let (chain, key, roots) = raw(files);
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

/// A server that presents whatever certificate it is given and asks for none.
fn server_with(files: &IdentityFiles) -> Arc<ServerConfig> {
    let (chain, key, _) = raw(files);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Arc::new(config)
}

fn raw(
    files: &IdentityFiles,
) -> (
    Vec<rustls::pki_types::CertificateDer<'static>>,
    rustls::pki_types::PrivateKeyDer<'static>,
    RootCertStore,
) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(&files.ca).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    (chain, key, roots)
}

#[test]
fn the_refused_side_is_told_by_an_alert() {
    let authority = Authority::new();
    let relay = authority.sign("relay", &[RELAY], "localhost");
    let server = relay_config(&relay, ALPN).unwrap();
    let impostor = client_with(&relay);
    let host = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(impostor, host).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let mut told = None;
    for _ in 0..FLIGHTS_MAX {
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        server.read_tls(&mut flight.as_slice()).unwrap();
        // A server that has failed still sends its alert.
        let _ = server.process_new_packets();
        let mut flight = Vec::new();
        server.write_tls(&mut flight).unwrap();
        client.read_tls(&mut flight.as_slice()).unwrap();
        if let Err(error) = client.process_new_packets() {
            told = Some(error);
            break;
        }
    }
    assert_eq!(
        told,
        Some(Error::AlertReceived(AlertDescription::CertificateUnknown))
    );
}

#[test]
fn make_dev_certs_is_valid_from_now() {
    let dir = tempfile::tempdir().unwrap();
    make_dev_certs(dir.path()).unwrap();
    let files = |side: &str| IdentityFiles {
        certificate: dir.path().join(format!("{side}.pem")),
        key: dir.path().join(format!("{side}.key")),
        ca: dir.path().join("ca.pem"),
    };
    connect_files(&files("agent"), &files("relay")).unwrap();
}
