//! Which relays are wanted: those of the configuration, and those of a file that others rewrite.
//!
//! The file has one `host:port` a line; blank lines and what follows `#` are skipped. It is read again
//! every 250 ms, since a relay that was just started is wanted now, and a few hundred bytes from the
//! page cache cost less than watching for them. A line that is no address is reported and skipped; a
//! file that cannot be read leaves the list as it was.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::connection;
use super::link::Home;
use super::offers::Offers;
use crate::config::{HOST_BYTES_MAX, RELAYS_MAX, RelayAddress};

/// How often the file is read.
const READ_EVERY: Duration = Duration::from_millis(250);

/// Longest relays file: every relay with the longest host name that DNS has.
const FILE_BYTES_MAX: usize = RELAYS_MAX * (HOST_BYTES_MAX + ":65535\n".len());

/// Longest that a relay may take to get ready what it is newly offered, before the link with the offers
/// of before retires: a large module over a slow line, and its preparation.
const HAND_OVER_MAX: Duration = Duration::from_secs(120);

/// The relays that are wanted now.
#[derive(Debug)]
pub(super) struct Discovery {
    fixed: Vec<RelayAddress>,
    file: Option<RelaysFile>,
    /// Entries beyond [`RELAYS_MAX`], so that the same excess is said once.
    left_out: usize,
}

#[derive(Debug)]
struct RelaysFile {
    path: PathBuf,
    text: String,
    /// In the order of the lines.
    listed: Vec<RelayAddress>,
    state: FileState,
}

/// Whether the last read succeeded, so that a lasting failure is said once.
#[derive(Debug, PartialEq, Eq)]
enum FileState {
    Readable,
    Unreadable,
}

impl Discovery {
    pub(super) fn new(fixed: Vec<RelayAddress>, path: Option<PathBuf>) -> Self {
        let file = path.map(|path| RelaysFile {
            path,
            text: String::new(),
            listed: Vec::new(),
            state: FileState::Readable,
        });
        Self {
            fixed,
            file,
            left_out: 0,
        }
    }

    /// Reads the file and returns every wanted relay, at most [`RELAYS_MAX`]: the fixed ones, then
    /// the file's from its first line on.
    async fn wanted(&mut self) -> BTreeSet<RelayAddress> {
        if let Some(file) = &mut self.file {
            file.read().await;
        }
        let listed = self.file.iter().flat_map(|file| &file.listed);
        let mut wanted = BTreeSet::new();
        let mut left_out = 0;
        for address in self.fixed.iter().chain(listed) {
            if wanted.len() < RELAYS_MAX {
                wanted.insert(address.clone());
            } else if !wanted.contains(address) {
                left_out += 1;
            }
        }
        if left_out > 0 && left_out != self.left_out {
            tracing::warn!(
                left_out,
                RELAYS_MAX,
                "too many relays, leaving out the last of the relay list"
            );
        }
        self.left_out = left_out;
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

fn parse(text: &str) -> Vec<RelayAddress> {
    let mut listed = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.parse() {
            Ok(address) => listed.push(address),
            Err(error) => tracing::warn!(line = index + 1, %error, "skipped a relay"),
        }
    }
    listed
}

/// The links to one relay.
struct Kept {
    /// Ends them all.
    retire: CancellationToken,
    /// Ends the one with the newest offers.
    newest: CancellationToken,
}

/// Keeps one connection task per wanted relay. After `stop`, ends when each has retired.
///
/// When the offers change, each relay gets a second task, and the first retires once the relay can run
/// everything of the second, at the latest after [`HAND_OVER_MAX`].
pub(super) async fn supervise(
    mut discovery: Discovery,
    home: Arc<Home>,
    mut offers: watch::Receiver<Arc<Offers>>,
    stop: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    let mut kept: HashMap<RelayAddress, Kept> = HashMap::new();
    let mut ticks = interval(READ_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            _ = ticks.tick() => {}
        }
        let wanted = discovery.wanted().await;
        kept.retain(|address, kept| {
            let stays = wanted.contains(address);
            if !stays {
                kept.retire.cancel();
            }
            stays
        });
        let have_changed = offers.has_changed().unwrap_or(false);
        let offered = Arc::clone(&offers.borrow_and_update());
        let mut keep = |address: &RelayAddress, retire: &CancellationToken| {
            let (whole, own) = (CancellationToken::new(), retire.child_token());
            tasks.spawn(connection::keep(
                address.clone(),
                Arc::clone(&home),
                Arc::clone(&offered),
                whole.clone(),
                own.clone(),
            ));
            (whole, own)
        };
        let mut hand_overs = Vec::new();
        if have_changed {
            for (address, kept) in &mut kept {
                let (whole, own) = keep(address, &kept.retire);
                hand_overs.push((whole, std::mem::replace(&mut kept.newest, own)));
            }
        }
        for address in wanted {
            kept.entry(address).or_insert_with_key(|address| {
                let retire = CancellationToken::new();
                let (_, newest) = keep(address, &retire);
                Kept { retire, newest }
            });
        }
        for (whole, before) in hand_overs {
            tasks.spawn(async move {
                // Not whole in time, the relay cannot run something that is served now.
                let _ = timeout(HAND_OVER_MAX, whole.cancelled()).await;
                before.cancel();
            });
        }
    }
    kept.values().for_each(|kept| kept.retire.cancel());
    while tasks.join_next().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let fixed = vec!["a:1".parse().unwrap()];
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
    async fn beyond_the_limit_the_last_lines_of_the_file_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relays.txt");
        let listed = |port| format!("h:{port}");
        let ports = (1..=RELAYS_MAX + 9).rev();
        let lines: Vec<_> = ports.clone().map(listed).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        let mut discovery = Discovery::new(vec!["z:1".parse().unwrap()], Some(path));
        let wanted = discovery.wanted().await;
        let first = ports.take(RELAYS_MAX - 1).map(listed);
        let expected = first.chain(["z:1".to_owned()]);
        assert_eq!(
            wanted
                .iter()
                .map(ToString::to_string)
                .collect::<BTreeSet<_>>(),
            expected.collect()
        );
        assert_eq!(discovery.left_out, 10);
    }
}
