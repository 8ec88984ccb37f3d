//! `cargo xtask test`: every test there is, and one line that counts them.
//!
//! What the tests need (guests, modules, binaries, Python clients) is made first; if something
//! cannot be had the task fails and says so, since a skipped test looks like a passed one.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::examples;
use crate::models;
use crate::modules::{self, Toolchain};
use crate::process::{apt_install, cargo, exists, run as run_command, run_and_watch};
use crate::python;
use crate::workspace::{Profile, Workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Passed on to `cargo test`: a filter, and after `--` the arguments of the tests.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    prepare(workspace)?;
    run_tests(workspace, None, &arguments.rest)
}

/// Runs every test. With `data`, a folder of reference models, also those that need it, and first takes
/// every model from its file to an agent's answer.
pub(crate) fn run_all(workspace: &Workspace, data: Option<&Path>) -> Result<()> {
    prepare(workspace)?;
    if let Some(data) = data {
        models::run_built(workspace, data)?;
    }
    run_tests(workspace, data, &[])
}

/// Installs and builds everything that the tests use.
fn prepare(workspace: &Workspace) -> Result<()> {
    python::install(workspace)?;
    python::references(workspace)?;
    install_servers()?;
    let guests = modules::build(workspace, Toolchain::Auto)?;
    examples::build(workspace)?;
    // Binaries and tests in one go, so that both take the same build of each dependency.
    let mut build = cargo(workspace.root());
    run_command(build.args(["build", "--workspace", "--bins", "--tests"]))?;
    modules::pack(workspace, Profile::Dev, &guests)?;
    examples::pack(workspace, Profile::Dev)
}

/// Installs the servers of others that the tests run against.
fn install_servers() -> Result<()> {
    for (program, package) in [("docker-registry", "docker-registry"), ("curl", "curl")] {
        if !exists(program) {
            apt_install(&[package])?;
        }
    }
    Ok(())
}

fn run_tests(workspace: &Workspace, data: Option<&Path>, rest: &[String]) -> Result<()> {
    let mut host = cargo(workspace.root());
    let mut guests = cargo(&workspace.modules());
    guests.env("CARGO_TARGET_DIR", workspace.guests_target());
    // The engine's guest is tested as a guest, by the runtime's tests; here it would be built once more.
    let engine = ["--exclude", modules::TRACT_GUEST.0];
    let mut counts = Counts::default();
    let mut succeeded = true;
    for (command, without) in [(&mut host, &[][..]), (&mut guests, &engine[..])] {
        command
            .args(["test", "--workspace", "--no-fail-fast"])
            .args(without)
            .args(rest);
        command.envs(data.map(|folder| ("TIDEGATE_DATA", folder)));
        succeeded &= counts.run(command)?;
    }
    #[expect(
        clippy::print_stdout,
        reason = "the closing line is this task's output"
    )]
    {
        println!("{} passed, {} failed", counts.passed, counts.failed);
    }
    ensure!(
        succeeded && counts.failed == 0,
        "some tests failed or did not run"
    );
    Ok(())
}

/// Sums over the reports of many test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

impl Counts {
    fn run(&mut self, tests: &mut Command) -> Result<bool> {
        run_and_watch(tests, |line| self.add(line))
    }

    /// Adds what a line says, if it is a report: `test result: ok. 12 passed; 0 failed; ...`.
    fn add(&mut self, line: &str) {
        let Some((_, report)) = line.split_once("test result: ") else {
            return;
        };
        let count = |what: &str| {
            let end = report.find(what)?;
            report[..end].split_whitespace().last()?.parse().ok()
        };
        self.passed += count("passed;").unwrap_or(0);
        self.failed += count("failed;").unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reports_are_counted() {
        let mut counts = Counts::default();
        for line in [
            "running 2 tests",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
            "test passed; 100 failed; ... ok",
            "test result: ",
        ] {
            counts.add(line);
        }
        assert_eq!(
            counts,
            Counts {
                passed: 15,
                failed: 2
            }
        );
    }
}
