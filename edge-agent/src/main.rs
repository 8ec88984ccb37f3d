//! The daemon `tidegate-agent`: its command line, and nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Serves inference on this device, and sends the excess to relays.
#[derive(Debug, Parser)]
#[command(name = "tidegate-agent", version)]
struct Args {
    /// The configuration, in TOML; agent.example.toml shows every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    if let Some(ended) = tidegate_edge_agent::vet_graph_if_asked() {
        return ended;
    }
    match tidegate_daemon::arguments::<Args>() {
        Ok(args) => tidegate_edge_agent::run(&args.config),
        Err(ended) => ended,
    }
}
