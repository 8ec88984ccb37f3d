//! `cargo xtask ci`: what must hold before a change is taken.
//!
//! Cheap checks come first, tests last. Every step runs the build that the tests use (one profile, no
//! release build), so that a dependency is compiled once.

mod deny;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{cargo, run as run_command};
use crate::workspace::Workspace;
use crate::{test, tidy};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder with reference models and the advisory database: tests that need them run too, and
    /// every model is taken from its file to an agent's answer
    /// [default: the environment's TIDEGATE_DATA].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let data = arguments
        .data
        .clone()
        .or_else(|| std::env::var_os("TIDEGATE_DATA").map(PathBuf::from));
    let data = match data {
        Some(folder) => Some(
            folder
                .canonicalize()
                .with_context(|| format!("there is no data folder {}", folder.display()))?,
        ),
        None => None,
    };
    both(workspace, &["fmt", "--check"], |_| {})?;
    tidy::run(workspace)?;
    let clippy = [
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-Dwarnings",
    ];
    both(workspace, &clippy, |_| {})?;
    both(
        workspace,
        &[
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ],
        |command| {
            // The documentation is for those who work on the project: links to private items resolve in it.
            command.env(
                "RUSTDOCFLAGS",
                "-Dwarnings -Arustdoc::private-intra-doc-links",
            );
        },
    )?;
    deny::run(workspace, data.as_deref())?;
    test::run_all(workspace, data.as_deref())
}

/// Runs Cargo in the host's workspace, then in the guests'.
fn both(workspace: &Workspace, arguments: &[&str], prepare: impl Fn(&mut Command)) -> Result<()> {
    let mut host = cargo(workspace.root());
    let mut guests = cargo(&workspace.modules());
    guests.env("CARGO_TARGET_DIR", workspace.guests_target());
    for command in [&mut host, &mut guests] {
        command.args(arguments);
        prepare(command);
        run_command(command)?;
    }
    Ok(())
}
