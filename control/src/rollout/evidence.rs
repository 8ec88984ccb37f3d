//! How strongly bad outcomes speak against the new version: an e-process on whose they are.
//!
//! Requests are given to the versions at random, the new one getting the share s. If it is no worse,
//! then a bad outcome is the new version's with probability at most s, whatever made the requests of
//! that moment bad: this is the conditional comparison of two rates (Przyborowski, Wilenski 1940).
//! Against it stands that the new version is bad r times as often, so that a bad outcome is its own
//! with probability s r / (s r + 1 - s). The evidence is the likelihood ratio, averaged over the ratios
//! [`RATIOS`].
//!
//! It is a non-negative supermartingale that starts at 1 as long as the new version is no worse, so the
//! probability that it *ever* reaches 1 / a is at most a (Ville 1939; Robbins 1970; for two samples
//! Turner, Ly, Grünwald 2021): exact at any count, and under continuous looking. A version that has
//! its share of the bad outcomes makes it fall below 1.
//!
//! The places of one stratum are not independent: one of its requests, exactly, is in the share. Of m
//! bad outcomes in a stratum the expected ratio is then (1 + m x) / (1 + x)^m with x = s (r - 1) in the
//! canary, and x = s (1 / r - 1) > -1 in the watch, where the old version has the share. Neither is above 1 by
//! Bernoulli's inequality. Within a stratum that need not hold, so the evidence is looked at between
//! strata only. Outcomes that come later than those after them shift the looks by the requests in
//! flight, not the ratio.

/// How many times as often the new version may be bad; from what matters to what is plain.
const RATIOS: [f64; 8] = [1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 200.0];

/// One e-process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// For each ratio, what a bad outcome of the new version adds to its logarithm.
    new: [f64; RATIOS.len()],
    /// The same of the old version.
    old: [f64; RATIOS.len()],
    logs: [f64; RATIOS.len()],
}

impl Evidence {
    /// No evidence yet, where `share` of the requests are the new version's.
    pub(super) fn new(share: f64) -> Self {
        let scale = |ratio: f64| share * ratio + 1.0 - share;
        Self {
            new: RATIOS.map(|ratio| (ratio / scale(ratio)).ln()),
            old: RATIOS.map(|ratio| -scale(ratio).ln()),
            logs: [0.0; RATIOS.len()],
        }
    }

    pub(super) fn new_was_bad(&mut self) {
        add(&mut self.logs, &self.new);
    }

    pub(super) fn old_was_bad(&mut self) {
        add(&mut self.logs, &self.old);
    }

    /// The evidence; 1 at the start, and never below 0.
    pub(super) fn value(&self) -> f64 {
        let sum: f64 = self.logs.iter().map(|log| log.exp()).sum();
        sum / RATIOS.len() as f64
    }
}

fn add(logs: &mut [f64], terms: &[f64]) {
    for (log, term) in logs.iter_mut().zip(terms) {
        *log += term;
    }
}
