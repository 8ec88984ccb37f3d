//! Licences, sources, banned crates and known vulnerabilities of all dependencies.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::process::{cargo, run as run_command, run_within};
use crate::workspace::Workspace;

const DENY_VERSION: &str = "0.20.2";

const ADVISORIES: &str = "https://github.com/RustSec/advisory-db";

/// The folder that cargo-deny looks for the database of [`ADVISORIES`] in: name and hash of the address.
const ADVISORIES_FOLDER: &str = "advisory-db-3157b0e258782691";

/// Not worth a line: twins of small crates, and licences that only the other workspace has.
const QUIET: [&str; 4] = ["--allow", "duplicate", "--allow", "license-not-encountered"];

/// Enough to learn that a network is there.
const PROBE_LIMIT: Duration = Duration::from_secs(20);

/// Checks both workspaces. `data` may hold a copy of the advisory database; without one it is
/// fetched where the network allows it.
pub(super) fn run(workspace: &Workspace, data: Option<&Path>) -> Result<()> {
    let program = install(workspace)?;
    let root = workspace.root();
    let deny = |folder: &Path, config: &Path, flags: &[&str], checks: &[&str]| {
        let mut deny = Command::new(&program);
        deny.current_dir(folder).args(["--locked"]);
        deny.arg("--config").arg(config);
        deny.args(flags).args(["check", "--hide-inclusion-graph"]);
        run_command(deny.args(QUIET).args(checks))
    };
    let copy = data
        .map(|folder| folder.join("advisory-db"))
        .filter(|copy| copy.is_dir());
    let (config, flags) = match &copy {
        Some(copy) => (config_with_copy(workspace, copy)?, vec!["--offline"]),
        None => (root.join("deny.toml"), Vec::new()),
    };
    let with_advisories = copy.is_some() || is_reachable();
    if !with_advisories {
        eprintln!("the advisory database is not reachable: vulnerabilities are not checked");
    }
    for folder in [root, &workspace.modules()] {
        deny(
            folder,
            &root.join("deny.toml"),
            &[],
            &["bans", "licenses", "sources"],
        )?;
        if with_advisories {
            deny(folder, &config, &flags, &["advisories"])?;
        }
    }
    Ok(())
}

/// Builds cargo-deny under the target folder, unless it is there. Unoptimised: it runs for seconds.
fn install(workspace: &Workspace) -> Result<PathBuf> {
    let tools = workspace.target().join("tools");
    let program = tools.join("bin/cargo-deny");
    if !program.exists() {
        let mut install = cargo(workspace.root());
        install.args([
            "install",
            "cargo-deny",
            "--version",
            DENY_VERSION,
            "--locked",
            "--debug",
        ]);
        install
            .arg("--root")
            .arg(&tools)
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        install.env_remove("CARGO_TARGET_DIR");
        run_command(&mut install).context("cannot install cargo-deny")?;
    }
    Ok(program)
}

fn is_reachable() -> bool {
    let mut probe = Command::new("git");
    probe
        .args(["ls-remote", "--exit-code", ADVISORIES, "HEAD"])
        .env("GIT_TERMINAL_PROMPT", "0");
    run_within(PROBE_LIMIT, &mut probe).is_ok()
}

/// A configuration that reads the database from a copy: cargo-deny wants a checkout under a name of
/// its own, and takes the time of its last fetch from a file in it.
fn config_with_copy(workspace: &Workspace, copy: &Path) -> Result<PathBuf> {
    let folder = workspace.target().join("advisories");
    let checkout = folder.join(ADVISORIES_FOLDER);
    if checkout.exists() {
        std::fs::remove_dir_all(&checkout)?;
    }
    std::fs::create_dir_all(checkout.join(".git"))?;
    std::fs::write(checkout.join(".git/FETCH_HEAD"), "")?;
    for part in ["crates", "rust"] {
        #[cfg(unix)]
        std::os::unix::fs::symlink(copy.join(part), checkout.join(part))?;
    }
    let config = std::fs::read_to_string(workspace.root().join("deny.toml"))?;
    let section = "[advisories]\n";
    ensure!(config.contains(section), "deny.toml has no [advisories]");
    let path = format!("{section}db-path = {:?}\n", folder.display().to_string());
    let file = folder.join("deny.toml");
    std::fs::write(&file, config.replacen(section, &path, 1))?;
    Ok(file)
}
