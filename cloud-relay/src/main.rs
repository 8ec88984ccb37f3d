//! `tidegate-relay --config relay.toml`: serves inference requests of agents over QUIC.

use std::io::Write as _;
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

/// Bad usage, as `sysexits.h` numbers it.
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Help and version are errors to clap too, but not to the caller.
        Err(error) => {
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| code.into());
        }
    };
    match tidegate_cloud_relay::run(&args.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = error.exit_code();
            let error = anyhow::Error::new(error);
            let _ = writeln!(std::io::stderr(), "tidegate-relay: {error:#}");
            code.into()
        }
    }
}
