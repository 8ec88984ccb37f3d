//! How much load c slots carry within the SLO at the 99th percentile.
//!
//! The utilisation bound comes from the M/G/c queue in the approximation of Allen and Cunneen: the
//! wait exceeds t with probability `C(c, c rho) exp(-2 c (1 - rho) t / (W (1 + cv^2)))`, C being
//! Erlang's delay formula. The bound is the largest rho for which the 99th percentile of the wait
//! and one mean service time fit the SLO. What the model gets wrong, kappa absorbs.

/// Bounds of the utilisation aimed at. A device that cannot meet the SLO even when idle keeps the
/// lower one, so that it still serves.
const UTILISATION_MIN: f64 = 0.05;
const UTILISATION_MAX: f64 = 0.95;
/// Halvings of the search interval: the result is within 0.001.
const BISECTIONS: usize = 10;
/// Part of requests that may take longer than the SLO.
const LATE: f64 = 0.01;

/// The largest utilisation of `slots` slots at which requests of mean service time `service_s` and
/// squared coefficient of variation `variation` meet `slo_s` at the 99th percentile.
pub(crate) fn utilisation_max(slots: f64, service_s: f64, variation: f64, slo_s: f64) -> f64 {
    let fits = |rho: f64| {
        let wait = (erlang_delay(slots, rho) / LATE).ln().max(0.0) * service_s * (1.0 + variation)
            / (2.0 * slots * (1.0 - rho));
        wait + service_s <= slo_s
    };
    let (mut low, mut high) = (UTILISATION_MIN, UTILISATION_MAX);
    if fits(high) {
        return high;
    }
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if fits(middle) {
            low = middle
        } else {
            high = middle
        }
    }
    low
}

/// Probability that an arrival waits, with Erlang's recursion for the blocking probability.
fn erlang_delay(slots: f64, rho: f64) -> f64 {
    /// Slots that the recursion walks; above, waiting is rarer, so the bound errs to the safe side.
    const SLOTS_WALKED: f64 = 64.0;
    let slots = slots.clamp(1.0, SLOTS_WALKED);
    let offered = slots * rho;
    let mut blocking = 1.0;
    let mut server = 1.0;
    while server <= slots {
        blocking = offered * blocking / (server + offered * blocking);
        server += 1.0;
    }
    blocking / (1.0 - rho * (1.0 - blocking))
}

/// Largest and smallest trust in the model.
const KAPPA_MAX: f64 = 1.0;
const KAPPA_MIN: f64 = 0.3;
/// Trust won per calm tick: back from the least to the most in 35 ticks, 9 s.
const KAPPA_STEP: f64 = 0.02;
/// Trust kept at a breach.
const KAPPA_CUT: f64 = 0.9;

/// What a tick says of the model's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The queue is short.
    Calm,
    /// Requests wait too long although this device was given less than its capacity.
    Breach,
    /// The queue is long because more came than was meant to, or others hold the CPU: no error of
    /// the model is shown either way.
    None,
}

/// Trust in the modelled capacity: additive increase, multiplicative decrease on queue delay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kappa(f64);

impl Default for Kappa {
    fn default() -> Self {
        Self(KAPPA_MAX)
    }
}

impl Kappa {
    pub(crate) fn learn(&mut self, evidence: Evidence) {
        match evidence {
            Evidence::Calm => self.0 = (self.0 + KAPPA_STEP).min(KAPPA_MAX),
            Evidence::Breach => self.0 = (self.0 * KAPPA_CUT).max(KAPPA_MIN),
            Evidence::None => {}
        }
    }

    pub(crate) fn value(self) -> f64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(slots: f64, service_s: f64, variation: f64, slo_s: f64, low: f64, high: f64) {
        let rho = utilisation_max(slots, service_s, variation, slo_s);
        assert!((low..=high).contains(&rho), "{rho}");
    }

    #[test]
    fn utilisation_follows_queueing_theory() {
        // M/M/1 has an exact answer: sojourn p99 = W ln(100) / (1 - rho), so rho = 0.54 at 10 W.
        check(1.0, 0.1, 1.0, 1.0, 0.50, 0.58);
        // Constant service times halve the wait.
        check(1.0, 0.1, 0.0, 1.0, 0.70, 0.78);
        // Pooling: four slots carry more, each.
        check(4.0, 0.1, 1.0, 1.0, 0.80, 0.90);
        check(1.0, 0.001, 1.0, 1.0, 0.95, 0.95);
        check(1.0, 2.0, 1.0, 1.0, 0.05, 0.051);
        check(1.0, f64::MAX, f64::MAX, 1.0, 0.05, 0.051);
    }

    #[test]
    fn kappa_stays_between_its_bounds() {
        let mut kappa = Kappa::default();
        (0..100).for_each(|_| kappa.learn(Evidence::Breach));
        assert!((kappa.value() - KAPPA_MIN).abs() < 1e-9);
        (0..35).for_each(|_| kappa.learn(Evidence::Calm));
        assert!((kappa.value() - KAPPA_MAX).abs() < 1e-9);
    }
}
