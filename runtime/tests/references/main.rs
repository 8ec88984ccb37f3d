//! Reference cases, as others computed them, through the runtime.
//!
//! `target/references/SUITE/CASE` holds a model, inputs and the outputs that they must give, made by
//! `tests/references/SUITE.py`. Each case is packed as `tidegate pack` would pack it, loaded, run and
//! compared. What cannot be served must be refused with a reason; nothing may be wrong. The list of what
//! is refused is `docs/onnx-coverage.md`, written anew where `TIDEGATE_WRITE_COVERAGE` is set.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod case;
mod compare;
mod coverage;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tidegate_runtime::{Runtime, RuntimeConfig};

use crate::case::{Case, Outcome};

/// Cases of ONNX's own suite that must pass, of the 1,884 that onnx 1.23 has.
const NODE_PASSES_MIN: usize = 1640;

/// Cases that run at once. Two keep a small machine busy; more would only share it.
const THREADS: usize = 2;

#[test]
fn no_reference_case_is_wrong_and_what_is_refused_is_known() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let suites: Vec<(String, Vec<Case>)> = suites(&root)
        .into_iter()
        .map(|(name, folder)| (name, run(&folder)))
        .collect();
    let wrong: Vec<String> = suites
        .iter()
        .flat_map(|(suite, cases)| cases.iter().map(move |case| (suite, case)))
        .filter_map(|(suite, case)| match &case.outcome {
            Outcome::Wrong(how) => Some(format!("{suite}/{}: {how}", case.name)),
            Outcome::Pass | Outcome::Refused(_) => None,
        })
        .collect();
    let page = coverage::page(&suites);
    let path = root.join("docs/onnx-coverage.md");
    if std::env::var_os("TIDEGATE_WRITE_COVERAGE").is_some() {
        std::fs::write(&path, &page).unwrap();
        let reasons = root.join("target/references/refused.txt");
        std::fs::write(reasons, coverage::reasons(&suites)).unwrap();
    }
    assert!(wrong.is_empty(), "{} are wrong: {wrong:#?}", wrong.len());
    for (suite, cases) in &suites {
        let passes = cases.iter().filter(|case| case.outcome == Outcome::Pass);
        let passes = passes.count();
        println!("{suite}: {passes} of {} pass", cases.len());
        let wanted = if suite == "node" { NODE_PASSES_MIN } else { 1 };
        assert!(passes >= wanted, "{suite}: only {passes} cases pass");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/onnx-coverage.md does not say what is refused: set TIDEGATE_WRITE_COVERAGE=1 and run this test again\n{}",
        coverage::difference(&written, &page)
    );
}

/// The suites that scripts make, each with the folder of its cases.
fn suites(root: &Path) -> Vec<(String, PathBuf)> {
    let mut names: Vec<String> = std::fs::read_dir(root.join("tests/references"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "py"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
        .into_iter()
        .map(|name| {
            let folder = root.join("target/references").join(&name);
            assert!(
                folder.is_dir(),
                "{folder:?} is missing: `cargo xtask test` makes it, or \
                 target/venv/bin/python tests/references/{name}.py target/references/{name}"
            );
            (name, folder)
        })
        .collect()
}

/// Runs every case of a folder, in the order of their names.
fn run(folder: &Path) -> Vec<Case> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    let runtime = Runtime::start(RuntimeConfig::new(THREADS)).unwrap();
    let (next, cases) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let runtime = Arc::clone(&runtime);
            let (next, cases, folders) = (&next, &cases, &folders);
            scope.spawn(move || {
                while let Some(folder) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let case = Case::run(&runtime, folder);
                    cases.lock().unwrap().push(case);
                }
            });
        }
    });
    let mut cases = cases.into_inner().unwrap();
    cases.sort_by(|one: &Case, other| one.name.cmp(&other.name));
    cases
}
