//! The relay as a process: configuration, logs, the ready line, signals.

use std::io::Write as _;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use crate::{Config, ConfigError, LogFormat, StartError, start};

/// Exit code of a configuration that cannot be used, as `sysexits.h` numbers it.
const EXIT_USAGE: u8 = 64;

/// Why a relay stopped, or never ran.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration cannot be used.
    #[error("bad configuration")]
    Config {
        /// Which file, line and key, and why.
        source: ConfigError,
    },
    /// The relay could not start.
    #[error("failed to start the relay")]
    Start {
        /// Why.
        source: Box<StartError>,
    },
    /// The executor or its signal handlers could not start.
    #[error("failed to set up the process")]
    Process {
        /// The system's reason.
        source: std::io::Error,
    },
}

impl RunError {
    /// The process's exit code: 64 for a bad configuration, 1 for anything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => EXIT_USAGE,
            Self::Start { .. } | Self::Process { .. } => 1,
        }
    }
}

/// Runs a relay until SIGTERM or SIGINT, then drains it; a second signal ends the drain at once.
///
/// Writes one line to standard output when it is ready,
/// `tidegate-relay listening on 127.0.0.1:4433`, and its log to standard error.
pub fn run(config_path: &Path) -> Result<(), RunError> {
    let config = Config::load(config_path).map_err(|source| RunError::Config { source })?;
    log_to_stderr(&config);
    let process = |source| RunError::Process { source };
    let executor = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(process)?;
    executor.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(process)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(process)?;
        let drain = config.drain;
        let relay = start(config).await.map_err(|source| RunError::Start {
            source: Box::new(source),
        })?;
        let address = relay.local_addr();
        let mut out = std::io::stdout();
        writeln!(out, "tidegate-relay listening on {address}")
            .and_then(|()| out.flush())
            .map_err(process)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(?drain, "draining");
        tokio::select! {
            () = relay.shutdown(drain) => tracing::info!("stopped"),
            _ = terminate.recv() => tracing::warn!("a second signal cut the drain short"),
            _ = interrupt.recv() => tracing::warn!("a second signal cut the drain short"),
        }
        Ok(())
    })
}

fn log_to_stderr(config: &Config) {
    let filter = tracing_subscriber::EnvFilter::new(&config.log);
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Fails only where the caller has set up a log of its own, which then is the one to use.
    let _ = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}
