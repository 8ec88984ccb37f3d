//! The page that lists what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::case::{Case, Outcome};

const HEAD: &str = "# What ONNX models are refused

Written by `runtime/tests/references`, which runs every reference case through a packed module and compares each output; no
case gives a wrong value. A refusal names its reason when the module is packed, loaded or run. `cargo xtask test` keeps this page
true; `TIDEGATE_WRITE_COVERAGE=1 cargo test --package tidegate-runtime --test references` writes it anew.

`node` are the backend tests that the `onnx` package generates. An operator in brackets is one of several in its case.
";

/// The page for these suites.
pub(crate) fn page(suites: &[(String, Vec<Case>)]) -> String {
    let mut page = String::from(HEAD);
    for (suite, cases) in suites {
        let passes = cases.iter().filter(|case| case.outcome == Outcome::Pass);
        let passes = passes.count();
        let _ = write!(
            page,
            "\n## {suite}\n\n{passes} of {} cases pass, {} are refused.\n",
            cases.len(),
            cases.len() - passes
        );
        let known: BTreeSet<&str> = cases
            .iter()
            .flat_map(|case| case.operators.iter().map(String::as_str))
            .collect();
        let mut groups: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
        for case in cases {
            if let Outcome::Refused(reason) = &case.outcome {
                let key = (subject(case, &known), class(reason));
                groups.entry(key).or_default().push(&case.name);
            }
        }
        if !groups.is_empty() {
            page.push_str("\n| operator | why | cases |\n|---|---|---|\n");
        }
        for ((operator, why), names) in groups {
            let names: Vec<&str> = names
                .iter()
                .map(|name| name.strip_prefix("test_").unwrap_or(name))
                .collect();
            let _ = writeln!(page, "| {operator} | {why} | {} |", names.join(", "));
        }
    }
    page
}

/// Every refusal with its whole reason, for those who work on it.
pub(crate) fn reasons(suites: &[(String, Vec<Case>)]) -> String {
    let mut text = String::new();
    for (suite, case) in suites
        .iter()
        .flat_map(|(suite, cases)| cases.iter().map(move |case| (suite, case)))
    {
        if let Outcome::Refused(reason) = &case.outcome {
            let _ = writeln!(text, "{suite}/{}\t{reason}", case.name);
        }
    }
    text
}

/// The lines that only one of the pages has.
pub(crate) fn difference(written: &str, page: &str) -> String {
    let only = |mark: char, these: &str, those: &str| {
        let lines = these
            .lines()
            .filter(|line| those.lines().all(|other| other != *line));
        lines
            .map(|line| format!("{mark} {line}\n"))
            .collect::<String>()
    };
    only('-', written, page) + &only('+', page, written)
}

/// The operator that a case is about: its only one, or else the one that its name begins with, in brackets.
fn subject(case: &Case, known: &BTreeSet<&str>) -> String {
    let mut operators = case.operators.iter();
    if let (Some(only), None) = (operators.next(), operators.next()) {
        return only.clone();
    }
    let plain = |text: &str| text.replace('_', "").to_lowercase();
    let name = plain(case.name.strip_prefix("test_").unwrap_or(&case.name));
    let named = known
        .iter()
        .filter(|operator| name.starts_with(&plain(operator)));
    let longest = named.max_by_key(|operator| operator.len());
    longest.map_or_else(
        || "(several)".to_owned(),
        |operator| format!("({operator})"),
    )
}

/// A reason without what differs between cases of one kind.
fn class(reason: &str) -> String {
    const CHARS_MAX: usize = 90;
    let innermost = |text: &str| text.rsplit(": ").next().unwrap_or(text).to_owned();
    if let Some((_, rest)) = reason.split_once("operators [") {
        let names = rest.split_once(']').map_or(rest, |(names, _)| names);
        return format!("{} not implemented", names.replace('"', ""));
    }
    if let Some((_, rest)) = reason.split_once("has element type ") {
        return format!("element type {rest}");
    }
    if let Some((_, rest)) = reason.split_once("element type ") {
        return format!("element type {rest}");
    }
    if reason.contains("is not declared as a tensor") {
        return "an input or output is a sequence or optional".to_owned();
    }
    // Names of nodes and values are those of the case.
    let quoted = |(at, part): (usize, &str)| match at % 2 {
        0 => part.to_owned(),
        _ => "...".to_owned(),
    };
    let text: String = innermost(reason)
        .split('`')
        .enumerate()
        .map(quoted)
        .collect();
    let text: String = text.chars().take(CHARS_MAX).collect();
    text.replace('|', "\\|")
}
