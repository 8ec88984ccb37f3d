//! What a run amounted to: one row of the demo's report.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One policy's row. Durations in milliseconds, percentiles over answered requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Requests that arrived.
    pub requests: u64,
    /// Requests that were answered, late or not.
    pub answered: u64,
    /// Requests that were refused, at once or when their deadline passed in a queue.
    pub refused: u64,
    /// Requests that neither were answered nor refused: always 0 unless something is broken.
    pub lost: u64,
    /// Part of all requests that were answered within the SLO; 1 without requests.
    pub slo_attainment: f64,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// 99.9th percentile.
    pub p999_ms: f64,
    /// Part of the answers that came from a relay.
    pub burst_share: f64,
    /// Sum over relays of the time from their start to their end.
    pub relay_seconds: f64,
    /// Most relays at a time, those that start and drain included.
    pub relays_max: u64,
    /// Changes of mode.
    pub mode_changes: u64,
}

/// Counts outcomes until the run ends.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    latencies: Vec<Duration>,
    from_relays: u64,
    refused: u64,
    arrived: u64,
}

impl Tally {
    /// A request arrived.
    pub fn arrived(&mut self) {
        self.arrived += 1;
    }

    /// A request was answered by this device.
    pub fn answered_here(&mut self, latency: Duration) {
        self.latencies.push(latency);
    }

    /// A request was answered by a relay.
    pub fn answered_by_relay(&mut self, latency: Duration) {
        self.latencies.push(latency);
        self.from_relays += 1;
    }

    /// A request was refused.
    pub fn refused(&mut self) {
        self.refused += 1;
    }

    /// The row, without what concerns relays and modes.
    #[must_use]
    pub fn report(mut self, slo: Duration) -> Report {
        self.latencies.sort_unstable();
        let answered = self.latencies.len() as u64;
        let in_time = self.latencies.partition_point(|latency| *latency <= slo);
        let ratio = |part: f64, whole: u64, none: f64| {
            if whole == 0 {
                none
            } else {
                part / whole as f64
            }
        };
        Report {
            requests: self.arrived,
            answered,
            refused: self.refused,
            lost: self.arrived.saturating_sub(answered + self.refused),
            slo_attainment: ratio(in_time as f64, self.arrived, 1.0),
            p50_ms: self.percentile_ms(0.5),
            p99_ms: self.percentile_ms(0.99),
            p999_ms: self.percentile_ms(0.999),
            burst_share: ratio(self.from_relays as f64, answered, 0.0),
            ..Report::default()
        }
    }

    /// Nearest rank; 0 without answers.
    fn percentile_ms(&self, quantile: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most the number of answers"
        )]
        let rank = (quantile * self.latencies.len() as f64).ceil() as usize;
        self.latencies
            .get(rank.saturating_sub(1))
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}
