//! The arrivals that an oracle knows: one number of seconds a line, after the first request.
//!
//! Empty lines and lines that start with `#` are skipped. Times may not go back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_control::Time;
use tidegate_daemon::config::read_bounded;

/// Longest arrivals file that is read: a million arrivals of 16 digits.
pub const ARRIVALS_BYTES_MAX: u64 = 16 << 20;

/// Latest arrival: a year, far beyond any replay, and well inside what a duration holds.
const SECONDS_MAX: f64 = 366.0 * 86_400.0;

/// Why an arrivals file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalsError {
    /// The file cannot be read, or is longer than [`ARRIVALS_BYTES_MAX`].
    #[error("cannot read {}", path.display())]
    Read {
        /// The arrivals file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not a number of seconds from 0, or is earlier than the line before.
    #[error("{}: line {line}: expected seconds, none earlier than the line before", path.display())]
    Line {
        /// The arrivals file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

/// Reads the arrivals at `path`.
pub(super) fn load(path: &Path) -> Result<Vec<Time>, ArrivalsError> {
    let text = read_bounded(path, ARRIVALS_BYTES_MAX).map_err(|source| ArrivalsError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|line| ArrivalsError::Line {
        path: path.to_owned(),
        line,
    })
}

/// The arrivals in `text`, or the number of the first line that is wrong.
fn parse(text: &str) -> Result<Vec<Time>, usize> {
    let mut arrivals = Vec::new();
    let mut latest = 0.0;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let seconds: f64 = line.parse().map_err(|_| index + 1)?;
        if !(latest..=SECONDS_MAX).contains(&seconds) {
            return Err(index + 1);
        }
        latest = seconds;
        arrivals.push(Time(Duration::from_secs_f64(seconds)));
    }
    Ok(arrivals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_seconds_in_order() {
        let check = |text: &str, expected: Result<&[f64], usize>| {
            let time = |seconds: &f64| Time(Duration::from_secs_f64(*seconds));
            let expected = expected.map(|seconds| seconds.iter().map(time).collect::<Vec<_>>());
            assert_eq!(parse(text), expected, "{text:?}");
        };
        check("", Ok(&[]));
        check(
            "0\n# later\n\n 0.5 \r\n0.5\n12e1\n",
            Ok(&[0.0, 0.5, 0.5, 120.0]),
        );
        check("0\n-1", Err(2));
        check("2\n1", Err(2));
        check("NaN", Err(1));
        check("inf", Err(1));
        check("1e300", Err(1));
        check("0\n\nsoon", Err(3));
    }
}
