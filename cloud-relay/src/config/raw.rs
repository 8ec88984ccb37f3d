//! The configuration file as written, and its way to what is meant.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use serde::Deserialize;
use tidegate_daemon::LogFormat;
use tidegate_daemon::config::{ConfigError, Source, Spanned};
use tidegate_identity::IdentityFiles;
use tidegate_registry::trust::{RawTrust, TrustPolicy};
use tidegate_runtime::module::FILE_BYTES_MAX;
use tidegate_runtime::vet::{
    GRAPH_CPU_SECONDS_MAX, GRAPH_MEMORY_BYTES_MAX, GRAPH_MEMORY_BYTES_MIN, Vetting,
};
use tidegate_runtime::{SLOTS_MAX, tract_guest_beside_program};
use tidegate_wire::{MODULES_MAX, PAYLOAD_BYTES_MAX};

use super::Config;

/// Every key, for the test that the example shows them all.
#[cfg(test)]
pub(super) const KEYS: [&str; 24] = [
    "name",
    "listen",
    "metrics-listen",
    "certificate",
    "key",
    "ca",
    "modules",
    "state-dir",
    "state-bytes-max",
    "graph-memory-max",
    "graph-seconds-max",
    "tract-guest",
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
    state_dir: Option<PathBuf>,
    state_bytes_max: Option<Spanned<u64>>,
    graph_memory_max: Option<Spanned<u64>>,
    tract_guest: Option<PathBuf>,
    graph_seconds_max: Option<Spanned<u64>>,
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
    trust: Option<Spanned<RawTrust>>,
}

/// Reads `text` by its keys and types, then by what they mean.
pub(super) fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let source = Source { text, path };
    let raw: Raw = source.parse()?;
    let whole =
        |key, written: &Option<_>, default, range| source.whole(key, written, default, range);
    let identity = |key, path| source.needed(key, path, "a relay is reached by mutual TLS only");

    let module_bytes_max = whole(
        "module-bytes-max",
        &raw.module_bytes_max,
        256 << 20,
        1..=FILE_BYTES_MAX as u64,
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
    let vetting = Vetting::by_this_program();
    let cores = available_parallelism().map_or(1, usize::from);
    Ok(Config {
        name: source.name(raw.name)?,
        listen: raw
            .listen
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 4433))),
        metrics_listen: raw.metrics_listen,
        identity: IdentityFiles {
            certificate: identity("certificate", raw.certificate)?,
            key: identity("key", raw.key)?,
            ca: identity("ca", raw.ca)?,
        },
        modules: match raw.modules {
            Some(modules) => source.files("modules", modules, 0..=MODULES_MAX)?,
            None => Vec::new(),
        },
        state: source.state(raw.state_dir, &raw.state_bytes_max)?,
        vetting: Some(Vetting {
            memory_bytes_max: whole(
                "graph-memory-max",
                &raw.graph_memory_max,
                vetting.memory_bytes_max,
                GRAPH_MEMORY_BYTES_MIN..=GRAPH_MEMORY_BYTES_MAX,
            )?,
            cpu_time_max: Duration::from_secs(whole(
                "graph-seconds-max",
                &raw.graph_seconds_max,
                vetting.cpu_time_max.as_secs(),
                1..=GRAPH_CPU_SECONDS_MAX,
            )?),
            ..vetting
        }),
        tract_guest: raw
            .tract_guest
            .map(|path| source.beside(path))
            .or_else(tract_guest_beside_program),
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
        log: source.log(raw.log)?,
        log_format: raw.log_format.unwrap_or_default(),
        trust: source.table("trust", &raw.trust, TrustPolicy::from_raw)?,
    })
}
