//! A real OCI registry, Debian's `docker-registry`, as a child process on a free port of loopback.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use tempfile::TempDir;

use crate::wait::PATIENCE;

/// The one user of a registry with [`Auth::Password`].
pub const USER: &str = "ada";

/// The user's password.
pub const PASSWORD: &str = "secret word";

/// The password as `htpasswd -B` writes it.
const PASSWORD_HASH: &str = "$2y$05$abcdefghijklmnopqrstuu1C7yeI3ZG3Jm.nHdnKkGJg1xTYKP9Oy";

/// Who may use a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Everybody.
    Nobody,
    /// [`USER`] with [`PASSWORD`].
    Password,
}

/// How a registry is reached.
#[derive(Debug, Clone, Copy)]
pub enum Transport<'a> {
    /// HTTP without TLS.
    Plain,
    /// TLS with this certificate and key, both files.
    Tls(&'a Path, &'a Path),
}

/// A running registry. Dropping it kills it and removes what it holds.
#[derive(Debug)]
pub struct DockerRegistry {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl DockerRegistry {
    /// Starts an empty registry for everybody, without TLS.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(Auth::Nobody, Transport::Plain)
    }

    /// Starts an empty registry.
    #[must_use]
    pub fn start_with(auth: Auth, transport: Transport<'_>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let config = folder.path().join("config.yml");
        std::fs::write(&config, configuration(folder.path(), auth, transport)).expect("a file");
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry starts: install Debian's package of this name");
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let (found, address) = channel();
        // The log is read to its end, since a full pipe would stop the registry.
        thread::spawn(move || {
            let mut log = String::new();
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let after = line.split_once("listening on ").map(|(_, rest)| rest);
                let address = after.and_then(|rest| rest.split([',', '"']).next());
                if let Some(address) = address.and_then(|text| text.parse().ok()) {
                    let _ = found.send(address);
                }
                if log.len() < 64 << 10 {
                    let _ = writeln!(log, "{line}");
                }
            }
            log
        });
        let address = address.recv_timeout(PATIENCE);
        Self {
            child,
            address: address.expect("docker-registry says where it listens"),
            _folder: folder,
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(folder: &Path, auth: Auth, transport: Transport<'_>) -> String {
    let root = folder.join("data");
    let mut text = format!(
        "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\n\
         storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
         http:\n  addr: 127.0.0.1:0\n  secret: of-tests\n",
        root.display()
    );
    if let Transport::Tls(certificate, key) = transport {
        let (certificate, key) = (certificate.display(), key.display());
        let _ = write!(
            text,
            "  tls:\n    certificate: {certificate}\n    key: {key}\n"
        );
    }
    if auth == Auth::Password {
        let path = folder.join("htpasswd");
        std::fs::write(&path, format!("{USER}:{PASSWORD_HASH}\n")).expect("a file");
        let path = path.display();
        let _ = write!(
            text,
            "auth:\n  htpasswd:\n    realm: tests\n    path: {path}\n"
        );
    }
    text
}
