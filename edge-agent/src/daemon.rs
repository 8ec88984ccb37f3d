//! The agent as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tidegate_daemon::config::ConfigError;
use tidegate_daemon::{Daemon, Settings};

use crate::{Agent, Config, StartError};

/// Runs an agent with the configuration at `config_path` until SIGTERM or SIGINT, and then drains it, as
/// [`tidegate_daemon::run`] says.
#[must_use]
pub fn run(config_path: &Path) -> ExitCode {
    tidegate_daemon::run::<Agent>(config_path)
}

impl Daemon for Agent {
    const NAME: &'static str = "tidegate-agent";

    type Config = Config;
    type StartError = StartError;

    fn load(path: &Path) -> Result<Config, ConfigError> {
        Config::load(path)
    }

    fn settings(config: &Config) -> Settings {
        Settings {
            log: config.log.clone(),
            log_format: config.log_format,
            drain: config.drain,
        }
    }

    async fn start(config: Config) -> Result<Self, StartError> {
        crate::start(config).await
    }

    fn local_addr(&self) -> SocketAddr {
        self.local_addr()
    }

    async fn shutdown(self, grace: Duration) {
        // What was cut off is in the log.
        let _ = self.shutdown(grace).await;
    }
}
