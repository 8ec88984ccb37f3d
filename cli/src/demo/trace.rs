//! Arrival times for the demo: a recorded trace, compressed in time and scaled to this machine.
//!
//! A trace keeps its shape and loses its units: its length becomes the run's duration, and its rate
//! is scaled until a device that serves everything alone would miss a given share of it. Thinning
//! and repeating are drawn from a seed, so the same seed gives the same arrivals.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Arrivals of the Azure LLM inference trace (conversation), in milliseconds; see `data/README.md`.
const AZURE_CONVERSATION: &str = include_str!("../../data/azure-llm-conv.csv");

/// Most bytes of a trace file: ten times the largest public one that we replay.
const TRACE_BYTES_MAX: u64 = 64 << 20;

/// Most arrivals of one run: ten minutes at 1,000 requests per second.
const ARRIVALS_MAX: usize = 600_000;

/// The window over which the rate is taken when the overload is sized.
const BIN: Duration = Duration::from_millis(500);

/// A recorded demand: how many requests came when, in any unit of time.
#[derive(Debug)]
pub(super) struct Trace {
    /// The name that the report gives.
    pub(super) name: String,
    /// (seconds after the first, requests), in time order.
    counts: Vec<(f64, f64)>,
    /// Seconds that one row covers: 0 where each row is one arrival.
    row_seconds: f64,
}

impl Trace {
    /// The trace that ships with the command.
    pub(super) fn azure() -> anyhow::Result<Self> {
        Self::parse("azure-llm-conv", AZURE_CONVERSATION)
    }

    /// Reads a CSV file: arrival times in the first column, or times and counts in the first two.
    ///
    /// A time is a number (seconds, or milliseconds under the heading `milliseconds`) or a date and
    /// time; a second column counts when its heading is `count` or `value`.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let read = || {
            let len = std::fs::metadata(path)?.len();
            ensure!(
                len <= TRACE_BYTES_MAX,
                "{len} bytes, above the limit of {TRACE_BYTES_MAX}"
            );
            let name = path
                .file_stem()
                .map_or(Cow::Borrowed("trace"), OsStr::to_string_lossy);
            Self::parse(&name, &std::fs::read_to_string(path)?)
        };
        read().with_context(|| format!("trace {}", path.display()))
    }

    fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines();
        let heading: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let unit = if heading[0] == "milliseconds" {
            1e-3
        } else {
            1.0
        };
        let counted = matches!(heading.get(1), Some(&"count" | &"value"));
        let mut counts: Vec<(f64, f64)> = Vec::new();
        for (index, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            let row = || -> anyhow::Result<(f64, f64)> {
                let mut fields = line.split(',');
                let time = seconds(fields.next().unwrap_or_default())? * unit;
                let count: f64 = match fields.next() {
                    Some(field) if counted => field.trim().parse()?,
                    _ => 1.0,
                };
                ensure!(count.is_finite() && count >= 0.0, "the count is {count}");
                Ok((time, count))
            };
            let (time, count) = row().with_context(|| format!("line {}: {line:?}", index + 2))?;
            match counts.last_mut() {
                Some(last) if counted && last.0 == time => last.1 += count,
                _ => counts.push((time, count)),
            }
        }
        counts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = counts.iter().map(|row| row.1).sum();
        ensure!(
            counts.len() >= 10 && total >= 10.0,
            "fewer than 10 arrivals"
        );
        let first = counts[0].0;
        counts.iter_mut().for_each(|row| row.0 -= first);
        let last = counts[counts.len() - 1].0;
        ensure!(last > 0.0, "all arrivals have the same time");
        #[expect(
            clippy::cast_precision_loss,
            reason = "a trace has far fewer than 2^52 rows"
        )]
        let row_seconds = if counted {
            last / (counts.len() - 1) as f64
        } else {
            0.0
        };
        Ok(Self {
            name: name.to_owned(),
            counts,
            row_seconds,
        })
    }

    /// Arrival times within `duration`, scaled so that serving `capacity_rps` alone would leave
    /// `excess` of the requests over: a share in (0, 1) of all.
    pub(super) fn arrivals(
        &self,
        duration: Duration,
        capacity_rps: f64,
        excess: f64,
        seed: u64,
    ) -> anyhow::Result<Vec<Duration>> {
        let span = self.counts[self.counts.len() - 1].0 + self.row_seconds;
        let compress = duration.as_secs_f64() / span;
        let per_count = scale(&self.profile(compress, duration), capacity_rps, excess);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut arrivals = Vec::new();
        for (time, count) in &self.counts {
            let expected = count * per_count;
            let drawn = expected.floor() + f64::from(u8::from(random.f64() < expected.fract()));
            for copy in 0..whole(drawn) {
                // The first copy of a single arrival keeps its time; the others spread over the bin.
                let spread = if self.row_seconds > 0.0 {
                    self.row_seconds * compress * random.f64()
                } else if copy > 0 {
                    BIN.as_secs_f64() * (random.f64() - 0.5)
                } else {
                    0.0
                };
                arrivals.push(Duration::from_secs_f64((time * compress + spread).max(0.0)));
                if arrivals.len() > ARRIVALS_MAX {
                    bail!("more than {ARRIVALS_MAX} arrivals: shorten --duration");
                }
            }
        }
        ensure!(
            !arrivals.is_empty(),
            "the scaled trace has no arrivals: lengthen --duration"
        );
        arrivals.sort_unstable();
        let first = arrivals[0];
        arrivals.iter_mut().for_each(|arrival| *arrival -= first);
        Ok(arrivals)
    }

    /// Requests per second in each [`BIN`] of the compressed trace, before scaling.
    fn profile(&self, compress: f64, duration: Duration) -> Vec<f64> {
        let bins = whole(duration.as_secs_f64() / BIN.as_secs_f64()).max(1);
        let mut rates = vec![0.0; bins];
        for (time, count) in &self.counts {
            let bin = whole(time * compress / BIN.as_secs_f64()).min(bins - 1);
            rates[bin] += count / BIN.as_secs_f64();
        }
        rates
    }
}

