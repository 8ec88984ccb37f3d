//! `tidegate agent`: the daemon on a device, by the same call as `tidegate-agent`.

use std::path::PathBuf;
use std::process::ExitCode;

/// Serve models on this device, and burst to relays.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration of the agent.
    #[arg(long, value_name = "FILE.toml")]
    config: PathBuf,
}

/// Runs the daemon until it is told to stop.
pub(crate) fn run(args: &Args) -> ExitCode {
    tidegate_edge_agent::run(&args.config)
}
