//! The agent's configuration: parsed once, into values that cannot be wrong.
//!
//! A file is read as written (`raw`), and then turned into what is meant: defaults filled in, ranges
//! checked, relative paths taken from the folder of the file. Every key but `modules` has a default;
//! `agent.example.toml` beside this crate shows them all. An error names the file, the line and the
//! key.

mod arrivals;
mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_control::Policy;
use tidegate_identity::IdentityFiles;

pub use arrivals::{ARRIVALS_BYTES_MAX, ArrivalsError};

/// Longest configuration file that is read: thousands of times what every key takes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Most modules that one agent serves: each takes compiled code and prepared weights for good.
pub const MODULES_MAX: usize = 64;

/// What an agent serves, where, and within which bounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How relays and logs call this agent.
    pub name: String,
    /// Where HTTP is served, `/metrics` included. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// A Unix socket that serves the same, mode 0660.
    pub unix_socket: Option<PathBuf>,
    /// The module files to serve, at least one and at most [`MODULES_MAX`].
    pub modules: Vec<PathBuf>,
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
    /// Where the excess may go; without it every request runs here.
    pub relays: Option<Relays>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// The relays that an agent may send to, and who it is to them.
#[derive(Clone, Debug)]
pub struct Relays {
    /// Relays that are always there, as `host:port`.
    pub addresses: Vec<String>,
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

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is too long.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The configuration file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, has a key that does not exist, or a value of the wrong type.
    #[error("{}: {}", path.display(), error.to_string().trim_end())]
    Parse {
        /// The configuration file.
        path: PathBuf,
        /// Where and what, with the line quoted.
        error: Box<toml::de::Error>,
    },
    /// A value is of the right type and still cannot be meant.
    #[error("{}: line {line}: {key}: {problem}", path.display())]
    Value {
        /// The configuration file.
        path: PathBuf,
        /// Line of the value, from 1.
        line: usize,
        /// The key, with its table.
        key: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
    /// A key is needed and not there.
    #[error("{}: {key} is missing: {why}", path.display())]
    Missing {
        /// The configuration file.
        path: PathBuf,
        /// The key, with its table.
        key: &'static str,
        /// What needs it.
        why: &'static str,
    },
    /// The arrivals of an oracle cannot be used.
    #[error("{}: burst.arrivals-file", path.display())]
    Arrivals {
        /// The configuration file.
        path: PathBuf,
        /// Where and what.
        source: ArrivalsError,
    },
}

impl Config {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path, CONFIG_BYTES_MAX).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Parses `text` as the content of the file at `path`, which gives relative paths their folder.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        raw::Written::new(text, path)?.try_into()
    }
}

/// The text of a file, refused where it is longer than `bytes_max`.
fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(bytes_max + 1);
    let len = file.read_to_string(&mut text)?;
    if u64::try_from(len).is_ok_and(|len| len <= bytes_max) {
        return Ok(text);
    }
    let message = format!("it is longer than {bytes_max} bytes");
    Err(std::io::Error::new(
        std::io::ErrorKind::FileTooLarge,
        message,
    ))
}
