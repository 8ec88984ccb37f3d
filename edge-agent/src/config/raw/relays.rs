//! The relays of `[burst]`: where they are, and who this agent is to them.

use tidegate_daemon::config::{ConfigError, Source, Spanned};
use tidegate_identity::IdentityFiles;

use super::RawBurst;
use crate::config::{ParseRelayAddressError, RELAYS_MAX, RelayAddress, Relays};

pub(super) fn relays(source: Source<'_>, burst: RawBurst) -> Result<Option<Relays>, ConfigError> {
    let file = burst.relays_file.map(|path| source.beside(path));
    let addresses = match burst.relays {
        Some(relays) => addresses(source, relays)?,
        None => Vec::new(),
    };
    if addresses.is_empty() && file.is_none() {
        return Ok(None);
    }
    let needed = |key, path| source.needed(key, path, "relays are reached by mutual TLS only");
    Ok(Some(Relays {
        addresses,
        file,
        identity: IdentityFiles {
            certificate: needed("burst.certificate", burst.certificate)?,
            key: needed("burst.key", burst.key)?,
            ca: needed("burst.ca", burst.ca)?,
        },
    }))
}

fn addresses(
    source: Source<'_>,
    written: Spanned<Vec<Spanned<String>>>,
) -> Result<Vec<RelayAddress>, ConfigError> {
    let len = written.get_ref().len();
    if len > RELAYS_MAX {
        let problem = format!("must list at most {RELAYS_MAX} relays, not {len}");
        return Err(source.value("burst.relays", written.span(), problem));
    }
    let parse = |relay: Spanned<String>| {
        let parsed = relay.get_ref().parse();
        parsed.map_err(|error: ParseRelayAddressError| {
            source.value("burst.relays", relay.span(), error.to_string())
        })
    };
    written.into_inner().into_iter().map(parse).collect()
}
