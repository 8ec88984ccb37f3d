//! The Python clients of the tests, in an environment of their own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{apt_install, run};
use crate::workspace::Workspace;

/// What the tests import. The versions are those that the tests were written against.
const REQUIREMENTS: [&str; 7] = [
    "tritonclient[http]==2.73.0",
    "numpy<3",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "componentize-py==0.25.1",
    "scikit-learn==1.9.1",
    "skl2onnx==1.20.0",
];

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

/// Makes the reference cases of every `tests/references/SUITE.py` in `target/references/SUITE`, unless
/// those of the same script are there.
pub(crate) fn references(workspace: &Workspace) -> Result<()> {
    for entry in std::fs::read_dir(workspace.root().join("tests/references"))? {
        let script = entry?.path();
        let Some(suite) = script.file_stem().filter(|_| has_extension(&script, "py")) else {
            continue;
        };
        let folder = workspace.target().join("references").join(suite);
        let stamp = folder.with_extension("made");
        let wanted = format!(
            "{}\n{}",
            REQUIREMENTS.join("\n"),
            std::fs::read_to_string(&script)?
        );
        if folder.is_dir() && std::fs::read_to_string(&stamp).is_ok_and(|have| have == wanted) {
            continue;
        }
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let mut python = Command::new(workspace.target().join("venv/bin/python"));
        run(python.args(["-W", "ignore"]).args([&script, &folder]))
            .with_context(|| format!("the reference cases of {} are not made", script.display()))?;
        std::fs::write(&stamp, wanted)?;
    }
    Ok(())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn make(venv: &Path) -> Result<()> {
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(venv))
}
