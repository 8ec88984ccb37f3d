//! One real agent with every module that was pulled, which trusts only the author's key.

use std::net::SocketAddr;

use anyhow::{Result, anyhow};
use serde_json::Value;

use super::journey::{Author, Step};
use super::outcome::Outcome;
use super::server::{Ended, Server};

/// Deadline of a request, in milliseconds: the largest models take seconds in a dev build.
const SLO_MS: u64 = 60_000;

/// Starts an agent with every model that passed so far, and says of each how long it took to load.
///
/// An agent does not start with a module that it cannot load. The model that its last words name has failed
/// then, and another agent starts without it. `None` if no model is left.
pub(super) fn serve(author: &Author, outcomes: &mut [Outcome]) -> Result<Option<Server>> {
    loop {
        let names: Vec<_> = left(outcomes)
            .map(|outcome| outcome.model.clone())
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        match start(author, &names)? {
            Ok(agent) => {
                note_loads(&agent, outcomes);
                return Ok(Some(agent));
            }
            Err(ended) => note_failure(author, &ended, outcomes),
        }
    }
}

fn left(outcomes: &mut [Outcome]) -> impl Iterator<Item = &mut Outcome> {
    outcomes.iter_mut().filter(|outcome| !outcome.has_failed())
}

fn start(author: &Author, names: &[String]) -> Result<Result<Server, Ended>> {
    // Nothing that another agent or command compiled may help.
    let state = author.folder().join("agent-state");
    if state.exists() {
        std::fs::remove_dir_all(&state)?;
    }
    let paths = names
        .iter()
        .map(|name| quoted(&author.pulled(name).to_string_lossy()));
    let modules: Vec<_> = paths.collect();
    let config = format!(
        "modules = [{}]\nlisten = \"127.0.0.1:0\"\nstate-dir = {}\nslots = 1\nslo-ms = {SLO_MS}\n\
         log-format = \"json\"\n\n[[trust.rules]]\nnames = [\"*\"]\nkeys = [{}]\n",
        modules.join(", "),
        quoted(&state.to_string_lossy()),
        quoted(&author.folder().join("author.pub").to_string_lossy()),
    );
    let path = author.folder().join("agent.toml");
    std::fs::write(&path, config)?;
    let mut command = author.tidegate();
    command.arg("agent").arg("--config").arg(path);
    Server::start(&mut command, &author.folder().join("agent.log"), |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        let is_ready = event["message"] == "ready";
        is_ready.then(|| event["address"].as_str()?.parse::<SocketAddr>().ok())?
    })
}

/// A text as JSON and TOML write it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The agent loads one module after the other, and says so of each.
fn note_loads(agent: &Server, outcomes: &mut [Outcome]) {
    let mut before = std::time::Duration::ZERO;
    for (since, line) in &agent.lines {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        if event["message"] != "model loaded" {
            continue;
        }
        let loaded = left(outcomes).find(|outcome| event["model"] == *outcome.model);
        if let Some(outcome) = loaded {
            outcome.load = Some(since.saturating_sub(before));
            outcome.take(Step::Load, Ok(()));
        }
        before = *since;
    }
    for outcome in left(outcomes).filter(|outcome| outcome.load.is_none()) {
        outcome.take(Step::Load, Err(anyhow!("the agent is ready without it")));
    }
}

/// Of the model that the last words name, or else of all.
fn note_failure(author: &Author, ended: &Ended, outcomes: &mut [Outcome]) {
    let reason = ended.reason();
    let guilty = left(outcomes)
        .find(|outcome| reason.contains(&*author.pulled(&outcome.model).to_string_lossy()));
    match guilty {
        Some(outcome) => {
            outcome.take(Step::Load, Err(anyhow!(reason)));
        }
        None => {
            for outcome in left(outcomes) {
                outcome.take(Step::Load, Err(anyhow!(reason.clone())));
            }
        }
    }
}
