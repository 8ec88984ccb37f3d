//! The configuration file as written, and its way to what is meant.

use std::net::SocketAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Duration;

use serde::Deserialize;
use tidegate_control::{Foresight, Policy};
use tidegate_identity::IdentityFiles;
use toml::Spanned;
use tracing_subscriber::EnvFilter;

use super::{Config, ConfigError, LogFormat, MODULES_MAX, Relays, arrivals};

/// Most slots: far above the cores of an edge device, and a bound on the threads that start.
const SLOTS_MAX: u64 = 1024;

/// Most relays listed by hand; a larger fleet belongs behind one name.
const ADDRESSES_MAX: usize = 256;

/// The longest times that make sense: an hour for a request or a drain, a day for the rest.
const REQUEST_MS_MAX: u64 = 3_600_000;
const DWELL_S_MAX: u64 = 86_400;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    name: Option<Spanned<String>>,
    listen: Option<SocketAddr>,
    unix_socket: Option<PathBuf>,
    modules: Option<Spanned<Vec<PathBuf>>>,
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
    #[serde(default)]
    burst: RawBurst,
}

/// The table `[burst]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawBurst {
    policy: Option<RawPolicy>,
    relays: Option<Spanned<Vec<String>>>,
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

/// A file as written, with what its errors and its relative paths need.
#[derive(Debug)]
pub(super) struct Written<'a> {
    raw: Raw,
    source: Source<'a>,
}

#[derive(Clone, Copy, Debug)]
struct Source<'a> {
    text: &'a str,
    path: &'a Path,
}

impl<'a> Written<'a> {
    /// Reads `text` by its keys and types.
    pub(super) fn new(text: &'a str, path: &'a Path) -> Result<Self, ConfigError> {
        let raw = toml::from_str(text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            error: Box::new(error),
        })?;
        let source = Source { text, path };
        Ok(Self { raw, source })
    }
}

impl TryFrom<Written<'_>> for Config {
    type Error = ConfigError;

    fn try_from(Written { raw, source }: Written<'_>) -> Result<Self, ConfigError> {
        let cores = available_parallelism().map_or(1, usize::from);
        let request_bytes = source.whole(
            "request-bytes-max",
            &raw.request_bytes_max,
            64 << 20,
            1..=1 << 30,
        )?;
        let held_bytes = source.whole(
            "held-bytes-max",
            &raw.held_bytes_max,
            512 << 20,
            1..=u64::from(u32::MAX),
        )?;
        if held_bytes < 2 * request_bytes {
            let given = raw.held_bytes_max.or(raw.request_bytes_max);
            let span = given.map_or(0..0, |given| given.span());
            let problem = format!("must be at least twice request-bytes-max, {request_bytes}");
            return Err(source.value("held-bytes-max", span, problem));
        }
        let slots = source.whole("slots", &raw.slots, cores, 1..=SLOTS_MAX)?;
        let slo = source.whole("slo-ms", &raw.slo_ms, 1000, 1..=REQUEST_MS_MAX)?;
        Ok(Self {
            name: name(source, raw.name)?,
            listen: raw
                .listen
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            unix_socket: raw.unix_socket.map(|path| source.beside(path)),
            modules: modules(source, raw.modules)?,
            queue_len_max: source.whole("queue-len-max", &raw.queue_len_max, 64, 1..=65_536)?,
            requests_max: source.whole("requests-max", &raw.requests_max, 1024, 1..=65_536)?,
            request_bytes_max: request_bytes,
            held_bytes_max: held_bytes,
            body_wait_max: Duration::from_secs(source.whole(
                "body-wait-s",
                &raw.body_wait_s,
                60,
                1..=3600,
            )?),
            connections_max: source.whole(
                "connections-max",
                &raw.connections_max,
                1024,
                1..=65_536,
            )?,
            drain: Duration::from_secs(source.whole("drain-s", &raw.drain_s, 30, 0..=3600)?),
            log: log(source, raw.log)?,
            log_format: raw.log_format.unwrap_or_default(),
            policy: policy(source, &raw.burst, slots, Duration::from_millis(slo))?,
            relays: relays(source, raw.burst)?,
        })
    }
}

