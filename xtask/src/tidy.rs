//! `cargo xtask tidy`: the rules that no compiler checks.
//!
//! Each is also a unit test here, so that `cargo test` keeps them.

mod arrows;
mod files;

use anyhow::{Result, ensure};

use crate::workspace::Workspace;

/// A rule: what breaks it, one sentence each.
type Rule = fn(&Workspace) -> Result<Vec<String>>;

const RULES: [(&str, Rule); 6] = [
    ("every file says what it is for", files::module_docs),
    ("files are short", files::lengths),
    ("files have telling names", files::names),
    ("nothing is left to do", files::left_overs),
    ("crates depend downwards only", arrows::internal),
    ("each crate knows only its own field", arrows::external),
];

/// Checks every rule and reports everything that breaks one.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut broken = 0;
    for (name, rule) in RULES {
        for violation in rule(workspace)? {
            broken += 1;
            eprintln!("tidy: {name}: {violation}");
        }
    }
    ensure!(broken == 0, "tidy: {broken} violations");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(rule: Rule) {
        let violations = rule(&Workspace::find().unwrap()).unwrap();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    #[test]
    fn every_file_says_what_it_is_for() {
        check(files::module_docs);
    }

    #[test]
    fn files_are_short() {
        check(files::lengths);
    }

    #[test]
    fn files_have_telling_names() {
        check(files::names);
    }

    #[test]
    fn nothing_is_left_to_do() {
        check(files::left_overs);
    }

    #[test]
    fn crates_depend_downwards_only() {
        check(arrows::internal);
    }

    #[test]
    fn each_crate_knows_only_its_own_field() {
        check(arrows::external);
    }
}
