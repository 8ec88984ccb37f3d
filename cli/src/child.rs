//! Asks child processes to end.

use std::io;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

/// Sends SIGTERM. A process that was waited for gets none: its number may be another's by now.
pub(crate) fn terminate(child: &Child) -> io::Result<()> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    match pid.and_then(Pid::from_raw) {
        Some(pid) => Ok(kill_process(pid, Signal::TERM)?),
        None => Ok(()),
    }
}
