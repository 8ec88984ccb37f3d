//! The UDP socket and the QUIC settings that every link shares.
//!
//! Cubic begins with 64 KiB, so that one camera frame leaves in the first round trip. The socket asks
//! for 8 MiB buffers, enough for a burst of frames at 1 Gb/s while the executor is busy for 60 ms.
//! TLS resumption and 0-RTT stay off: they would skip the check of the certificate.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tidegate_identity::IdentityFiles;

use super::BurstStartError;
use super::transfer::MODULE_STREAMS_MAX;

/// Bytes in flight before the first acknowledgement.
const INITIAL_WINDOW_BYTES: u64 = 64 << 10;

/// A link on which nothing was received for so long is lost.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(2);

/// A quarter of [`IDLE_MAX`], so that three lost packets in a row are forgiven.
const KEEP_ALIVE: Duration = Duration::from_millis(500);

/// First guess of the round trip: the first retransmission of a handshake comes after three of it.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// Most bytes of replies that a relay may send ahead of their being read, per stream and per link.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const LINK_WINDOW_BYTES: u32 = 32 << 20;

/// Binds any free port on all addresses and sets up mutual TLS.
pub(super) fn bind(identity: &IdentityFiles) -> Result<Endpoint, BurstStartError> {
    let tls = tidegate_identity::agent_config(identity, tidegate_wire::ALPN)
        .map_err(|source| BurstStartError::Identity { source })?;
    let crypto =
        QuicClientConfig::try_from(tls).map_err(|source| BurstStartError::Crypto { source })?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));

    let socket_error = |source| BurstStartError::Socket { source };
    let socket = dual_stack_socket()
        .or_else(|_| socket(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, 0).into()))
        .map_err(socket_error)?;
    let runtime = Arc::new(TokioRuntime);
    let mut endpoint =
        Endpoint::new(EndpointConfig::default(), None, socket, runtime).map_err(socket_error)?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

fn transport() -> TransportConfig {
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
        .receive_window(VarInt::from_u32(LINK_WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(MODULE_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(1))
        .datagram_receive_buffer_size(None);
    transport
}

fn dual_stack_socket() -> io::Result<UdpSocket> {
    socket(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, 0).into())
}

fn socket(domain: Domain, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    tidegate_daemon::udp::widen_buffers(&socket)?;
    Ok(socket.into())
}
