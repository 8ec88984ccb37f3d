//! Sets up the process's log: to stderr, as text or as one JSON object a line.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The filter does not parse.
    #[error("failed to read the log filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    #[error("failed to install the log")]
    Install(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Installs the log for the whole process, once.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<(), LogError> {
    let builder = fmt()
        .with_env_filter(EnvFilter::builder().parse(filter)?)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => builder
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LogError::Install)
}
