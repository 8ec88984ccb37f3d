//! What a policy achieved, as a table for a person and `report.json` for a program.
//!
//! All policies replay the same arrivals, so their rows compare one to one. The oracle's row is the
//! same policy with a perfect forecast: the bound that the regret columns measure against.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::load::{Outcome, Record};

/// `report.json`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Where it ran.
    pub(super) machine: Machine,
    /// Name of the trace.
    pub(super) trace: String,
    /// Seed of the arrivals.
    pub(super) seed: u64,
    /// Length of the run, in seconds.
    pub(super) duration_s: f64,
    /// Service time of one request alone on this machine, in milliseconds.
    pub(super) service_ms: f64,
    /// Time that a relay takes to be scheduled before its process starts, in milliseconds.
    pub(super) relay_delay_ms: f64,
    /// An answer counts when it comes within this time, in milliseconds.
    pub(super) slo_ms: f64,
    /// One row a policy.
    pub(super) policies: Vec<Row>,
}

/// The machine that a report was made on.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    os: &'static str,
    arch: &'static str,
    cpu: String,
    cores: usize,
}

impl Machine {
    /// Asks the operating system; unknown parts are left empty.
    pub(super) fn this() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        Self {
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            cpu: model.map_or_else(String::new, |name| {
                name.trim_start_matches([' ', '\t', ':']).to_owned()
            }),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What one policy achieved.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// `local-only`, `reactive`, `predictive` or `oracle`.
    pub(super) name: &'static str,
    /// Requests sent.
    pub(super) requests: usize,
    /// Requests answered with outputs.
    pub(super) answered: usize,
    /// Requests turned away with 503 or 504.
    pub(super) refused: usize,
    /// Requests that got neither.
    pub(super) lost: usize,
    /// Share of all requests answered within the SLO.
    pub(super) slo_attainment: f64,
    /// Median latency of the answered, in milliseconds.
    pub(super) p50_ms: f64,
    /// 99th percentile of the same.
    pub(super) p99_ms: f64,
    /// 99.9th percentile of the same.
    pub(super) p999_ms: f64,
    /// Share of the answered that ran on relays.
    pub(super) burst_share: f64,
    /// Seconds of relay process life, start-up and drain included, summed over relays.
    pub(super) relay_seconds: f64,
    /// Most relays at once.
    pub(super) relays_max: usize,
    /// Changes between running all locally and bursting.
    pub(super) mode_changes: u64,
}

/// What relays cost a policy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RelayUse {
    /// Process life summed over relays.
    pub(super) relay_seconds: f64,
    /// Most at once.
    pub(super) relays_max: usize,
}

impl Row {
    /// Sums up the records of one policy.
    pub(super) fn new(
        name: &'static str,
        records: &[Record],
        slo: Duration,
        relays: RelayUse,
        mode_changes: u64,
    ) -> Self {
        let count = |outcome| {
            records
                .iter()
                .filter(|record| record.outcome == outcome)
                .count()
        };
        let (local, remote) = (count(Outcome::Local), count(Outcome::Relay));
        let answered = local + remote;
        let latencies = latencies(records);
        let within = latencies.iter().filter(|latency| **latency <= slo).count();
        Self {
            name,
            requests: records.len(),
            answered,
            refused: count(Outcome::Refused),
            lost: count(Outcome::Lost),
            slo_attainment: share(within, records.len()),
            p50_ms: percentile_ms(&latencies, 0.5),
            p99_ms: percentile_ms(&latencies, 0.99),
            p999_ms: percentile_ms(&latencies, 0.999),
            burst_share: share(remote, answered),
            relay_seconds: relays.relay_seconds,
            relays_max: relays.relays_max,
            mode_changes,
        }
    }
}

/// Latencies of the answered requests, ascending.
pub(super) fn latencies(records: &[Record]) -> Vec<Duration> {
    let answered = |record: &&Record| matches!(record.outcome, Outcome::Local | Outcome::Relay);
    let mut latencies: Vec<_> = records.iter().filter(answered).map(|r| r.latency).collect();
    latencies.sort_unstable();
    latencies
}

