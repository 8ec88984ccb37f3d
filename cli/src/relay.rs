//! `tidegate relay`: the inference service in the cloud, by the same call as `tidegate-relay`.
//!
//! Started by a supervisor, it can also be told to drain when the pipe to its standard input closes.
//! That happens however the supervisor ends, so no relay is left behind.

use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use rustix::process::{Signal, getpid, kill_process};

/// Run model modules for agents, over QUIC.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration of the relay.
    #[arg(long, value_name = "FILE.toml")]
    config: PathBuf,
    /// Drain when standard input closes, as on SIGTERM, so as not to outlive a supervisor.
    #[arg(long)]
    until_stdin_closes: bool,
}

/// Nothing would notice the end of standard input.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch standard input")]
pub(crate) struct WatchError(#[source] io::Error);

/// Runs the daemon until it is told to stop.
pub(crate) fn run(args: &Args) -> Result<ExitCode, WatchError> {
    if args.until_stdin_closes {
        // A thread of its own, because a read of standard input cannot be cancelled. It ends with the
        // process.
        let watch = std::thread::Builder::new().name("stdin".to_owned());
        watch.spawn(drain_when_stdin_closes).map_err(WatchError)?;
    }
    Ok(tidegate_cloud_relay::run(&args.config))
}

fn drain_when_stdin_closes() {
    let mut buffer = [0; 64];
    loop {
        match io::stdin().read(&mut buffer) {
            Ok(1..) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => break,
        }
    }
    if let Err(error) = kill_process(getpid(), Signal::TERM) {
        tracing::error!(%error, "cannot begin to drain");
    }
}
