//! One attempt to reach a relay, and how long to wait for the next.
//!
//! Attempts follow each other after a wait that doubles and is jittered, so that a fleet of agents
//! does not return to a restarted relay in step. A handshake on loopback takes milliseconds, so there
//! an attempt is given up early and the next follows soon: a relay that comes up is found within half
//! a second.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use quinn::{Connection, ConnectionError};
use tokio::time::timeout;

use crate::config::RelayAddress;

/// Most addresses of one name that an attempt tries.
const ADDRESSES_MAX: usize = 4;

/// How long a name may take to resolve.
const RESOLVE_MAX: Duration = Duration::from_secs(2);

/// Wait after the first failed attempt.
const WAIT_MIN: Duration = Duration::from_millis(50);

/// Longest wait between attempts at a relay that is not on this machine.
const WAIT_FAR_MAX: Duration = Duration::from_secs(2);

/// How patient attempts at one address are.
pub(super) struct Pace {
    handshake_max: Duration,
    pub(super) wait_max: Duration,
}

impl Pace {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_loopback() {
            Self {
                handshake_max: Duration::from_millis(400),
                wait_max: Duration::from_millis(100),
            }
        } else {
            Self {
                handshake_max: Duration::from_secs(3),
                wait_max: WAIT_FAR_MAX,
            }
        }
    }
}

/// The wait before the attempt that follows `failures` failures; `jitter` is uniform in [0, 1).
pub(super) fn wait(failures: u32, wait_max: Duration, jitter: f64) -> Duration {
    let doubled = WAIT_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(wait_max).mul_f64(0.5 + 0.5 * jitter)
}

/// An attempt that failed, and the longest wait before another.
pub(super) struct ConnectFailed {
    pub(super) error: ConnectError,
    pub(super) wait_max: Duration,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("failed to resolve the name")]
    Resolve(#[source] std::io::Error),
    #[error("the name did not resolve within {RESOLVE_MAX:?}")]
    ResolveTimeout,
    #[error("the name has no address")]
    NoAddress,
    #[error("failed to begin a handshake with {0}")]
    Begin(SocketAddr, #[source] quinn::ConnectError),
    #[error("failed to finish the handshake with {0}")]
    Handshake(SocketAddr, #[source] ConnectionError),
    #[error("{0} did not finish the handshake within {1:?}")]
    HandshakeTimeout(SocketAddr, Duration),
}

/// Tries every address of the relay's name, in the resolver's order.
pub(super) async fn connect(
    address: &RelayAddress,
    endpoint: &quinn::Endpoint,
) -> Result<Connection, ConnectFailed> {
    let far = |error| ConnectFailed {
        error,
        wait_max: WAIT_FAR_MAX,
    };
    let lookup = tokio::net::lookup_host((address.host(), address.port()));
    let resolved = timeout(RESOLVE_MAX, lookup)
        .await
        .map_err(|_| far(ConnectError::ResolveTimeout))?
        .map_err(|error| far(ConnectError::Resolve(error)))?;
    let mut failed = far(ConnectError::NoAddress);
    for to in resolved.take(ADDRESSES_MAX) {
        let pace = Pace::of(to.ip());
        let error = match endpoint.connect(to, address.host()) {
            Err(error) => ConnectError::Begin(to, error),
            Ok(connecting) => match timeout(pace.handshake_max, connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => ConnectError::Handshake(to, error),
                Err(_) => ConnectError::HandshakeTimeout(to, pace.handshake_max),
            },
        };
        failed = ConnectFailed {
            error,
            wait_max: pace.wait_max,
        };
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_are_spread() {
        let ms = |failures, jitter| wait(failures, WAIT_FAR_MAX, jitter).as_millis();
        assert_eq!([ms(1, 0.0), ms(1, 1.0)], [25, 50]);
        assert_eq!([ms(2, 1.0), ms(4, 1.0), ms(9, 1.0)], [100, 400, 2000]);
        assert_eq!(ms(u32::MAX, 1.0), 2000);
    }
}
