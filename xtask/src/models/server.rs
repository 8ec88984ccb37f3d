//! A server of the task's own: started, heard until it says where it listens, killed on drop.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Longest wait for a server to be ready: an agent prepares every model before, a dev build slowly.
const READY_LIMIT: Duration = Duration::from_secs(600);

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    _process: Process,
    address: SocketAddr,
    /// What it logged before it was ready, each line with the time since the start.
    pub(super) lines: Vec<(Duration, String)>,
}

/// A server that was never ready, and all that it logged.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) lines: Vec<String>,
}

#[derive(Debug)]
struct Process(Child);

impl Server {
    /// Starts a server that logs to standard error. `find` finds in a line where it listens. The log goes on
    /// into the file `log`.
    pub(super) fn start(
        command: &mut Command,
        log: &Path,
        find: impl Fn(&str) -> Option<SocketAddr>,
    ) -> Result<Result<Self, Ended>> {
        let mut file =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let started = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let mut process = Process(child);
        let stderr = process.0.stderr.take().context("standard error is piped")?;
        let (heard, log) = channel();
        // The log is read to its end, since a full pipe would stop the server.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                // A log that cannot be written is no reason to stop the server.
                let _ = writeln!(file, "{line}");
                let _ = heard.send((started.elapsed(), line));
            }
        });
        let mut lines = Vec::new();
        loop {
            let left = READY_LIMIT.saturating_sub(started.elapsed());
            let last = match log.recv_timeout(left) {
                Ok((since, line)) => {
                    let address = find(&line);
                    lines.push((since, line));
                    if let Some(address) = address {
                        return Ok(Ok(Self {
                            _process: process,
                            address,
                            lines,
                        }));
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => None,
                Err(RecvTimeoutError::Timeout) => {
                    Some(format!("not ready after {} s", READY_LIMIT.as_secs()))
                }
            };
            let lines = lines.into_iter().map(|(_, line)| line).chain(last);
            return Ok(Err(Ended {
                lines: lines.collect(),
            }));
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Ended {
    /// Its last words.
    pub(super) fn reason(&self) -> String {
        let last = self.lines.iter().rfind(|line| !line.trim().is_empty());
        last.map_or("it ended without a word", |line| line.trim())
            .to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
