//! The relay's configuration: parsed once, into values that cannot be wrong.
//!
//! A file is read as written (`raw`), and then turned into what is meant: defaults filled in, ranges
//! checked, relative paths taken from the folder of the file. Every key has a default but the three
//! files of the relay's identity; `relay.example.toml` beside this crate shows them all. An error
//! names the file, the line and the key.
//!
//! What the defaults let a relay hold at most: `held-bytes-max` for requests (512 MiB), 8 MiB of
//! QUIC buffers for each of `connections-max` connections (2 GiB if every agent of the fleet is
//! hostile), and `store-bytes-max` of module files (1 GiB) with what preparing them takes on top.

mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_identity::IdentityFiles;

/// Longest configuration file that is read: thousands of times what every key takes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What a relay serves, where, and within which bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// How agents and logs call this relay; agents call it by its address if absent.
    pub name: Option<String>,
    /// UDP address for QUIC. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// TCP address for `GET /metrics`; none if absent.
    pub metrics_listen: Option<SocketAddr>,
    /// This relay's certificate and key, and the CA that agents must come from.
    pub identity: IdentityFiles,
    /// Modules to have ready before the first agent offers them.
    pub modules: Vec<PathBuf>,
    /// Requests that run at once, each on a thread of its own.
    pub slots: usize,
    /// Requests that may wait for a slot.
    pub queue_len_max: usize,
    /// Most bytes of one module's file.
    pub module_bytes_max: u64,
    /// Most bytes of all module files together; never below `module_bytes_max`.
    pub store_bytes_max: u64,
    /// Most tensor bytes of all requests and replies together; at least twice what one message may
    /// have. One connection may hold half of it.
    pub held_bytes_max: usize,
    /// Connections that may be open at once.
    pub connections_max: usize,
    /// Connections that one certificate's name may have open at once.
    pub connections_per_peer_max: usize,
    /// Requests that one connection may have in flight.
    pub requests_per_connection_max: u32,
    /// How long a peer may leave a message half-sent, or a reply unread.
    pub stall: Duration,
    /// How long the requests in flight may take to finish after SIGTERM.
    pub drain: Duration,
    /// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
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
        /// The key.
        key: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
    /// A key is needed and not there.
    #[error("{}: {key} is missing: {why}", path.display())]
    Missing {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What needs it.
        why: &'static str,
    },
}

impl Config {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// Parses `text` as the content of the file at `path`, which gives relative paths their folder.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        raw::parse(text, path)
    }
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(CONFIG_BYTES_MAX + 1);
    let len = file.read_to_string(&mut text)?;
    if u64::try_from(len).is_ok_and(|len| len <= CONFIG_BYTES_MAX) {
        return Ok(text);
    }
    let message = format!("it is longer than {CONFIG_BYTES_MAX} bytes");
    Err(std::io::Error::new(
        std::io::ErrorKind::FileTooLarge,
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../relay.example.toml");
    const REQUIRED: &str = "certificate = \"c\"\nkey = \"k\"\nca = \"a\"\n";

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/tidegate/relay.toml"))
    }

    #[test]
    fn the_example_shows_every_key_with_its_default() {
        // Keys that are commented out show their defaults, so they change nothing when they are on.
        let on: String = EXAMPLE
            .lines()
            .filter_map(|line| match line.strip_prefix("# ") {
                Some(rest) => rest.contains(" = ").then_some(rest),
                None => Some(line),
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let example = parse(EXAMPLE).unwrap();
        let mut all = parse(&on).unwrap();
        // These have no default value to show, only an example of one.
        all.name = None;
        all.metrics_listen = None;
        all.modules.clear();
        all.slots = example.slots;
        assert_eq!(format!("{all:?}"), format!("{example:?}"));
        for key in raw::KEYS {
            assert!(
                on.contains(&format!("\n{key} = ")),
                "{key} is not in the example"
            );
        }
    }

    #[test]
    fn paths_are_taken_from_the_folder_of_the_file() {
        let config = parse(&format!("{REQUIRED}modules = [\"m.wasm\", \"/m.wasm\"]")).unwrap();
        assert_eq!(config.identity.key, Path::new("/etc/tidegate/k"));
        let modules = ["/etc/tidegate/m.wasm", "/m.wasm"].map(PathBuf::from);
        assert_eq!(config.modules, modules);
    }

    #[test]
    fn an_error_names_the_line_and_the_key() {
        let check = |line: &str, parts: &[&str]| {
            let error = parse(&format!("{REQUIRED}{line}\n"))
                .unwrap_err()
                .to_string();
            let missing: Vec<_> = parts
                .iter()
                .filter(|part| !error.contains(**part))
                .collect();
            assert!(missing.is_empty(), "{missing:?} not in {error:?}");
        };
        check("slot = 1", &["line 4", "slot"]);
        check("slots = 0", &["line 4", "slots", "1 to 1024"]);
        check("slots = \"two\"", &["line 4", "slots"]);
        check("slots = -1", &["line 4", "slots"]);
        check("listen = \"here\"", &["line 4", "listen"]);
        check("name = \"\"", &["line 4", "name"]);
        check("log = \"=x=\"", &["line 4", "log"]);
        check("log-format = \"xml\"", &["line 4", "log-format"]);
        check("\nheld-bytes-max = 1", &["line 5", "held-bytes-max"]);
        check(
            "module-bytes-max = 9000\nstore-bytes-max = 8999",
            &["line 5", "store-bytes-max", "9000"],
        );
        check("drain-s = 3601", &["line 4", "drain-s"]);
        let error = parse("key = \"k\"\nca = \"a\"").unwrap_err().to_string();
        assert!(error.contains("certificate is missing"), "{error}");
    }

    #[test]
    fn a_file_over_the_limit_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.toml");
        std::fs::write(&path, format!("{REQUIRED}#{}", "x".repeat(1 << 20))).unwrap();
        assert!(matches!(Config::load(&path), Err(ConfigError::Read { .. })));
        std::fs::write(&path, REQUIRED).unwrap();
        assert!(Config::load(&path).is_ok());
    }
}
