//! The agent as a process: configuration file, log, ready line, signals, exit code.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::ConfigError;
use crate::logging::LogError;
use crate::{Config, StartError, start};

/// Exit code of a bad configuration: `EX_USAGE` of `sysexits.h`.
pub const EXIT_CONFIG: u8 = 64;

/// Why the daemon ended early.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("bad configuration")]
    Config(#[from] ConfigError),
    #[error("failed to set up the log")]
    Log(#[from] LogError),
    #[error("failed to start the executor")]
    Executor(#[source] io::Error),
    #[error("failed to watch for signals")]
    Signals(#[source] io::Error),
    #[error("failed to start")]
    Start(#[from] StartError),
    #[error("failed to write the ready line")]
    Ready(#[source] io::Error),
}

/// Runs an agent with the configuration at `config_path` until SIGTERM or SIGINT, and then drains it.
///
/// Prints one line on stdout when it is ready, and an error with all its causes on stderr. A second
/// signal ends the drain at once. Gives 0 after a drain, [`EXIT_CONFIG`] for a bad configuration, and
/// 1 for anything else.
#[must_use]
pub fn run(config_path: &Path) -> ExitCode {
    let Err(error) = try_run(config_path) else {
        return ExitCode::SUCCESS;
    };
    // Nothing is left to tell if stderr is closed.
    let _ = writeln!(io::stderr(), "tidegate-agent: {}", chain(&error));
    match error {
        RunError::Config(_) => ExitCode::from(EXIT_CONFIG),
        RunError::Log(_)
        | RunError::Executor(_)
        | RunError::Signals(_)
        | RunError::Start(_)
        | RunError::Ready(_) => ExitCode::FAILURE,
    }
}

fn try_run(config_path: &Path) -> Result<(), RunError> {
    let config = Config::load(config_path)?;
    crate::logging::start(&config.log, config.log_format)?;
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(RunError::Executor)?;
    executor.block_on(serve(config))
}

async fn serve(config: Config) -> Result<(), RunError> {
    // Before the start, so that a signal during it is not lost.
    let mut signals = StopSignals::watch().map_err(RunError::Signals)?;
    let drain = config.drain;
    let agent = tokio::select! {
        agent = start(config) => agent?,
        () = signals.next() => return Ok(()),
    };
    let line = format!("tidegate-agent listening on {}\n", agent.local_addr());
    let mut stdout = io::stdout();
    stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(RunError::Ready)?;
    signals.next().await;
    tokio::select! {
        _ = agent.shutdown(drain) => {}
        () = signals.next() => tracing::warn!("stopped at once by a second signal"),
    }
    Ok(())
}

/// The signals that ask a daemon to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
