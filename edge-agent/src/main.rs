//! The daemon `tidegate-agent`: its command line, and nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Serves inference on this device, and sends the excess to relays.
#[derive(Debug, Parser)]
#[command(name = "tidegate-agent", version)]
struct Args {
    /// The configuration file (TOML). Every key but `modules` has a default.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    tidegate_edge_agent::run(&Args::parse().config)
}
