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

use tidegate_daemon::LogFormat;
use tidegate_daemon::config::{self, ConfigError};
use tidegate_daemon::state::StateConfig;
use tidegate_identity::IdentityFiles;
use tidegate_registry::trust::TrustPolicy;
use tidegate_runtime::Vetting;

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
    /// Whose modules may run, those of `modules` and those that agents offer.
    pub trust: TrustPolicy,
    /// Where compiled code is kept.
    pub state: StateConfig,
    /// The child process that prepares each graph first; it is this program, which has to begin with
    /// [`tidegate_runtime::vet::vet_graph_if_asked`]. Without it graphs are prepared in this process alone.
    pub vetting: Option<Vetting>,
    /// The engine of graphs as a guest; without it modules that want strict isolation are refused.
    pub tract_guest: Option<PathBuf>,
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
        let files = "certificate = \"relay.pem\"\nkey = \"relay.key\"\nca = \"ca.pem\"";
        let example = format!("{:?}", parse(EXAMPLE).unwrap());
        assert_eq!(example, format!("{:?}", parse(files).unwrap()));
        // A key behind a single `#` has no default value to show, only an example of one.
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.starts_with(' ') => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let all = parse(&uncommented).unwrap();
        assert_eq!(all.name.as_deref(), Some("relay-1"));
        assert_eq!(all.metrics_listen, "127.0.0.1:9433".parse().ok());
        for key in raw::KEYS {
            assert!(
                uncommented.contains(&format!("\n{key} = ")),
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
        check("module-bytes-max = 1073741825", &["line 4", "1073741824"]);
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
