//! Sets up the process's log: to stderr, as text or as one JSON object a line.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line, for machines. The fields of an event stand beside its message.
    Json,
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter does not parse.
    #[error("failed to read the log filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process has a log already.
    #[error("failed to install the log")]
    Install(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What `filter` means, where each part of it parses.
pub(crate) fn filter(filter: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(filter)
}

/// Installs the log for the whole process, once.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<(), LogError> {
    let builder = fmt()
        .with_env_filter(self::filter(filter)?)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(LogError::Install)
}
