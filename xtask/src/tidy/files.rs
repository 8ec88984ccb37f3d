//! Rules on source files: documentation, length, names, and work left undone.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// A longer file is hard to keep in mind; it wants to be two. Tests do not count: they are lists.
const LINES_MAX: usize = 400;

/// Files that may be longer, with the reason.
const LONG_FILES: [(&str, &str); 0] = [];

/// Longest first line of a file's documentation, which lists show.
const TITLE_CHARS_MAX: usize = 100;

/// Names that say where code was put, not what it is.
const EMPTY_NAMES: [&str; 9] = [
    "mod", "utils", "util", "common", "helpers", "helper", "manager", "misc", "shared",
];

/// Marks of unfinished work. Split, so that this file has none.
const MARKS: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
];

/// Folders without sources of ours.
const SKIPPED: [&str; 4] = ["target", ".git", "demo-report", "node_modules"];

struct Source {
    /// Relative to the workspace, with `/`.
    path: String,
    text: String,
}

/// Every file outside of tests opens with its purpose, in a first line of at most 100 characters.
pub(super) fn module_docs(workspace: &Workspace) -> Result<Vec<String>> {
    Ok(sources(workspace)?
        .into_iter()
        .filter(|source| !is_test(&source.path))
        .filter_map(|source| {
            Some(format!(
                "{} {}",
                source.path,
                module_doc_fault(&source.text)?
            ))
        })
        .collect())
}

fn module_doc_fault(text: &str) -> Option<&'static str> {
    let title = text.lines().next().unwrap_or_default();
    match title.strip_prefix("//! ") {
        None => Some("does not open with //!"),
        Some(words) if words.chars().count() > TITLE_CHARS_MAX => {
            Some("opens with a line of more than 100 characters")
        }
        Some(_) => None,
    }
}

/// No file has more than 400 lines besides its tests, unless listed here with a reason.
pub(super) fn lengths(workspace: &Workspace) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for Source { path, text } in sources(workspace)? {
        let lines = text
            .lines()
            .take_while(|line| *line != "#[cfg(test)]")
            .count();
        let is_listed = LONG_FILES.iter().any(|(listed, _)| *listed == path);
        if lines > LINES_MAX && !is_listed && !is_test(&path) {
            found.push(format!("{path} has {lines} lines, more than {LINES_MAX}"));
        }
    }
    Ok(found)
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.starts_with("tests/") || path.ends_with("/tests.rs")
}

/// No file or folder of sources has a name that says nothing, `mod.rs` included.
pub(super) fn names(workspace: &Workspace) -> Result<Vec<String>> {
    let is_empty = |path: &str| {
        path.trim_end_matches(".rs")
            .split('/')
            .any(|name| EMPTY_NAMES.contains(&name))
    };
    let sources = sources(workspace)?.into_iter();
    Ok(sources
        .filter(|source| is_empty(&source.path))
        .map(|source| format!("{} needs a telling name", source.path))
        .collect())
}

/// No marks of unfinished work.
pub(super) fn left_overs(workspace: &Workspace) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for Source { path, text } in sources(workspace)? {
        for (index, line) in text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.into_iter().any(|word| MARKS.contains(&word)) {
                found.push(format!("{path}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    Ok(found)
}

/// Every Rust file of the checkout, the guests' included, in order of path.
fn sources(workspace: &Workspace) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    collect(workspace.root(), &mut paths)?;
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let path = path
            .strip_prefix(workspace.root())?
            .to_string_lossy()
            .replace('\\', "/");
        Ok(Source { path, text })
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                collect(&path, paths)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_a_short_title() {
        assert_eq!(module_doc_fault("//! Opens the gate.\n"), None);
        assert_eq!(
            module_doc_fault("use std::fmt;\n"),
            Some("does not open with //!")
        );
        assert_eq!(module_doc_fault(""), Some("does not open with //!"));
        assert!(module_doc_fault(&format!("//! {}", "a".repeat(101))).is_some());
    }
}
