//! The daemon `tidegate-relay`: its command line, and nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Serves inference requests of tidegate agents over QUIC.
#[derive(Debug, Parser)]
#[command(name = "tidegate-relay", version)]
struct Args {
    /// The configuration, in TOML; relay.example.toml shows every key.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    if let Some(ended) = tidegate_cloud_relay::vet_graph_if_asked() {
        return ended;
    }
    match tidegate_daemon::arguments::<Args>() {
        Ok(args) => tidegate_cloud_relay::run(&args.config),
        Err(ended) => ended,
    }
}
