//! What the agent and the relay share as processes.
//!
//! [`run`] takes a [`Daemon`] from its configuration file to its exit code; [`arguments`] reads a command
//! line; [`config`] reads a configuration; [`state`] is the folder that keeps what outlives the process; [`udp`]
//! widens the socket that carries QUIC. What a daemon serves, and how it drains, is its own.

pub mod config;
mod log;
mod signals;
pub mod state;
pub mod udp;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub use log::{LogError, LogFormat};

use config::ConfigError;
use signals::StopSignals;

/// Exit code of bad arguments and of a bad configuration: `EX_USAGE` of `sysexits.h`.
pub const EXIT_USAGE: u8 = 64;

/// A server that runs as a process of its own. Dropping it stops it at once.
pub trait Daemon: Sized {
    /// Name of the program, as the ready line and errors begin.
    const NAME: &'static str;

    /// What [`start`](Self::start) needs.
    type Config;

    /// Why it could not start.
    type StartError: std::error::Error + Send + Sync + 'static;

    /// Reads the configuration file at `path`.
    fn load(path: &Path) -> Result<Self::Config, ConfigError>;

    /// The part of `config` that is about the process.
    fn settings(config: &Self::Config) -> Settings;

    /// Starts, and returns when it is ready. Dropping the future undoes the start.
    fn start(config: Self::Config) -> impl Future<Output = Result<Self, Self::StartError>>;

    /// Where it listens.
    fn local_addr(&self) -> SocketAddr;

    /// Refuses new work, waits at most `grace` for what is in flight, and stops.
    fn shutdown(self, grace: Duration) -> impl Future<Output = ()>;
}

/// How the process itself behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// How long the requests in flight may take to finish after a signal.
    pub drain: Duration,
}

/// Why a daemon ended early.
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
    Start(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to write the ready line")]
    Ready(#[source] io::Error),
}

/// Runs a daemon with the configuration at `config_path` until SIGTERM or SIGINT, and then drains it.
///
/// Prints one line on stdout when it is ready, `NAME listening on ADDRESS`; its log, and an error with
/// all its causes, go to stderr. A signal during the start ends it, and a second signal ends the drain at
/// once. Gives 0 after either, [`EXIT_USAGE`] for a bad configuration, and 1 for anything else.
#[must_use]
pub fn run<D: Daemon>(config_path: &Path) -> ExitCode {
    let Err(error) = try_run::<D>(config_path) else {
        return ExitCode::SUCCESS;
    };
    // Nothing is left to tell if stderr is closed.
    let _ = writeln!(io::stderr(), "{}: {}", D::NAME, chain(&error));
    match error {
        RunError::Config(_) => ExitCode::from(EXIT_USAGE),
        RunError::Log(_)
        | RunError::Executor(_)
        | RunError::Signals(_)
        | RunError::Start(_)
        | RunError::Ready(_) => ExitCode::FAILURE,
    }
}

fn try_run<D: Daemon>(config_path: &Path) -> Result<(), RunError> {
    let config = D::load(config_path)?;
    let settings = D::settings(&config);
    log::start(&settings.log, settings.log_format)?;
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(RunError::Executor)?;
    let ended = executor.block_on(serve::<D>(config, settings.drain));
    // A module that is still being loaded cannot be stopped, and nobody waits for it any more.
    executor.shutdown_background();
    ended
}

async fn serve<D: Daemon>(config: D::Config, drain: Duration) -> Result<(), RunError> {
    // Before the start, so that a signal during it is not lost.
    let mut signals = StopSignals::watch().map_err(RunError::Signals)?;
    let daemon = tokio::select! {
        daemon = D::start(config) => daemon.map_err(|error| RunError::Start(Box::new(error)))?,
        () = signals.next() => return Ok(()),
    };
    let line = format!("{} listening on {}\n", D::NAME, daemon.local_addr());
    let mut stdout = io::stdout();
    stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(RunError::Ready)?;
    signals.next().await;
    tokio::select! {
        () = daemon.shutdown(drain) => tracing::info!("stopped"),
        () = signals.next() => tracing::warn!("stopped at once by a second signal"),
    }
    Ok(())
}

/// The arguments of this process, or how it ends: with 0 after help or version, with [`EXIT_USAGE`]
/// after arguments that are wrong, either of them printed.
pub fn arguments<A: clap::Parser>() -> Result<A, ExitCode> {
    A::try_parse().map_err(|error| {
        // Help and version are errors to clap too, but not to the caller.
        let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
        error.print().map_or(ExitCode::FAILURE, |()| code.into())
    })
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
