//! The configuration file as written, and its way to what is meant.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use serde::Deserialize;
use tidegate_identity::IdentityFiles;
use tidegate_inference::NAME_BYTES_MAX;
use tidegate_wire::PAYLOAD_BYTES_MAX;
use toml::Spanned;
use tracing_subscriber::EnvFilter;

use super::{Config, ConfigError, LogFormat};

/// Most slots: far above the cores of one machine, and a bound on the threads that start.
const SLOTS_MAX: u64 = 1024;

/// Most modules that are loaded before the relay listens.
const MODULES_MAX: usize = 64;

/// Every key, for the test that the example shows them all.
#[cfg(test)]
pub(super) const KEYS: [&str; 19] = [
    "name",
    "listen",
    "metrics-listen",
    "certificate",
    "key",
    "ca",
    "modules",
    "slots",
    "queue-len-max",
    "module-bytes-max",
    "store-bytes-max",
    "held-bytes-max",
    "connections-max",
    "connections-per-peer-max",
    "requests-per-connection-max",
    "stall-ms",
    "drain-s",
    "log",
    "log-format",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    name: Option<Spanned<String>>,
    listen: Option<SocketAddr>,
    metrics_listen: Option<SocketAddr>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    modules: Option<Spanned<Vec<PathBuf>>>,
    slots: Option<Spanned<u64>>,
    queue_len_max: Option<Spanned<u64>>,
    module_bytes_max: Option<Spanned<u64>>,
    store_bytes_max: Option<Spanned<u64>>,
    held_bytes_max: Option<Spanned<u64>>,
    connections_max: Option<Spanned<u64>>,
    connections_per_peer_max: Option<Spanned<u64>>,
    requests_per_connection_max: Option<Spanned<u64>>,
    stall_ms: Option<Spanned<u64>>,
    drain_s: Option<Spanned<u64>>,
    log: Option<Spanned<String>>,
    log_format: Option<LogFormat>,
}

/// Reads `text` by its keys and types, then by what they mean.
pub(super) fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let raw: Raw = toml::from_str(text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        error: Box::new(error),
    })?;
    let source = Source { text, path };
    let whole =
        |key, written: &Option<_>, default, range| source.whole(key, written, default, range);

    let module_bytes_max = whole(
        "module-bytes-max",
        &raw.module_bytes_max,
        256 << 20,
        1..=4 << 30,
    )?;
    let store_bytes_max = whole(
        "store-bytes-max",
        &raw.store_bytes_max,
        module_bytes_max.max(1 << 30),
        module_bytes_max..=1 << 40,
    )?;
    let message = u64::try_from(PAYLOAD_BYTES_MAX).expect("the bound is small");
    let held_bytes_max = whole(
        "held-bytes-max",
        &raw.held_bytes_max,
        512 << 20,
        2 * message..=1 << 40,
    )?;
    let cores = available_parallelism().map_or(1, usize::from);
    Ok(Config {
        name: name(source, raw.name)?,
        listen: raw
            .listen
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 4433))),
        metrics_listen: raw.metrics_listen,
        identity: IdentityFiles {
            certificate: source.identity("certificate", raw.certificate)?,
            key: source.identity("key", raw.key)?,
            ca: source.identity("ca", raw.ca)?,
        },
        modules: modules(source, raw.modules)?,
        slots: source.whole("slots", &raw.slots, cores, 1..=SLOTS_MAX)?,
        queue_len_max: source.whole("queue-len-max", &raw.queue_len_max, 64, 1..=65_536)?,
        module_bytes_max,
        store_bytes_max,
        held_bytes_max: usize::try_from(held_bytes_max).unwrap_or(usize::MAX),
        connections_max: source.whole("connections-max", &raw.connections_max, 256, 1..=65_536)?,
        connections_per_peer_max: source.whole(
            "connections-per-peer-max",
            &raw.connections_per_peer_max,
            8,
            1..=65_536,
        )?,
        requests_per_connection_max: source.whole(
            "requests-per-connection-max",
            &raw.requests_per_connection_max,
            128,
            1..=65_536,
        )?,
        stall: Duration::from_millis(whole("stall-ms", &raw.stall_ms, 5000, 1..=60_000)?),
        drain: Duration::from_secs(whole("drain-s", &raw.drain_s, 30, 0..=3600)?),
        log: log(source, raw.log)?,
        log_format: raw.log_format.unwrap_or_default(),
    })
}

fn name(source: Source<'_>, name: Option<Spanned<String>>) -> Result<Option<String>, ConfigError> {
    let Some(name) = name else {
        return Ok(None);
    };
    let span = name.span();
    let name = name.into_inner();
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control) {
        return Ok(Some(name));
    }
    let problem = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control character");
    Err(source.value("name", span, problem))
}

fn modules(
    source: Source<'_>,
    modules: Option<Spanned<Vec<PathBuf>>>,
) -> Result<Vec<PathBuf>, ConfigError> {
    let Some(modules) = modules else {
        return Ok(Vec::new());
    };
    let span = modules.span();
    let modules = modules.into_inner();
    if modules.len() > MODULES_MAX {
        let problem = format!(
            "must list at most {MODULES_MAX} files, not {}",
            modules.len()
        );
        return Err(source.value("modules", span, problem));
    }
    Ok(modules
        .into_iter()
        .map(|path| source.beside(path))
        .collect())
}

fn log(source: Source<'_>, log: Option<Spanned<String>>) -> Result<String, ConfigError> {
    let Some(log) = log else {
        return Ok("info".to_owned());
    };
    EnvFilter::builder()
        .parse(log.get_ref())
        .map_err(|error| source.value("log", log.span(), error.to_string()))?;
    Ok(log.into_inner())
}

#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

impl Source<'_> {
    /// A whole number in `range`, or `default`.
    fn whole<N: TryFrom<u64>>(
        self,
        key: &'static str,
        written: &Option<Spanned<u64>>,
        default: N,
        range: RangeInclusive<u64>,
    ) -> Result<N, ConfigError> {
        let Some(written) = written else {
            return Ok(default);
        };
        let value = *written.get_ref();
        let meant = Some(value)
            .filter(|value| range.contains(value))
            .and_then(|value| N::try_from(value).ok());
        meant.ok_or_else(|| {
            let problem = format!("must be {} to {}, not {value}", range.start(), range.end());
            self.value(key, written.span(), problem)
        })
    }

    /// A file of the relay's identity.
    fn identity(self, key: &'static str, path: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        path.map(|path| self.beside(path))
            .ok_or_else(|| ConfigError::Missing {
                path: self.path.to_owned(),
                key,
                why: "a relay is reached by mutual TLS only",
            })
    }

    /// `path`, from the folder of the configuration file where it is relative.
    fn beside(self, path: PathBuf) -> PathBuf {
        self.path
            .parent()
            .map_or_else(|| path.clone(), |folder| folder.join(&path))
    }

    fn value(self, key: &'static str, span: Range<usize>, problem: String) -> ConfigError {
        let before = self.text.get(..span.start).unwrap_or_default();
        ConfigError::Value {
            path: self.path.to_owned(),
            line: 1 + before.matches('\n').count(),
            key,
            problem,
        }
    }
}
