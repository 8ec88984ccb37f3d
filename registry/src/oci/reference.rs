//! What a person writes to name a module in a registry: `host/name:tag` or `host/name@sha256:...`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use tidegate_inference::Digest;

/// Docker's registry has one name for people, and another for the protocol.
const DOCKER: &str = "docker.io";

/// A module in a registry, by a tag that may move or by a digest that cannot.
///
/// The registry is always spelled out, and so is the tag: neither has a default, since a module from
/// nowhere in particular, at whatever is there today, is nothing to run. `oci://` before it changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    name: oci_client::Reference,
    pin: Option<Digest>,
}

/// Text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// Not of the form at all.
    #[error(
        "{text:?} is not of the form registry/name:tag or registry/name@sha256:DIGEST: {reason}"
    )]
    Form {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name without a registry.
    #[error("{0:?} names no registry; write docker.io/... if that is meant")]
    NoRegistry(String),
    /// Neither a tag nor a digest.
    #[error("{0:?} names neither a tag nor a digest; write :latest if that is meant")]
    NoVersion(String),
    /// A digest by another function than SHA-256, or not in lower case.
    #[error("{0:?} has a digest that is not sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
}

impl Reference {
    /// The registry's host, with its port if one is given, as the protocol needs it.
    #[must_use]
    pub fn host(&self) -> &str {
        self.name.resolve_registry()
    }

    /// The name in the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        self.name.repository()
    }

    /// The tag, if one is given. With a digest beside it, it is for people alone.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.name.tag()
    }

    /// The digest that it pins.
    ///
    /// This is the digest of the OCI manifest, as every OCI client prints it. The digest of the module file
    /// itself is taken too: whichever the registry has, its bytes are checked against this digest.
    #[must_use]
    pub fn pin(&self) -> Option<Digest> {
        self.pin
    }

    /// The same name, pinned to `digest`.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        let name = self.name.clone_with_digest(digest.to_string());
        let pin = Some(digest);
        Self { name, pin }
    }

    /// Whether the registry is on this machine, the only place where HTTP without TLS is allowed.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback(self.host())
    }
}

/// Whether a host, with or without a port, is this machine: by name or address, never by asking the network.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.parse::<u16>().is_ok() => bare,
        Some(_) | None => host,
    };
    let in_brackets = bare.trim_start_matches('[').trim_end_matches(']');
    let address = host.parse().or_else(|_| in_brackets.parse::<IpAddr>());
    bare == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix("oci://").unwrap_or(text);
        let parsed = bare.parse::<oci_client::Reference>();
        let name = parsed.map_err(|error| ParseReferenceError::Form {
            text: text.to_owned(),
            reason: error.to_string(),
        })?;
        if name.registry() == DOCKER && !bare.contains("docker.io/") {
            return Err(ParseReferenceError::NoRegistry(text.to_owned()));
        }
        let after_host = bare.split_once('/').map_or(bare, |(_, rest)| rest);
        if !after_host.contains([':', '@']) {
            return Err(ParseReferenceError::NoVersion(text.to_owned()));
        }
        let pin = name.digest().map(str::parse).transpose();
        let pin = pin.map_err(|_| ParseReferenceError::Digest(text.to_owned()))?;
        Ok(Self { name, pin })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn parse(text: &str) -> Result<Reference, ParseReferenceError> {
        text.parse()
    }

    #[test]
    fn a_reference_reads_back() {
        for (text, host, repository) in [
            ("localhost:5000/face:1", "localhost:5000", "face"),
            ("ghcr.io/a/b/c:v1.2-x", "ghcr.io", "a/b/c"),
            ("docker.io/me/face:1", "index.docker.io", "me/face"),
            (&format!("ghcr.io/a@{PIN}"), "ghcr.io", "a"),
            (&format!("ghcr.io/a:1@{PIN}"), "ghcr.io", "a"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(parse(&format!("oci://{text}")).unwrap(), reference);
            assert_eq!(reference.host(), host);
            assert_eq!(reference.repository(), repository);
            assert_eq!(reference.pin().is_some(), text.contains('@'));
        }
    }

    #[test]
    fn what_is_no_reference_says_why() {
        let upper = PIN.replace("abc", "ABC");
        for (text, wrong) in [
            ("", "not of the form"),
            ("https://ghcr.io/a:1", "not of the form"),
            ("ghcr.io/UPPER:1", "not of the form"),
            ("ghcr.io/../a:1", "not of the form"),
            ("ghcr.io/a:1@sha256:12", "not of the form"),
            ("face:1", "names no registry"),
            ("me/face:1", "names no registry"),
            ("ghcr.io/a", "neither a tag nor a digest"),
            ("localhost:5000/a", "neither a tag nor a digest"),
            (&format!("ghcr.io/a@{upper}"), "lower-case"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wrong), "{text:?}: {error}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]:5000",
            "::1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "ghcr.io",
            "localhost.example.com",
            "127.0.0.1.example.com:80",
            "10.0.0.1:5000",
            "[::2]:5000",
            "0.0.0.0:5000",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
