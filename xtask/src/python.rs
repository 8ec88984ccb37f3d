//! The Python clients of the tests, in an environment of their own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{apt_install, run};
use crate::workspace::Workspace;

/// What the tests import. The versions are those that the tests were written against.
const REQUIREMENTS: [&str; 2] = ["tritonclient[http]==2.73.0", "numpy<3"];

/// Makes `target/venv` with everything in it, unless it is there and whole.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let venv = workspace.target().join("venv");
    let python = venv.join("bin/python");
    let stamp = venv.join("tidegate-requirements");
    let wanted = REQUIREMENTS.join("\n");
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
        return Ok(());
    }
    make(&venv)
        .or_else(|_| apt_install(&["python3", "python3-venv"]).and_then(|()| make(&venv)))
        .context("the tests need Python 3 with its venv module")?;
    let mut pip = Command::new(&python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]);
    run(pip.args(REQUIREMENTS)).context("the tests need these Python packages")?;
    std::fs::write(&stamp, wanted)?;
    Ok(())
}

fn make(venv: &Path) -> Result<()> {
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(venv))
}