fn name(source: Source<'_>, name: Option<Spanned<String>>) -> Result<String, ConfigError> {
    let Some(name) = name else {
        return Ok("tidegate-agent".to_owned());
    };
    let span = name.span();
    let name = name.into_inner();
    if (1..=tidegate_inference::NAME_BYTES_MAX).contains(&name.len())
        && !name.contains(char::is_control)
    {
        return Ok(name);
    }
    let problem = format!(
        "must have 1 to {} bytes and no control character",
        tidegate_inference::NAME_BYTES_MAX
    );
    Err(source.value("name", span, problem))
}

fn modules(
    source: Source<'_>,
    modules: Option<Spanned<Vec<PathBuf>>>,
) -> Result<Vec<PathBuf>, ConfigError> {
    let why = "an agent serves at least one module";
    let modules = modules.ok_or_else(|| source.missing("modules", why))?;
    let span = modules.span();
    let modules = modules.into_inner();
    if !(1..=MODULES_MAX).contains(&modules.len()) {
        let problem = format!("must list 1 to {MODULES_MAX} files, not {}", modules.len());
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
            let arrivals = arrivals::load(&path).map_err(|error| ConfigError::Arrivals {
                path: source.path.to_owned(),
                source: error,
            })?;
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
    let millis = |key, value: &Option<_>, default: Duration| match value {
        None => Ok(default),
        Some(_) => source
            .whole(key, value, 0, 1..=REQUEST_MS_MAX)
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
    policy.lead_prior = millis("burst.lead-ms", &burst.lead_ms, policy.lead_prior)?;
    policy.service_prior = millis("burst.service-ms", &burst.service_ms, policy.service_prior)?;
    policy.round_trip_prior = millis(
        "burst.round-trip-ms",
        &burst.round_trip_ms,
        policy.round_trip_prior,
    )?;
    Ok(policy)
}

fn relays(source: Source<'_>, burst: RawBurst) -> Result<Option<Relays>, ConfigError> {
    let file = burst.relays_file.map(|path| source.beside(path));
    let (addresses, span) = burst.relays.map_or_else(Default::default, |relays| {
        let span = relays.span();
        (relays.into_inner(), span)
    });
    if addresses.len() > ADDRESSES_MAX {
        let problem = format!("must list at most {ADDRESSES_MAX} relays");
        return Err(source.value("burst.relays", span, problem));
    }
    if let Some(bad) = addresses.iter().find(|address| !is_address(address)) {
        let problem = format!("{bad:?} is not host:port");
        return Err(source.value("burst.relays", span, problem));
    }
    if addresses.is_empty() && file.is_none() {
        return Ok(None);
    }
    let needed = |key, path: Option<PathBuf>| {
        let why = "relays are reached by mutual TLS only";
        path.map(|path| source.beside(path))
            .ok_or_else(|| source.missing(key, why))
    };
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

/// Whether `text` is a host and a port other than 0. The host is resolved when it is connected to.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.contains(char::is_whitespace)
            && port.parse::<u16>().is_ok_and(|port| port != 0)
    })
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

    /// A number in `range`, or `default`.
    fn real(
        self,
        key: &'static str,
        written: &Option<Spanned<f64>>,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64, ConfigError> {
        let Some(written) = written else {
            return Ok(default);
        };
        let value = *written.get_ref();
        if range.contains(&value) {
            return Ok(value);
        }
        let problem = format!("must be {} to {}, not {value}", range.start(), range.end());
        Err(self.value(key, written.span(), problem))
    }

    /// `path`, from the folder of the configuration file where it is relative.
    fn beside(self, path: PathBuf) -> PathBuf {
        self.path
            .parent()
            .unwrap_or_else(|| Path::new(""))
            .join(path)
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

    fn missing(self, key: &'static str, why: &'static str) -> ConfigError {
        ConfigError::Missing {
            path: self.path.to_owned(),
            key,
            why,
        }
    }
}
