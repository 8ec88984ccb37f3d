//! The `tidegate` command: everything a person does by hand, and the two daemons.
//!
//! Translates the process (arguments, standard streams, exit code) into one function call for each
//! command. Exit codes: 0 for success, 1 for a failure, 64 for bad usage or configuration.

mod agent;
mod check;
mod child;
mod demo;
mod dev_certs;
mod engine;
mod http;
mod infer;
mod inspect;
mod keygen;
mod keys;
mod metrics_page;
mod pack;
mod publish;
mod pull;
mod registry;
mod relay;
mod run;
mod samples;
mod scale;
mod sign;
mod span;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tidegate_daemon::EXIT_USAGE;

/// Serve models at the edge; burst to the cloud before the load hurts.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Pack(pack::Args),
    Inspect(inspect::Args),
    Check(check::Args),
    Keygen(keygen::Args),
    Sign(sign::Args),
    Verify(verify::Args),
    Publish(publish::Args),
    Pull(pull::Args),
    Infer(infer::Args),
    Run(run::Args),
    Agent(agent::Args),
    Relay(relay::Args),
    Scale(scale::Args),
    DevCerts(dev_certs::Args),
}

fn main() -> ExitCode {
    if let Some(ended) = tidegate_runtime::vet::vet_graph_if_asked() {
        return ended;
    }
    let cli: Cli = match tidegate_daemon::arguments() {
        Ok(cli) => cli,
        Err(ended) => return ended,
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tidegate: {error:#}");
            exit_code(&error)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => return wait_for(demo::run(args))?,
        Command::Agent(args) => return Ok(agent::run(&args)),
        Command::Relay(args) => return Ok(relay::run(&args)?),
        Command::Run(args) => return Ok(run::run(args)?),
        Command::Check(args) => return Ok(check::run(&args)?),
        Command::Pack(args) => pack::run(&args)?,
        Command::Inspect(args) => inspect::run(&args)?,
        Command::Keygen(args) => keygen::run(&args)?,
        Command::Sign(args) => sign::run(&args)?,
        Command::Verify(args) => verify::run(&args)?,
        Command::DevCerts(args) => dev_certs::run(&args)?,
        Command::Publish(args) => wait_for(publish::run(args))??,
        Command::Pull(args) => wait_for(pull::run(args))??,
        Command::Infer(args) => wait_for(infer::run(args))??,
        Command::Scale(args) => wait_for(scale::run(args))??,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on an executor of its own.
fn wait_for<T>(command: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the executor")?;
    Ok(runtime.block_on(command))
}

/// 64 where other arguments or another configuration would help, 1 otherwise.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    let is_usage = [
        error.downcast_ref().map(infer::InferError::is_usage),
        error.downcast_ref().map(pack::PackError::is_usage),
        error.downcast_ref().map(publish::PublishError::is_usage),
        error.downcast_ref().map(pull::PullError::is_usage),
        error.downcast_ref().map(run::RunError::is_usage),
        error.downcast_ref().map(scale::ScaleError::is_usage),
        error
            .downcast_ref()
            .map(verify::VerifyModuleError::is_usage),
    ];
    if is_usage.contains(&Some(true)) {
        EXIT_USAGE.into()
    } else {
        ExitCode::FAILURE
    }
}
