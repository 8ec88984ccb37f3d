//! The configuration file as written, and its way to what is meant.

mod relays;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use serde::Deserialize;
use tidegate_control::rollout::{RolloutPolicy, SHARE_MAX, SHARE_MIN};
use tidegate_control::{Foresight, Policy};
use tidegate_daemon::LogFormat;
use tidegate_daemon::config::{ConfigError, Source, Spanned};
use tidegate_inference::TIME_MAX;
use tidegate_registry::Reference;
use tidegate_registry::trust::{RawTrust, TrustPolicy};
use tidegate_runtime::vet::{
    GRAPH_CPU_SECONDS_MAX, GRAPH_MEMORY_BYTES_MAX, GRAPH_MEMORY_BYTES_MIN, Vetting,
};
use tidegate_runtime::{SLOTS_MAX, tract_guest_beside_program};
use tidegate_wire::MODULES_MAX;

use self::relays::relays;
use super::{Config, Module, Rollout, arrivals};

/// Longest SLO, run or round trip: as long as a request may take at all.
const REQUEST_MS_MAX: u64 = TIME_MAX.as_secs() * 1000;

/// Longest lead of a relay: an hour, far above what starting a machine takes.
const LEAD_MS_MAX: u64 = 3_600_000;

/// Longest dwell: a day.
const DWELL_S_MAX: u64 = 86_400;

/// Longest time between looks, canary or watch: a week.
const ROLLOUT_S_MAX: u64 = 604_800;

/// From one look at a module to the next: a registry is asked 1440 times a day by each device.
const POLL_DEFAULT: Duration = Duration::from_secs(60);

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    name: Option<Spanned<String>>,
    listen: Option<SocketAddr>,
    unix_socket: Option<PathBuf>,
    modules: Option<Spanned<Vec<Spanned<String>>>>,
    state_dir: Option<PathBuf>,
    state_bytes_max: Option<Spanned<u64>>,
    graph_memory_max: Option<Spanned<u64>>,
    tract_guest: Option<PathBuf>,
    graph_seconds_max: Option<Spanned<u64>>,
    slots: Option<Spanned<u64>>,
    queue_len_max: Option<Spanned<u64>>,
    slo_ms: Option<Spanned<u64>>,
    requests_max: Option<Spanned<u64>>,
    request_bytes_max: Option<Spanned<u64>>,
    held_bytes_max: Option<Spanned<u64>>,
    body_wait_s: Option<Spanned<u64>>,
    connections_max: Option<Spanned<u64>>,
    drain_s: Option<Spanned<u64>>,
    log: Option<Spanned<String>>,
    log_format: Option<LogFormat>,
    trust: Option<Spanned<RawTrust>>,
    #[serde(default)]
    registry: RawRegistry,
    #[serde(default)]
    rollout: RawRollout,
    #[serde(default)]
    burst: RawBurst,
}

/// The table `[registry]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRegistry {
    ca: Option<PathBuf>,
}

/// The table `[rollout]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRollout {
    poll_s: Option<Spanned<u64>>,
    canary_share: Option<Spanned<f64>>,
    canary_requests_min: Option<Spanned<u64>>,
    canary_s_max: Option<Spanned<u64>>,
    watch_s: Option<Spanned<u64>>,
}

/// The table `[burst]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBurst {
    policy: Option<RawPolicy>,
    relays: Option<Spanned<Vec<Spanned<String>>>>,
    relays_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    arrivals_file: Option<Spanned<PathBuf>>,
    enter: Option<Spanned<f64>>,
    leave: Option<Spanned<f64>>,
    dwell_s: Option<Spanned<u64>>,
    queue_breach: Option<Spanned<f64>>,
    deadline_margin: Option<Spanned<f64>>,
    miss_cost: Option<Spanned<f64>>,
    relay_cost: Option<Spanned<f64>>,
    relay_slots: Option<Spanned<u64>>,
    lead_ms: Option<Spanned<u64>>,
    service_ms: Option<Spanned<u64>>,
    round_trip_ms: Option<Spanned<u64>>,
}

/// What the controller may assume of the future, by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawPolicy {
    Off,
    Reactive,
    #[default]
    Predictive,
    Oracle,
}

