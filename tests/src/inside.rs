//! Runs a test once more in a process of its own, in surroundings that it cannot make for itself.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Holds the folder that the inner run works in; only an inner run has it.
const FOLDER: &str = "TIDEGATE_TEST_FOLDER";

/// The folder to work in, in an inner run.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// A command that runs the test `name` (with its module) on `folder`. `prelude` is shell code that goes before,
/// in name spaces where a mount is allowed and seen by nobody else.
#[must_use]
pub fn command(name: &str, folder: &Path, prelude: &str) -> Command {
    let own = std::env::current_exe().expect("a test knows its program");
    let mut command = if prelude.is_empty() {
        Command::new(own)
    } else {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-ec"]);
        command
            .arg(format!("{prelude}\nexec \"$0\" \"$@\""))
            .arg(own);
        command
    };
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder);
    command
}

/// Runs the test `name` in an inner run to its end, which must be a good one.
#[track_caller]
pub fn run(name: &str, folder: &Path, prelude: &str) {
    let output = command(name, folder, prelude)
        .output()
        .expect("a test starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let is_good = output.status.success() && text.contains("1 passed");
    assert!(is_good, "{text}{}", String::from_utf8_lossy(&output.stderr));
}
