//! A folder of files, used as a daemon uses it and treated as disks and kernels treat it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic and print, also outside its test functions"
)]

mod faults;
mod keeping;
mod killed;
mod sharing;

use std::path::Path;

/// Everything in a folder, also what does not count as its files, in order. The lock is always there.
fn everything(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".lock")
        .collect();
    names.sort_unstable();
    names
}