/// Reads `text` by its keys and types, then by what they mean.
pub(super) fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let source = Source { text, path };
    let raw: Raw = source.parse()?;
    let whole =
        |key, written: &Option<_>, default, range| source.whole(key, written, default, range);
    let seconds = |key, written: &Option<_>, default, range| {
        let seconds = source.whole(key, written, default, range);
        seconds.map(Duration::from_secs)
    };

    let request_bytes_max = whole(
        "request-bytes-max",
        &raw.request_bytes_max,
        64 << 20,
        1..=1 << 30,
    )?;
    let held_bytes_max = whole(
        "held-bytes-max",
        &raw.held_bytes_max,
        512 << 20,
        1..=u32::MAX as usize,
    )?;
    if held_bytes_max < 2 * request_bytes_max {
        let given = raw.held_bytes_max.or(raw.request_bytes_max);
        let span = given.map_or(0..0, |given| given.span());
        let problem = format!("must be at least twice request-bytes-max, {request_bytes_max}");
        return Err(source.value("held-bytes-max", span, problem));
    }
    let modules = raw
        .modules
        .ok_or_else(|| source.missing("modules", "an agent serves at least one module"))?;
    let cores = available_parallelism().map_or(1, usize::from);
    let slots = whole("slots", &raw.slots, cores, 1..=SLOTS_MAX)?;
    let slo = source.whole("slo-ms", &raw.slo_ms, 1000, 1..=REQUEST_MS_MAX)?;
    Ok(Config {
        name: source
            .name(raw.name)?
            .unwrap_or_else(|| "tidegate-agent".to_owned()),
        listen: raw
            .listen
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
        unix_socket: raw.unix_socket.map(|path| source.beside(path)),
        modules: parse_modules(source, modules)?,
        trust: source.table("trust", &raw.trust, TrustPolicy::from_raw)?,
        registry_ca: raw.registry.ca.map(|path| source.beside(path)),
        state: source.state(raw.state_dir, &raw.state_bytes_max)?,
        vetting: Some(vetting(
            source,
            &raw.graph_memory_max,
            &raw.graph_seconds_max,
        )?),
        tract_guest: raw
            .tract_guest
            .map(|path| source.beside(path))
            .or_else(tract_guest_beside_program),
        queue_len_max: whole("queue-len-max", &raw.queue_len_max, 64, 1..=65_536)?,
        requests_max: whole("requests-max", &raw.requests_max, 1024, 1..=65_536)?,
        request_bytes_max,
        held_bytes_max,
        body_wait_max: seconds("body-wait-s", &raw.body_wait_s, 60, 1..=3600)?,
        connections_max: whole("connections-max", &raw.connections_max, 1024, 1..=65_536)?,
        drain: seconds("drain-s", &raw.drain_s, 30, 0..=3600)?,
        log: source.log(raw.log)?,
        log_format: raw.log_format.unwrap_or_default(),
        policy: policy(source, &raw.burst, slots, Duration::from_millis(slo))?,
        rollout: rollout(source, &raw.rollout)?,
        relays: relays(source, raw.burst)?,
    })
}

/// References of registries by their prefix; everything else is a file.
fn parse_modules(
    source: Source<'_>,
    written: Spanned<Vec<Spanned<String>>>,
) -> Result<Vec<Module>, ConfigError> {
    let span = written.span();
    let written = written.into_inner();
    let len = written.len();
    if !(1..=MODULES_MAX).contains(&len) {
        let problem = format!("must list 1 to {MODULES_MAX} modules, not {len}");
        return Err(source.value("modules", span, problem));
    }
    let parse = |module: Spanned<String>| {
        let span = module.span();
        let text = module.into_inner();
        if !tidegate_registry::Source::is_reference(&text) {
            return Ok(Module::File(source.beside(text.into())));
        }
        match text.parse::<Reference>() {
            Ok(reference) => Ok(Module::Registry(reference)),
            Err(error) => Err(source.value("modules", span, error.to_string())),
        }
    };
    written.into_iter().map(parse).collect()
}

fn vetting(
    source: Source<'_>,
    memory_max: &Option<Spanned<u64>>,
    seconds_max: &Option<Spanned<u64>>,
) -> Result<Vetting, ConfigError> {
    let vetting = Vetting::by_this_program();
    let (memory, seconds) = (vetting.memory_bytes_max, vetting.cpu_time_max.as_secs());
    let bytes = GRAPH_MEMORY_BYTES_MIN..=GRAPH_MEMORY_BYTES_MAX;
    let seconds = source.whole(
        "graph-seconds-max",
        seconds_max,
        seconds,
        1..=GRAPH_CPU_SECONDS_MAX,
    )?;
    Ok(Vetting {
        memory_bytes_max: source.whole("graph-memory-max", memory_max, memory, bytes)?,
        cpu_time_max: Duration::from_secs(seconds),
        ..vetting
    })
}

