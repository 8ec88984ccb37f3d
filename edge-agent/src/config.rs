//! The agent's configuration: parsed once, into values that cannot be wrong.
//!
//! A file is read as written (`raw`), and then turned into what is meant: defaults filled in, ranges
//! checked, relative paths taken from the folder of the file. Every key but `modules` has a default;
//! `agent.example.toml` beside this crate shows them all. An error names the file, the line and the
//! key.

mod arrivals;
mod raw;
mod relay_address;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_control::Policy;
use tidegate_control::rollout::RolloutPolicy;
use tidegate_daemon::LogFormat;
use tidegate_daemon::config::{self, ConfigError};
use tidegate_daemon::state::StateConfig;
use tidegate_identity::IdentityFiles;
use tidegate_registry::Reference;
use tidegate_registry::trust::TrustPolicy;
use tidegate_runtime::Vetting;

pub use arrivals::{ARRIVALS_BYTES_MAX, ArrivalsError};
pub use relay_address::{HOST_BYTES_MAX, ParseRelayAddressError, RelayAddress};

/// Most relays that one agent connects to; a larger fleet belongs behind one name.
pub const RELAYS_MAX: usize = 256;

/// What an agent serves, where, and within which bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How relays and logs call this agent.
    pub name: String,
    /// Where HTTP is served, `/metrics` included. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// A Unix socket that serves the same, mode 0660.
    pub unix_socket: Option<PathBuf>,
    /// The modules to serve, at least one and at most [`tidegate_wire::MODULES_MAX`].
    pub modules: Vec<Module>,
    /// Whose modules may run.
    pub trust: TrustPolicy,
    /// A file of certificates that registries are trusted by, beside the system's.
    pub registry_ca: Option<PathBuf>,
    /// Where compiled code and fetched modules are kept.
    pub state: StateConfig,
    /// The child process that prepares each graph first; it is this program, which has to begin with
    /// [`tidegate_runtime::vet::vet_graph_if_asked`]. Without it graphs are prepared in this process alone.
    pub vetting: Option<Vetting>,
    /// The engine of graphs as a guest; without it modules that want strict isolation are refused.
    pub tract_guest: Option<PathBuf>,
    /// Jobs that may wait for a slot.
    pub queue_len_max: usize,
    /// Requests that may be in the process at once, on the device or on relays.
    pub requests_max: usize,
    /// Most bytes of one request's body, after decompression too.
    pub request_bytes_max: usize,
    /// Most bytes that all requests in the process may hold together, bodies and parsed tensors; at
    /// least twice `request_bytes_max`, at most `u32::MAX`.
    pub held_bytes_max: usize,
    /// Longest wait for the whole of a request's body.
    pub body_wait_max: Duration,
    /// HTTP connections that may be open at once, on the port and on the Unix socket each.
    pub connections_max: usize,
    /// How long the requests in flight may take to finish after SIGTERM.
    pub drain: Duration,
    /// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// How the controller decides; holds the slots and the SLO.
    pub policy: Policy,
    /// How new versions of modules come in.
    pub rollout: Rollout,
    /// Where the excess may go; without it every request runs here.
    pub relays: Option<Relays>,
}

/// Where a module comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Module {
    /// A file on this machine.
    File(PathBuf),
    /// A reference to a registry, `oci://host/name:tag` or `oci://host/name@sha256:DIGEST`.
    Registry(Reference),
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Registry(reference) => write!(f, "oci://{reference}"),
        }
    }
}

/// When new versions are looked for, and how carefully they come in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rollout {
    /// From one look at where a module comes from to the next.
    pub poll: Duration,
    /// How carefully.
    pub policy: RolloutPolicy,
}

/// The relays that an agent may send to, and who it is to them.
#[derive(Clone, Debug)]
pub struct Relays {
    /// Relays that are always there, at most [`RELAYS_MAX`].
    pub addresses: Vec<RelayAddress>,
    /// A file of further relays, one `host:port` a line, read again when it changes.
    pub file: Option<PathBuf>,
    /// The agent's certificate, its key, and the authority that signs relays.
    pub identity: IdentityFiles,
}

impl PartialEq for Relays {
    fn eq(&self, other: &Self) -> bool {
        let files = |identity: &IdentityFiles| {
            [&identity.certificate, &identity.key, &identity.ca].map(Clone::clone)
        };
        self.addresses == other.addresses
            && self.file == other.file
            && files(&self.identity) == files(&other.identity)
    }
}

impl Config {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&config::read(path)?, path)
    }

    /// Parses `text` as the content of the file at `path`, which gives relative paths their folder.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        raw::parse(text, path)
    }
}
