//! A real OCI registry, Debian's `docker-registry`, on a free port of loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::process::{apt_install, exists};

use super::server::Server;

/// A running registry, empty at first.
#[derive(Debug)]
pub(super) struct Registry(Server);

impl Registry {
    /// Starts one that keeps its data in `folder`.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        if !exists("docker-registry") {
            apt_install(&["docker-registry"])?;
        }
        let config = folder.join("registry.yml");
        // JSON is YAML too, and quotes the path.
        let text = serde_json::json!({
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": folder.join("registry")}},
            "http": {"addr": "127.0.0.1:0", "secret": "of-this-run"},
        });
        std::fs::write(&config, text.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        Server::start(&mut command, &folder.join("registry.log"), listening)?
            .map(Self)
            .map_err(|ended| anyhow!("docker-registry does not start: {}", ended.reason()))
    }

    /// `HOST:PORT/models/NAME` of a model.
    pub(super) fn repository(&self, name: &str) -> String {
        format!("{}/models/{}", self.0.address(), name.to_lowercase())
    }
}

fn listening(line: &str) -> Option<SocketAddr> {
    let (_, after) = line.split_once("listening on ")?;
    after.split([',', '"']).next()?.parse().ok()
}
