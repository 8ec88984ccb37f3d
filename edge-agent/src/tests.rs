//! A whole agent in this process, with a real module, over real sockets.

mod bursting;
mod client;
mod dispatching;
mod power;
mod serving;
mod starting;

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::{Agent, Config, StartError, start};

/// A running agent of one slot with the model `power`, and the folder of its files.
struct Running {
    agent: Agent,
    folder: TempDir,
}

/// Starts an agent with `more` lines of configuration.
async fn running(more: &str) -> Running {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("power.wasm"), power::module("power")).unwrap();
    let config = config(folder.path(), &format!("modules = ['power.wasm']\n{more}"));
    let agent = start(config).await.unwrap();
    Running { agent, folder }
}

fn config(folder: &Path, text: &str) -> Config {
    // Where trust is not what is tested.
    let trust = match text.contains("trust") {
        true => "",
        false => "trust.allow-unsigned = true\n",
    };
    let text = format!("listen = '127.0.0.1:0'\nslots = 1\nstate-dir = 'state'\n{trust}{text}");
    // The program of these tests is no agent that could vet graphs.
    Config {
        vetting: None,
        tract_guest: None,
        ..Config::parse(&text, &folder.join("agent.toml")).unwrap()
    }
}

async fn start_error(folder: &Path, text: &str) -> String {
    let Err(error) = start(config(folder, text)).await else {
        panic!("the agent started")
    };
    chain(&error)
}

fn chain(error: &StartError) -> String {
    std::iter::successors(Some(error as &dyn std::error::Error), |error| {
        error.source()
    })
    .map(ToString::to_string)
    .collect::<Vec<_>>()
    .join(": ")
}

impl Running {
    /// Waits until `busy` jobs run and `queued` wait.
    async fn loaded(&self, busy: usize, queued: usize) {
        let load = || self.agent.service.slots.load();
        until(|| (load().busy, load().queued) == (busy, queued)).await;
    }
}

/// Waits until `holds`, which another task or thread will make true.
async fn until(holds: impl Fn() -> bool) {
    let polling = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), polling)
        .await
        .expect("what is waited for happens within a minute");
}
