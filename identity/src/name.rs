//! The SPIFFE ID in a certificate, and the role that its path gives.
//!
//! `spiffe://DOMAIN/tenant/T/device/D` names a device of a tenant, `spiffe://DOMAIN/relay/R` a
//! relay, which serves every tenant of the domain. Syntax after the SPIFFE-ID standard, section 2:
//! a domain is of lower-case letters, digits, `.`, `-` and `_`, a path segment of these and upper
//! case, but not `.` or `..`. Nothing is percent-decoded or case-folded, so equal names are equal
//! bytes.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{IdentityError, PeerError};

/// Longest SPIFFE ID, in bytes, after the standard's section 2.3.
pub const NAME_BYTES_MAX: usize = 2048;

/// Longest trust domain, in bytes, after the standard's section 2.1.
const DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// What the holder of a certificate may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// An edge device, which runs an agent.
    Device,
    /// An inference service, which agents send requests to.
    Relay,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device",
            Self::Relay => "relay",
        })
    }
}

/// The name in a certificate: `spiffe://DOMAIN/tenant/T/device/D` or `spiffe://DOMAIN/relay/R`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName {
    id: String,
    domain_len: usize,
    role: Role,
}

impl PeerName {
    /// The whole SPIFFE ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.id
    }

    /// The domain whose CA vouches for the name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.id[SCHEME.len()..SCHEME.len() + self.domain_len]
    }

    /// What the path says that its holder is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The last segment: the device or relay itself. Unique only within its tenant or domain.
    #[must_use]
    pub fn short(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// Text that is not the name of a device or relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{id:?} is not spiffe://DOMAIN/tenant/T/device/D or spiffe://DOMAIN/relay/R: {reason}")]
pub struct ParsePeerNameError {
    /// The text, cut to 128 bytes.
    pub id: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl FromStr for PeerName {
    type Err = ParsePeerNameError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        match parse(id) {
            Ok((domain_len, role)) => Ok(Self {
                id: id.to_owned(),
                domain_len,
                role,
            }),
            Err(reason) => Err(ParsePeerNameError {
                id: id[..id.floor_char_boundary(128)].to_owned(),
                reason,
            }),
        }
    }
}

fn parse(id: &str) -> Result<(usize, Role), &'static str> {
    if id.len() > NAME_BYTES_MAX {
        return Err("it is longer than 2048 bytes");
    }
    let rest = id.strip_prefix(SCHEME).ok_or("the scheme is another")?;
    let (domain, path) = rest.split_once('/').ok_or("it has no path")?;
    if domain.is_empty() || domain.len() > DOMAIN_BYTES_MAX {
        return Err("the domain is empty or longer than 255 bytes");
    }
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if !domain.bytes().all(plain) {
        return Err("the domain has a character that is not allowed");
    }
    let segment_is_good = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment
                .bytes()
                .all(|byte| plain(byte) || byte.is_ascii_uppercase())
    };
    if !path.split('/').all(segment_is_good) {
        return Err("a path segment is empty, or has a character that is not allowed");
    }
    let segments: Vec<_> = path.split('/').collect();
    match segments[..] {
        ["tenant", _, "device", _] => Ok((domain.len(), Role::Device)),
        ["relay", _] => Ok((domain.len(), Role::Relay)),
        _ => Err("the path is of neither form"),
    }
}

/// Reads the name from the leaf of a chain, which is the first certificate.
///
/// Says nothing of whether the chain is to be trusted: ask it of a connection that one of this
/// crate's configurations has accepted.
pub fn peer_name(chain: &[CertificateDer<'_>]) -> Result<PeerName, IdentityError> {
    Ok(name_of(chain)?)
}

pub(crate) fn name_of(chain: &[CertificateDer<'_>]) -> Result<PeerName, PeerError> {
    let leaf = chain.first().ok_or(PeerError::NoCertificate)?;
    let (rest, leaf) = X509Certificate::from_der(leaf).map_err(|_| PeerError::NotX509)?;
    if !rest.is_empty() {
        return Err(PeerError::NotX509);
    }
    let names = leaf
        .subject_alternative_name()
        .map_err(|_| PeerError::NotX509)?;
    let ids: Vec<_> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match ids[..] {
        [id] => Ok(id.parse()?),
        _ => Err(PeerError::NotOneName { count: ids.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_domain_role_and_short_form() {
        let check = |id: &str, domain: &str, role, short: &str| {
            let name: PeerName = id.parse().unwrap();
            assert_eq!(
                (name.trust_domain(), name.role(), name.short()),
                (domain, role, short)
            );
            assert_eq!(name.to_string(), id);
        };
        check(
            "spiffe://a.example/relay/eu-1",
            "a.example",
            Role::Relay,
            "eu-1",
        );
        check("spiffe://x/tenant/T.1/device/D_2", "x", Role::Device, "D_2");
    }

    #[test]
    fn whatever_is_not_exactly_a_name_is_refused() {
        let long_domain = format!("spiffe://{}/relay/r", "d".repeat(256));
        let long = format!("spiffe://d/relay/{}", "r".repeat(NAME_BYTES_MAX));
        for bad in [
            "",
            "spiffe://",
            "spiffe://d",
            "spiffe://d/",
            "spiffe:///relay/r",
            "https://d/relay/r",
            "SPIFFE://d/relay/r",
            "spiffe://D/relay/r",
            "spiffe://user@d/relay/r",
            "spiffe://d:8/relay/r",
            "spiffe://d/relay/r/",
            "spiffe://d//relay/r",
            "spiffe://d/relay/..",
            "spiffe://d/relay/r?q",
            "spiffe://d/relay/r#f",
            "spiffe://d/relay/%72",
            "spiffe://d/relay/r\u{e9}",
            "spiffe://d/relay/r\0",
            "spiffe://d/relay",
            "spiffe://d/Relay/r",
            "spiffe://d/relay/r/s",
            "spiffe://d/device/d",
            "spiffe://d/tenant/t/relay/r",
            "spiffe://d/tenant/t/device/d/relay/r",
            &long_domain,
            &long,
        ] {
            let refused = bad.parse::<PeerName>();
            assert!(refused.is_err(), "{bad}");
        }
    }
}
