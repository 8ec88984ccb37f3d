//! The UDP socket and the QUIC settings of the relay.
//!
//! Cubic begins with 64 KiB. The socket asks for 8 MiB buffers, since all agents share it. TLS
//! resumption and 0-RTT stay off: they would skip the check of the certificate. A connection buffers
//! at most [`CONNECTION_WINDOW_BYTES`] each way in QUIC itself.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicServerConfig};
use quinn::rustls::pki_types::CertificateDer;
use quinn::{
    Connection, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tidegate_identity::{IdentityError, IdentityFiles, PeerName};

use super::{HANDSHAKES_MAX, SeatError};

/// Bytes in flight before the first acknowledgement.
const INITIAL_WINDOW_BYTES: u64 = 64 << 10;

/// Bytes that QUIC buffers for a connection each way, and for one of its streams: at 40 ms of round
/// trip they carry 100 and 50 MB/s.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// A peer from which nothing came for so long is gone.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// A quarter of [`IDLE_MAX`], so that three lost packets in a row are forgiven.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// First guess of the round trip: lost handshake packets are sent again after three of it.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Bytes that may arrive for connections before the accept loop has seen them.
const INCOMING_BYTES_MAX: u64 = 64 << 10;
const INCOMING_BYTES_TOTAL_MAX: u64 = 4 << 20;

/// Why the relay cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The relay's certificate, key or CA cannot be used.
    #[error("failed to load the relay's identity")]
    Identity {
        /// Which file, and why.
        source: IdentityError,
    },
    /// The TLS configuration has no cipher suite that QUIC can start with.
    #[error("failed to use the identity for QUIC")]
    Crypto {
        /// What is missing.
        source: NoInitialCipherSuite,
    },
    /// The UDP address cannot be bound.
    #[error("failed to listen on UDP {address}")]
    Socket {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
}

/// Binds `address` and sets up mutual TLS.
pub(crate) fn bind(
    address: SocketAddr,
    identity: &IdentityFiles,
    requests_max: u32,
) -> Result<Endpoint, BindError> {
    let tls = tidegate_identity::relay_config(identity, tidegate_wire::ALPN)
        .map_err(|source| BindError::Identity { source })?;
    let crypto = QuicServerConfig::try_from(tls).map_err(|source| BindError::Crypto { source })?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport(requests_max)))
        .max_incoming(2 * HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    let socket_error = |source| BindError::Socket { address, source };
    let socket = socket(address).map_err(socket_error)?;
    let runtime = Arc::new(TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime).map_err(socket_error)
}

/// The name in the certificate that the peer's handshake proved.
pub(super) fn peer_name(connection: &Connection) -> Result<PeerName, SeatError> {
    let identity = connection.peer_identity().ok_or(SeatError::NoCertificate)?;
    let chain = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .expect("rustls identifies peers by their certificates");
    tidegate_identity::peer_name(&chain).map_err(SeatError::Name)
}

fn transport(requests_max: u32) -> TransportConfig {
    let mut cubic = CubicConfig::default();
    cubic.initial_window(INITIAL_WINDOW_BYTES);
    let idle = IdleTimeout::try_from(IDLE_MAX).expect("two seconds fit a QUIC integer");
    let mut transport = TransportConfig::default();
    transport
        .congestion_controller_factory(Arc::new(cubic))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .max_concurrent_bidi_streams(VarInt::from_u32(requests_max))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .datagram_receive_buffer_size(None);
    transport
}

fn socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    socket.bind(&address.into())?;
    tidegate_daemon::udp::widen_buffers(&socket)?;
    Ok(socket.into())
}
