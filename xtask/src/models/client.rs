//! Asks the agent, by a client in Python that is not ours, and takes down what came of each model.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::workspace::Workspace;

use super::journey::Step;
use super::outcome::{Outcome, Speed};
use super::say;
use super::source::Source;

/// Has `tests/clients/models.py` ask for every sample of every model that is served, one model at a time.
///
/// It has limits of its own on every wait and on the number of runs, and prints one line of JSON a model.
pub(super) fn ask(
    workspace: &Workspace,
    agent: SocketAddr,
    sources: &[Source],
    outcomes: &mut [Outcome],
) -> Result<()> {
    let mut python = Command::new(workspace.target().join("venv/bin/python"));
    python.arg(workspace.root().join("tests/clients/models.py"));
    python.arg(agent.to_string());
    for (source, outcome) in sources.iter().zip(&*outcomes) {
        if !outcome.has_failed() {
            let folder = &source.folder;
            python.arg(json!([source.name, folder, source.consts]).to_string());
        }
    }
    let mut child = python
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start Python")?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        let answer: Value =
            serde_json::from_str(&line).with_context(|| format!("the client printed {line:?}"))?;
        let outcome = outcomes
            .iter_mut()
            .find(|outcome| answer["model"] == *outcome.model);
        let outcome = outcome.with_context(|| format!("nobody asked for {line}"))?;
        note(&answer, outcome)?;
        say(&outcome.line());
    }
    let status = child.wait()?;
    for outcome in outcomes.iter_mut().filter(|outcome| !outcome.has_ended()) {
        outcome.take(
            Step::Infer,
            Err(anyhow!("the client ended before it ({status})")),
        );
        say(&outcome.line());
    }
    Ok(())
}

fn note(answer: &Value, outcome: &mut Outcome) -> Result<()> {
    let error = answer["error"].as_str().map(ToOwned::to_owned);
    outcome.relative_max = answer["relative_max"].as_f64();
    match (answer["failed"].as_str(), error) {
        (Some("infer"), Some(error)) => {
            outcome.take(Step::Infer, Err(anyhow!(error)));
        }
        (Some("compare"), Some(error)) => {
            outcome.take(Step::Infer, Ok(()));
            outcome.take(Step::Compare, Err(anyhow!(error)));
        }
        (None, None) => {
            outcome.take(Step::Infer, Ok(()));
            outcome.take(Step::Compare, Ok(()));
            let number = |key: &str| {
                answer[key]
                    .as_f64()
                    .with_context(|| format!("{key} is missing in {answer}"))
            };
            outcome.speed = Some(Speed {
                agent_us_p50: number("agent_us_p50")?,
                onnxruntime_us_p50: number("onnxruntime_us_p50")?,
                runs: answer["runs"].as_u64().context("runs is missing")?,
            });
        }
        _ => bail!("the client printed {answer}"),
    }
    Ok(())
}
