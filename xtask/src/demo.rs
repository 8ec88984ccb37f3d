//! `cargo xtask demo`: from a fresh clone to the demo's report.

use std::process::Command;

use anyhow::Result;

use crate::modules::{self, Toolchain};
use crate::process::{cargo, run as run_command};
use crate::workspace::{Profile, Workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to `tidegate demo`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let guests = modules::build(workspace, Toolchain::Auto)?;
    let mut build = cargo(workspace.root());
    build.args(["build", "--locked", "--package", "tidegate"]);
    run_command(build.args(Profile::Release.cargo_flags()))?;
    modules::pack(workspace, Profile::Release, &guests)?;

    let mut demo = Command::new(workspace.binary(Profile::Release, "tidegate"));
    run_command(demo.arg("demo").args(&arguments.rest))
}