/// The factor by which `rates` must grow for `excess` of their sum to lie above `capacity`.
///
/// Found by bisection: the share above a level grows with the factor.
fn scale(rates: &[f64], capacity: f64, excess: f64) -> f64 {
    let total: f64 = rates.iter().sum();
    let over = |factor: f64| {
        rates
            .iter()
            .map(|rate| (rate * factor - capacity).max(0.0))
            .sum::<f64>()
            / (total * factor)
    };
    let peak = rates.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let (mut low, mut high) = (0.0, capacity / peak);
    while over(high) < excess {
        high *= 2.0;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if over(middle) < excess {
            low = middle
        } else {
            high = middle
        }
    }
    high
}

fn seconds(field: &str) -> anyhow::Result<f64> {
    let field = field.trim();
    let number = match field.parse::<f64>() {
        Ok(number) => number,
        Err(_) => {
            let time: jiff::civil::DateTime = field
                .parse()
                .with_context(|| format!("{field:?} is neither a number nor a time"))?;
            time.duration_since(jiff::civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0))
                .as_secs_f64()
        }
    };
    ensure!(number.is_finite(), "the time {field:?} is not finite");
    Ok(number)
}

/// The whole part of a number that is known to be small and not negative.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "negative and huge values saturate, and the caller bounds the result"
)]
fn whole(number: f64) -> usize {
    number as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(30);

    #[test]
    fn the_shipped_trace_is_whole_and_overloads_as_asked() {
        let trace = Trace::azure().unwrap();
        assert_eq!(trace.counts.len(), 19_366);
        let arrivals = trace.arrivals(RUN, 50.0, 0.15, 1).unwrap();
        assert!(*arrivals.last().unwrap() <= RUN);
        let mut bins = vec![0.0; 60];
        for arrival in &arrivals {
            bins[whole(arrival.as_secs_f64() * 2.0).min(59)] += 1.0;
        }
        let over: f64 = bins.iter().map(|count: &f64| (count - 25.0).max(0.0)).sum();
        let share = over / bins.iter().sum::<f64>();
        assert!(
            (0.12..0.22).contains(&share),
            "share above capacity {share}"
        );
    }

    #[test]
    fn a_seed_gives_the_same_arrivals_and_another_does_not() {
        let draw = |seed| {
            Trace::azure()
                .unwrap()
                .arrivals(RUN, 50.0, 0.15, seed)
                .unwrap()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn counts_and_dates_are_read() {
        let text = |rows: usize| {
            (0..rows).fold("timestamp,value\n".to_owned(), |text, row| {
                text + &format!("2014-04-10 00:{:02}:00,{}.0\n", row, row + 1)
            })
        };
        let trace = Trace::parse("counts", &text(20)).unwrap();
        assert_eq!(trace.counts[19], (1140.0, 20.0));
        assert_eq!(trace.row_seconds, 60.0);
        assert!(trace.arrivals(RUN, 100.0, 0.1, 1).unwrap().len() > 100);
    }

    #[test]
    fn what_is_not_a_trace_is_refused_with_its_line() {
        let check = |text: &str, says: &str| {
            let error = format!("{:#}", Trace::parse("bad", text).unwrap_err());
            assert!(error.contains(says), "{error}");
        };
        check("", "fewer than 10");
        check("time\n1\nsoon\n", "line 3");
        check("time,count\n1,-4\n", "the count is -4");
        check("time,count\n1,NaN\n", "the count is NaN");
        check(&format!("time\n{}", "5\n".repeat(20)), "same time");
        check("time\ninf\n", "not finite");
    }
}
