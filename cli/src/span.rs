//! Spans of time on the command line: `250ms`, `35s`, `2m`, or a bare number in the option's own unit.

use std::time::Duration;

use jiff::SignedDuration;

/// Longest span that an option takes: a day. None of them means anything beyond it.
const SPAN_MAX: Duration = Duration::from_secs(86_400);

/// A span whose bare number counts seconds.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    span(text, Duration::from_secs)
}

/// A span whose bare number counts milliseconds.
pub(crate) fn milliseconds(text: &str) -> Result<Duration, String> {
    span(text, Duration::from_millis)
}

fn span(text: &str, bare: fn(u64) -> Duration) -> Result<Duration, String> {
    let span = match text.parse() {
        Ok(number) => bare(number),
        Err(_) => text
            .parse::<SignedDuration>()
            .ok()
            .and_then(|span| Duration::try_from(span).ok())
            .ok_or("expected a span such as 250ms, 35s or 2m")?,
    };
    if span > SPAN_MAX {
        return Err("a span is at most a day".into());
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_or_none() {
        assert_eq!(seconds("35"), Ok(Duration::from_secs(35)));
        assert_eq!(seconds("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(milliseconds("250"), Ok(Duration::from_millis(250)));
        assert_eq!(milliseconds("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for bad in [
            "",
            "-1",
            "-1s",
            "soon",
            "1e9",
            "99999999999999999999",
            "86401",
            "25h",
            "1 potato",
        ] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