fn policy(
    source: Source<'_>,
    burst: &RawBurst,
    slots: usize,
    slo: Duration,
) -> Result<Policy, ConfigError> {
    let named = burst.policy.unwrap_or_default();
    let foresight = match (named, &burst.arrivals_file) {
        (RawPolicy::Oracle, Some(file)) => {
            let path = source.beside(file.get_ref().clone());
            let arrivals = arrivals::load(&path)
                .map_err(|error| source.file("burst.arrivals-file", file.span(), error))?;
            Foresight::Oracle(arrivals)
        }
        (RawPolicy::Oracle, None) => {
            let why = "burst.policy = \"oracle\" knows its arrivals from it";
            return Err(source.missing("burst.arrivals-file", why));
        }
        (RawPolicy::Off | RawPolicy::Reactive | RawPolicy::Predictive, Some(file)) => {
            let problem = "only burst.policy = \"oracle\" reads it".to_owned();
            return Err(source.value("burst.arrivals-file", file.span(), problem));
        }
        (RawPolicy::Off, None) => Foresight::LocalOnly,
        (RawPolicy::Reactive, None) => Foresight::Reactive,
        (RawPolicy::Predictive, None) => Foresight::Predictive,
    };
    let mut policy = Policy::new(foresight, slots, slo);
    let part = |key, value: &Option<_>, default| source.real(key, value, default, 0.01..=1.0);
    let cost = |key, value: &Option<_>, default| source.real(key, value, default, 1e-6..=1e6);
    let millis = |key, value: &Option<_>, default: Duration, max| match value {
        None => Ok(default),
        Some(_) => source
            .whole(key, value, 0, 1..=max)
            .map(Duration::from_millis),
    };
    policy.burst_enter = part("burst.enter", &burst.enter, policy.burst_enter)?;
    policy.burst_leave = source.real(
        "burst.leave",
        &burst.leave,
        policy.burst_leave.min(policy.burst_enter),
        0.01..=policy.burst_enter,
    )?;
    policy.queue_breach = part(
        "burst.queue-breach",
        &burst.queue_breach,
        policy.queue_breach,
    )?;
    policy.deadline_margin = part(
        "burst.deadline-margin",
        &burst.deadline_margin,
        policy.deadline_margin,
    )?;
    policy.miss_cost = cost("burst.miss-cost", &burst.miss_cost, policy.miss_cost)?;
    policy.relay_cost = cost("burst.relay-cost", &burst.relay_cost, policy.relay_cost)?;
    let dwell = policy.burst_dwell.as_secs();
    let dwell = source.whole("burst.dwell-s", &burst.dwell_s, dwell, 0..=DWELL_S_MAX)?;
    policy.burst_dwell = Duration::from_secs(dwell);
    policy.relay_slots = source.whole(
        "burst.relay-slots",
        &burst.relay_slots,
        policy.relay_slots,
        1..=SLOTS_MAX,
    )?;
    policy.lead_prior = millis(
        "burst.lead-ms",
        &burst.lead_ms,
        policy.lead_prior,
        LEAD_MS_MAX,
    )?;
    policy.service_prior = millis(
        "burst.service-ms",
        &burst.service_ms,
        policy.service_prior,
        REQUEST_MS_MAX,
    )?;
    policy.round_trip_prior = millis(
        "burst.round-trip-ms",
        &burst.round_trip_ms,
        policy.round_trip_prior,
        REQUEST_MS_MAX,
    )?;
    Ok(policy)
}

fn rollout(source: Source<'_>, raw: &RawRollout) -> Result<Rollout, ConfigError> {
    let default = RolloutPolicy::default();
    let seconds = |key, value: &Option<_>, default: Duration, min| {
        let seconds = source.whole(key, value, default.as_secs(), min..=ROLLOUT_S_MAX);
        seconds.map(Duration::from_secs)
    };
    Ok(Rollout {
        poll: seconds("rollout.poll-s", &raw.poll_s, POLL_DEFAULT, 1)?,
        policy: RolloutPolicy {
            canary_share: source.real(
                "rollout.canary-share",
                &raw.canary_share,
                default.canary_share,
                SHARE_MIN..=SHARE_MAX,
            )?,
            requests_min: source.whole(
                "rollout.canary-requests-min",
                &raw.canary_requests_min,
                default.requests_min,
                1..=1_000_000,
            )?,
            canary_max: seconds(
                "rollout.canary-s-max",
                &raw.canary_s_max,
                default.canary_max,
                1,
            )?,
            watch: seconds("rollout.watch-s", &raw.watch_s, default.watch, 0)?,
        },
    })
}
