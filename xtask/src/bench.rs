//! `cargo xtask bench`: all benchmarks, one after the other.

use anyhow::Result;

use crate::process::{cargo, run as run_command};
use crate::workspace::{Profile, Workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to criterion: a filter, `--quick`, `--save-baseline NAME`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    // The end-to-end bench starts the command that users run.
    let mut build = cargo(workspace.root());
    build.args(["build", "--locked", "--package", "tidegate"]);
    run_command(build.args(Profile::Release.cargo_flags()))?;
    // Only criterion's targets: those of the unit tests do not know its arguments.
    let mut bench = cargo(workspace.root());
    bench
        .args(["bench", "--workspace", "--bench", "*", "--"])
        .args(&arguments.rest);
    run_command(&mut bench)
}
