//! The parent's side: starts the child, feeds it, waits no longer than it may, and reads how it ended.

use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::child::REPORT_PREFIX;
use super::{Report, Task, Verdict, VetError, Vetting};

/// Most bytes of each output of the child that are kept: a report and the last words of a panic.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// Longest part of the child's last words that is passed on.
const WORDS_CHARS_MAX: usize = 300;

/// Runs a child on the parts of `input`, one behind the other, until it ends, or for `clock_max`.
pub(super) fn run(
    vetting: &Vetting,
    task: &Task,
    input: &[&[u8]],
    clock_max: Duration,
) -> Result<Verdict, VetError> {
    let ended = supervise(vetting, task, input, clock_max).map_err(|source| VetError::Start {
        program: vetting.program.clone(),
        source,
    })?;
    let report = report(&ended.output);
    match report {
        Some(Report::Good(verdict)) if ended.status.success() => return Ok(verdict),
        Some(Report::Bad(reason)) if ended.status.success() => {
            return Err(VetError::Refused { reason });
        }
        Some(_) | None => {}
    }
    if ended.is_late {
        return Err(VetError::Time { limit: clock_max });
    }
    let words = String::from_utf8_lossy(&ended.errors);
    let signal = ended.status.signal().and_then(Signal::from_named_raw);
    Err(if signal == Some(Signal::XCPU) {
        let limit = Duration::from_secs(task.cpu_seconds_max);
        VetError::Time { limit }
    } else if words.contains("memory allocation of") {
        VetError::Memory {
            bytes_max: task.memory_bytes_max,
        }
    } else if words.contains("has overflowed its stack") {
        VetError::Stack
    } else {
        let last = words.lines().rfind(|line| !line.trim().is_empty());
        let last: String = last
            .unwrap_or("it wrote nothing")
            .chars()
            .filter(|character| !character.is_control())
            .take(WORDS_CHARS_MAX)
            .collect();
        VetError::Died {
            how: format!("{}, {last}", ended.status),
        }
    })
}

/// How a child ended, and the beginning of what it wrote.
struct Ended {
    status: ExitStatus,
    is_late: bool,
    output: Vec<u8>,
    errors: Vec<u8>,
}

fn supervise(
    vetting: &Vetting,
    task: &Task,
    input: &[&[u8]],
    clock_max: Duration,
) -> io::Result<Ended> {
    let deadline = Instant::now() + clock_max;
    let mut child = Command::new(&vetting.program)
        .args(&vetting.arguments)
        .arg(serde_json::to_string(task)?)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        // A child that ends early, or never reads, must not keep this thread: so each stream has its own,
        // all of which end with the child.
        let feed = thread::Builder::new().spawn_scoped(scope, move || {
            // What the child made of a graph that it did not read to the end, its status tells.
            stdin.map(|mut stdin| input.iter().try_for_each(|part| stdin.write_all(part)))
        });
        let output = thread::Builder::new().spawn_scoped(scope, move || beginning(stdout));
        let errors = thread::Builder::new().spawn_scoped(scope, move || beginning(stderr));
        let ended = wait(&child, deadline);
        end(&mut child);
        let status = child.wait();
        drop(feed?);
        let join =
            |thread: thread::ScopedJoinHandle<'_, Vec<u8>>| thread.join().unwrap_or_default();
        Ok(Ended {
            is_late: !ended?,
            output: join(output?),
            errors: join(errors?),
            status: status?,
        })
    })
}

/// Waits until the child has ended, but not past `deadline`. Gives whether it has.
fn wait(child: &Child, deadline: Instant) -> io::Result<bool> {
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends the child, and what it may have started. It has not been waited for, so its number is its own.
fn end(child: &mut Child) {
    // Not there if the child did not come to have a session of its own, or has ended with all in it.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    let _ = child.kill();
}

/// What a stream begins with. The rest is read, so that the child does not wait, and dropped.
fn beginning(stream: Option<impl Read>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return kept,
            Ok(len) => {
                let room = OUTPUT_BYTES_MAX - kept.len();
                kept.extend_from_slice(&buffer[..len.min(room)]);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return kept,
        }
    }
}

fn report(output: &[u8]) -> Option<Report> {
    let output = String::from_utf8_lossy(output);
    let line = output
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix(REPORT_PREFIX))?;
    serde_json::from_str(line).ok()
}