/// The nearest-rank percentile of ascending latencies, in milliseconds; 0 when there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank within the slice, far below 2^52"
)]
pub(super) fn percentile_ms(ascending: &[Duration], quantile: f64) -> f64 {
    let rank = (ascending.len() as f64 * quantile).ceil() as usize;
    ascending
        .get(rank.saturating_sub(1))
        .map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of requests are far below 2^52"
)]
fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// The closing table.
pub(super) fn table(report: &Report) -> String {
    let mut text = format!(
        "{:<11} {:>8} {:>8} {:>7} {:>5} {:>8} {:>8} {:>8} {:>7} {:>8} {:>6} {:>5} {:>16}\n",
        "policy",
        "requests",
        "answered",
        "refused",
        "lost",
        "in SLO",
        "p50 ms",
        "p99 ms",
        "burst",
        "relay-s",
        "relays",
        "modes",
        "regret"
    );
    let oracle = report.policies.iter().find(|row| row.name == "oracle");
    for row in &report.policies {
        let regret = oracle.map_or_else(String::new, |best| {
            format!(
                "{:+.1} pt {:+.0} s",
                (best.slo_attainment - row.slo_attainment) * 100.0,
                row.relay_seconds - best.relay_seconds
            )
        });
        writeln!(
            text,
            "{:<11} {:>8} {:>8} {:>7} {:>5} {:>7.1}% {:>8.1} {:>8.1} {:>6.1}% {:>8.1} {:>6} {:>5} {:>16}",
            row.name, row.requests, row.answered, row.refused, row.lost, row.slo_attainment * 100.0,
            row.p50_ms, row.p99_ms, row.burst_share * 100.0, row.relay_seconds, row.relays_max,
            row.mode_changes, regret
        )
        .expect("writing to a string succeeds");
    }
    text.push_str(
        "regret: points of SLO attainment below, and relay-seconds above, a perfect forecast\n",
    );
    text.push_str(&verdict(&report.policies));
    text
}

/// Says which of reactive and predictive costs less, and whether their attainment is equal.
fn verdict(rows: &[Row]) -> String {
    let row = |name| rows.iter().find(|row| row.name == name);
    let (Some(reactive), Some(predictive)) = (row("reactive"), row("predictive")) else {
        return String::new();
    };
    let points = (predictive.slo_attainment - reactive.slo_attainment) * 100.0;
    let seconds = predictive.relay_seconds - reactive.relay_seconds;
    format!(
        "predictive against reactive: {points:+.1} points of SLO attainment, {seconds:+.1} relay-seconds{}\n",
        if seconds > 0.0 {
            " (it costs more)"
        } else {
            ""
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_counted_once_and_only_answers_in_time_attain() {
        let record = |ms, outcome| Record {
            arrival: Duration::ZERO,
            latency: Duration::from_millis(ms),
            outcome,
        };
        let records = [
            record(10, Outcome::Local),
            record(20, Outcome::Relay),
            record(500, Outcome::Local),
            record(1, Outcome::Refused),
            record(1, Outcome::Lost),
        ];
        let row = Row::new(
            "reactive",
            &records,
            Duration::from_millis(100),
            RelayUse::default(),
            2,
        );
        assert_eq!(
            (row.requests, row.answered, row.refused, row.lost),
            (5, 3, 1, 1)
        );
        assert_eq!(row.slo_attainment, 0.4);
        assert_eq!(row.burst_share, 1.0 / 3.0);
        assert_eq!((row.p50_ms, row.p99_ms), (20.0, 500.0));
    }

    #[test]
    fn nothing_answered_is_nothing_attained() {
        let row = Row::new("local-only", &[], Duration::ZERO, RelayUse::default(), 0);
        assert_eq!((row.slo_attainment, row.p99_ms), (0.0, 0.0));
    }
}
