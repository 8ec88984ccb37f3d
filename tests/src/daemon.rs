//! A daemon as a child process, from its ready line to its exit.
//!
//! Dropping it kills it. If the test fails, what it logged is printed with the failure.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::checkout::state;
use crate::wait::{PATIENCE, eventually};

/// Most bytes of a log that are kept: the first ones, where the cause is.
const LOG_BYTES_MAX: usize = 256 << 10;

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    address: SocketAddr,
    log: Log,
    output: Receiver<String>,
}

/// A daemon that ended before it was ready.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// All that it wrote to standard error.
    pub log: String,
}

impl Daemon {
    /// Starts `command` and waits for its ready line, `NAME listening on ADDRESS`.
    pub fn start(command: &mut Command, name: &str) -> Result<Self, Ended> {
        let mut child = command
            .env("XDG_STATE_HOME", state())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let log = Log::read(child.stderr.take().expect("standard error is a pipe"));
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let (lines, output) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let mut daemon = Self {
            name: name.to_owned(),
            child,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            log,
            output,
        };
        let Ok(line) = daemon.output.recv_timeout(PATIENCE) else {
            return Err(daemon.ended_early());
        };
        let address = line
            .split_once(" listening on ")
            .map(|(_, address)| address.parse());
        let Some(Ok(address)) = address else {
            panic!("{name} said {line:?} instead of where it listens");
        };
        daemon.address = address;
        Ok(daemon)
    }

    fn ended_early(mut self) -> Ended {
        let status = self.child.try_wait().expect("a child can be waited for");
        let status = status.unwrap_or_else(|| {
            // Standard output closes a moment before the process is gone; a daemon that is neither
            // ready nor gone is killed here, which its status then tells.
            let _ = kill_process(self.pid(), Signal::KILL);
            self.child.wait().expect("a child can be waited for")
        });
        let log = self.log.whole();
        Ended { status, log }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Lines that it has written to standard output since the ready line.
    #[must_use]
    pub fn further_output(&self) -> Vec<String> {
        self.output.try_iter().collect()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the child is ours, running or not yet reaped");
    }

    /// Ends it at once, as a crash would: SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().expect("the child is ours");
        self.child.wait().expect("a child can be waited for");
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        let child = &mut self.child;
        eventually(&what, async || {
            child.try_wait().expect("a child can be waited for")
        })
        .await
    }

    /// Most memory that it ever had resident, in bytes.
    #[must_use]
    pub fn peak_resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the daemon runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kib: u64 = kib.and_then(|kib| kib.parse().ok()).expect("a line VmHWM");
        kib << 10
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; there is nothing to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log.whole());
        }
    }
}

/// The start of what a child writes to standard error, read until it closes.
#[derive(Debug)]
struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Log {
    fn read(mut stderr: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = stderr.read(&mut buffer) {
                let mut text = written.lock().unwrap_or_else(PoisonError::into_inner);
                let room = LOG_BYTES_MAX - text.len();
                text.extend_from_slice(&buffer[..len.min(room)]);
            }
        });
        let reader = Some(reader);
        Self { text, reader }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// All of it, once the child has ended.
    fn whole(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
        self.text()
    }
}
