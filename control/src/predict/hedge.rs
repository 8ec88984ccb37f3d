//! Hedge: weights that fall exponentially with each expert's delayed loss.
//!
//! The loss is the absolute error over the running mean error of all experts, so that one learning
//! rate fits every load. A fixed share of the weight is spread evenly each tick (Herbster and
//! Warmuth, 1998), so that an expert that was poor in one regime can lead in the next.

/// Learning rate.
const RATE: f64 = 0.25;
/// Part of the weight that is spread evenly each tick.
const SHARE: f64 = 0.005;
/// Weight of a new error in the running mean.
const SCALE_ALPHA: f64 = 0.03;
/// One loss counts for no more than this many mean errors.
const LOSS_MAX: f64 = 4.0;

/// Weights over `N` experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hedge<const N: usize> {
    weights: [f64; N],
    error_mean: Option<f64>,
}

impl<const N: usize> Hedge<N> {
    pub(super) fn new() -> Self {
        Self {
            weights: [1.0 / N as f64; N],
            error_mean: None,
        }
    }

    /// Scores the forecasts that were made for what is now `seen`.
    pub(super) fn learn(&mut self, forecasts: &[f64; N], seen: f64) {
        let errors = forecasts.map(|forecast| (forecast - seen).abs());
        let mean = errors.iter().sum::<f64>() / N as f64;
        let scale = self
            .error_mean
            .map_or(mean, |old| old + SCALE_ALPHA * (mean - old));
        self.error_mean = Some(scale);
        if scale <= f64::MIN_POSITIVE {
            return;
        }
        for (weight, error) in self.weights.iter_mut().zip(errors) {
            *weight *= (-RATE * (error / scale).min(LOSS_MAX)).exp();
        }
        let total: f64 = self.weights.iter().sum();
        let even = SHARE / N as f64;
        self.weights = self
            .weights
            .map(|weight| weight / total * (1.0 - SHARE) + even);
    }

    /// The weighted mean of the experts' forecasts.
    pub(super) fn combine(&self, forecasts: &[f64; N]) -> f64 {
        self.weights
            .iter()
            .zip(forecasts)
            .map(|(weight, forecast)| weight * forecast)
            .sum()
    }

    #[cfg(test)]
    pub(super) fn weights(&self) -> [f64; N] {
        self.weights
    }
}
