//! `cargo xtask models`: real models, all the way from an ONNX file to an answer over HTTP.
//!
//! Every model of a data folder is packed, signed, published to a real registry, pulled by digest, verified
//! and checked, as an author and a stranger would with the command line. One agent that trusts the author's
//! key then serves them all, and a client of the Open Inference Protocol asks it for every sample. A model that
//! fails a step is out of the later ones; the others go on. Everything that was written stays in
//! `target/models`, logs included, until the next run.

mod agent;
mod client;
mod journey;
mod outcome;
mod registry;
mod report;
mod server;
mod source;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::process::{cargo, run as run_command};
use crate::python;
use crate::workspace::{Profile, Workspace};

use journey::{Author, Step};
use outcome::Outcome;
use registry::Registry;
use report::Report;

/// Words for a build whose times say little.
const DEV: &str = "the dev profile (ours hardly optimised, dependencies at level 2)";

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder whose models/NAME have model.onnx and samples: in_K_I.npy and out_K_J.npy, input I and output J of
    /// sample K.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Build and use the release build of `tidegate`.
    #[arg(long)]
    release: bool,
    /// Use this `tidegate` and build none.
    #[arg(long, value_name = "FILE", conflicts_with = "release")]
    tidegate: Option<PathBuf>,
    /// Write the results here as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here as a page in Markdown.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let (tidegate, build) = binary(workspace, arguments)?;
    let report = report(workspace, &tidegate, build, &arguments.data)?;
    if let Some(path) = &arguments.json {
        write(path, &report.json())?;
    }
    if let Some(path) = &arguments.table {
        write(path, &report.page())?;
    }
    judge(&report)
}

/// The same with the dev build that is there, as the tests leave it.
pub(crate) fn run_built(workspace: &Workspace, data: &Path) -> Result<()> {
    let tidegate = workspace.binary(Profile::Dev, "tidegate");
    judge(&report(workspace, &tidegate, DEV.to_owned(), data)?)
}

fn report(workspace: &Workspace, tidegate: &Path, build: String, data: &Path) -> Result<Report> {
    python::install(workspace)?;
    let outcomes = journeys(workspace, tidegate, data)?;
    Ok(Report { build, outcomes })
}

/// Shows the table, and fails if a model did.
fn judge(report: &Report) -> Result<()> {
    say(&format!("\n{}", report.table()));
    let failures = report.failures();
    ensure!(
        failures.is_empty(),
        "{} of {} models failed: {}",
        failures.len(),
        report.outcomes.len(),
        failures.join(", ")
    );
    Ok(())
}

/// The program under test, and the words for its build.
fn binary(workspace: &Workspace, arguments: &Arguments) -> Result<(PathBuf, String)> {
    if let Some(path) = &arguments.tidegate {
        let found = path.canonicalize();
        let found = found.with_context(|| format!("there is no {}", path.display()))?;
        return Ok((
            found,
            "a binary that was given, of unknown profile".to_owned(),
        ));
    }
    let (profile, words) = match arguments.release {
        true => (Profile::Release, "the release profile"),
        false => (Profile::Dev, DEV),
    };
    let mut build = cargo(workspace.root());
    build.args(["build", "--package", "tidegate"]);
    run_command(build.args(profile.cargo_flags()))?;
    Ok((workspace.binary(profile, "tidegate"), words.to_owned()))
}

/// Takes every model through every step. Fails only where nothing can be said of any model.
fn journeys(workspace: &Workspace, tidegate: &Path, data: &Path) -> Result<Vec<Outcome>> {
    let sources = source::list(&data.join("models"))?;
    let folder = workspace.target().join("models");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let registry = Registry::start(&folder)?;
    let author = Author::new(tidegate, &folder)?;

    let mut outcomes: Vec<_> = sources.iter().map(Outcome::new).collect();
    for (source, outcome) in sources.iter().zip(&mut outcomes) {
        for step in Step::OF_AUTHOR {
            if !outcome.take(step, author.take(step, source, &registry)) {
                say(&outcome.line());
                break;
            }
        }
        if !outcome.has_failed() {
            eprintln!("{}: {}", source.name, outcome.passed());
        }
    }
    let agent = agent::serve(&author, &mut outcomes)?;
    for outcome in outcomes
        .iter()
        .filter(|outcome| outcome.failed_at(Step::Load))
    {
        say(&outcome.line());
    }
    if let Some(agent) = agent {
        client::ask(workspace, agent.address(), &sources, &mut outcomes)?;
    }
    Ok(outcomes)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[expect(
    clippy::print_stdout,
    reason = "the models' lines are this task's output"
)]
fn say(text: &str) {
    println!("{text}");
}
