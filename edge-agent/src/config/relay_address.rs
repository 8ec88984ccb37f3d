//! A relay's address: `host:port`, with brackets around an IPv6 address.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Longest name that DNS has.
pub const HOST_BYTES_MAX: usize = 253;

/// A relay's host name or IP address, and its UDP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayAddress {
    host: String,
    port: u16,
}

impl RelayAddress {
    /// Host name or IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// UDP port, not 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Text that is not a relay's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected host:port with a port from 1 to 65535, got {0:?}")]
pub struct ParseRelayAddressError(String);

impl FromStr for RelayAddress {
    type Err = ParseRelayAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseRelayAddressError(text.chars().take(HOST_BYTES_MAX).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(error)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
            None => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
                (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(plain)
            }
        };
        if !is_host {
            return Err(error());
        }
        let host = bracketed.unwrap_or(host).to_owned();
        Ok(Self { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in [
            "relay.example:4433",
            "127.0.0.1:1",
            "[::1]:65535",
            "edge_1:80",
        ] {
            assert_eq!(good.parse::<RelayAddress>().unwrap().to_string(), good);
        }
        let long = format!("{}:1", "a".repeat(254));
        for bad in [
            "",
            ":",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:-1",
            "::1:4433",
            "[::1]",
            "[host]:1",
            "[]:1",
            "ho st:1",
            "host/path:1",
            "h\u{f6}st:1",
            &long,
        ] {
            assert!(bad.parse::<RelayAddress>().is_err(), "{bad:?}");
        }
    }
}
