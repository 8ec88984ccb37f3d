//! Who an agent or a relay is: certificates, and the TLS configurations that check them.
//!
//! Both sides prove themselves. A certificate carries one SPIFFE ID, whose path says what its
//! holder is: a device runs agents, a relay runs relays. A connection stands only if the peer's
//! chain ends at the configured CA, its certificate is valid now, its trust domain is our own and
//! its role is the other one; an agent also compares the relay's host name. TLS 1.3 only, and
//! every connection is a full handshake: no tickets, no resumption, no 0-RTT, so that no peer
//! gets in on the strength of an earlier check.

mod dev_certs;
mod error;
mod files;
mod name;
mod tls;
mod verifier;

pub use dev_certs::{DEV_VALIDITY, make_dev_certs, make_dev_certs_at};
pub use error::{IdentityError, PeerError};
pub use files::{FILE_BYTES_MAX, IdentityFiles};
pub use name::{NAME_BYTES_MAX, ParsePeerNameError, PeerName, Role, peer_name};
pub use tls::{agent_config, relay_config};
