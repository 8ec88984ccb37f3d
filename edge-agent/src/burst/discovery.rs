//! Which relays are wanted: those of the configuration, and those of a file that others rewrite.
//!
//! The file has one `host:port` a line; blank lines and what follows `#` are skipped. It is read again
//! every 250 ms, since a relay that was just started is wanted now, and a few hundred bytes from the
//! page cache cost less than watching for them. A line that is no address is reported and skipped; a
//! file that cannot be read leaves the list as it was.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::connection;
use super::link::Home;

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_millis(250);

/// Most relays that one agent connects to.
const RELAYS_MAX: usize = 256;

/// Longest relays file: every relay with the longest host name that DNS has.
const FILE_BYTES_MAX: usize = RELAYS_MAX * (HOST_BYTES_MAX + ":65535\n".len());

/// Longest name that DNS has.
const HOST_BYTES_MAX: usize = 253;

/// A relay's host name or IP address, and its UDP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RelayAddress {
    host: String,
    port: u16,
}

impl RelayAddress {
    /// Host name or IP address, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// UDP port, not 0.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for RelayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Text that is not a relay's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected host:port with a port from 1 to 65535, got {0:?}")]
pub(crate) struct ParseAddressError(String);

impl FromStr for RelayAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseAddressError(text.chars().take(HOST_BYTES_MAX).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(error)?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_host = match bracketed {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
                (1..=HOST_BYTES_MAX).contains(&host.len()) && host.bytes().all(plain)
            }
        };
        if !is_host {
            return Err(error());
        }
        let host = bracketed.unwrap_or(host).to_owned();
        Ok(Self { host, port })
    }
}

/// The relays that are wanted now.
#[derive(Debug)]
pub(super) struct Discovery {
    fixed: BTreeSet<RelayAddress>,
    file: Option<RelaysFile>,
}

#[derive(Debug)]
struct RelaysFile {
    path: PathBuf,
    text: String,
    listed: BTreeSet<RelayAddress>,
    state: FileState,
}

/// Whether the last read succeeded, so that a lasting failure is said once.
#[derive(Debug, PartialEq, Eq)]
enum FileState {
    Readable,
    Unreadable,
}

impl Discovery {
    pub(super) fn new(fixed: BTreeSet<RelayAddress>, path: Option<PathBuf>) -> Self {
        let file = path.map(|path| RelaysFile {
            path,
            text: String::new(),
            listed: BTreeSet::new(),
            state: FileState::Readable,
        });
        Self { fixed, file }
    }

    /// Reads the file and returns every wanted relay, at most [`RELAYS_MAX`].
    async fn wanted(&mut self) -> BTreeSet<RelayAddress> {
        let mut wanted = self.fixed.clone();
        if let Some(file) = &mut self.file {
            file.read().await;
            wanted.extend(file.listed.iter().cloned());
        }
        while wanted.len() > RELAYS_MAX {
            wanted.pop_last();
        }
        wanted
    }
}

impl RelaysFile {
    async fn read(&mut self) {
        match read_bounded(&self.path).await {
            Ok(text) => {
                self.state = FileState::Readable;
                if text != self.text {
                    self.listed = parse(&text);
                    self.text = text;
                    let relays = self.listed.len();
                    tracing::info!(file = %self.path.display(), relays, "read the relay list");
                }
            }
            Err(error) => {
                if self.state == FileState::Readable {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "failed to read the relay list, keeping the last");
                }
                self.state = FileState::Unreadable;
            }
        }
    }
}

async fn read_bounded(path: &std::path::Path) -> io::Result<String> {
    let file = tokio::fs::File::open(path).await?;
    let mut bytes = Vec::new();
    let bound = u64::try_from(FILE_BYTES_MAX).expect("the bound is small") + 1;
    file.take(bound).read_to_end(&mut bytes).await?;
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("longer than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn parse(text: &str) -> BTreeSet<RelayAddress> {
    let mut listed = BTreeSet::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.parse() {
            Ok(address) => {
                listed.insert(address);
            }
            Err(error) => tracing::warn!(line = index + 1, %error, "skipped a relay"),
        }
    }
    if listed.len() > RELAYS_MAX {
        let relays = listed.len();
        tracing::warn!(
            relays,
            RELAYS_MAX,
            "the relay list is too long, using its beginning"
        );
    }
    listed
}

/// Keeps one connection task per wanted relay. After `stop`, ends when each has retired.
pub(super) async fn supervise(mut discovery: Discovery, home: Arc<Home>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut kept: HashMap<RelayAddress, CancellationToken> = HashMap::new();
    let mut ticks = interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            _ = ticks.tick() => {}
        }
        let wanted = discovery.wanted().await;
        kept.retain(|address, retire| {
            let stays = wanted.contains(address);
            if !stays {
                retire.cancel();
            }
            stays
        });
        for address in wanted {
            kept.entry(address).or_insert_with_key(|address| {
                let retire = CancellationToken::new();
                let task = connection::keep(address.clone(), Arc::clone(&home), retire.clone());
                tasks.spawn(task);
                retire
            });
        }
    }
    kept.values().for_each(CancellationToken::cancel);
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in [
            "relay.example:4433",
            "127.0.0.1:1",
            "[::1]:65535",
            "edge_1:80",
        ] {
            assert_eq!(good.parse::<RelayAddress>().unwrap().to_string(), good);
        }
        let long = format!("{}:1", "a".repeat(254));
        for bad in [
            "",
            ":",
            ":1",
            "host",
            "host:",
            "host:0",
            "host:65536",
            "host:-1",
            "::1:4433",
            "[::1]",
            "[host]:1",
            "[]:1",
            "ho st:1",
            "host/path:1",
            "h\u{f6}st:1",
            &long,
        ] {
            assert!(bad.parse::<RelayAddress>().is_err(), "{bad:?}");
        }
    }

    async fn check(discovery: &mut Discovery, wanted: &[&str]) {
        let got = discovery.wanted().await;
        assert_eq!(
            got.iter().map(ToString::to_string).collect::<Vec<_>>(),
            wanted
        );
    }

    #[tokio::test]
    async fn the_file_adds_to_the_fixed_relays_and_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relays.txt");
        let fixed = BTreeSet::from(["a:1".parse().unwrap()]);
        let mut discovery = Discovery::new(fixed, Some(path.clone()));
        check(&mut discovery, &["a:1"]).await;
        std::fs::write(&path, "# fleet\n\nb:2 # spare\nnonsense\na:1\n").unwrap();
        check(&mut discovery, &["a:1", "b:2"]).await;
        std::fs::write(&path, "c:3\n").unwrap();
        check(&mut discovery, &["a:1", "c:3"]).await;
        for unreadable in [vec![0xff, 0xfe], vec![b'x'; FILE_BYTES_MAX + 1]] {
            std::fs::write(&path, unreadable).unwrap();
            check(&mut discovery, &["a:1", "c:3"]).await;
        }
        std::fs::write(&path, "").unwrap();
        check(&mut discovery, &["a:1"]).await;
    }

    #[tokio::test]
    async fn no_more_relays_than_the_limit_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relays.txt");
        let lines: String = (1..=RELAYS_MAX + 9)
            .map(|port| format!("h:{port}\n"))
            .collect();
        std::fs::write(&path, lines).unwrap();
        let mut discovery = Discovery::new(BTreeSet::new(), Some(path));
        assert_eq!(discovery.wanted().await.len(), RELAYS_MAX);
    }
}
