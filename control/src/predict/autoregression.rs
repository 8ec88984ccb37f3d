//! An autoregression fitted online, on differences.
//!
//! The model is direct: it regresses the change over `horizon` ticks on what was known before it
//! (two differences of windowed means and the distance from the long mean), by recursive least
//! squares with forgetting. Iterating a one-step model instead would compound its error, and may
//! diverge. Its coefficients begin at zero, which is the last value.

use super::{Forecast, History, WINDOW_TICKS};

/// Coefficients.
const ORDER: usize = 3;
/// Per tick, what is kept of the past: an effective memory of 400 ticks, 100 s.
const FORGETTING: f64 = 0.9975;
/// Initial uncertainty of the coefficients, small enough that a few ticks do not fit noise.
const UNCERTAINTY: f64 = 0.1;
/// Uncertainty at which the fit has degenerated (its inputs carry no information) and restarts.
const UNCERTAINTY_MAX: f64 = 1e3;
/// Look-back of the long mean: 10 s.
const LONG_TICKS: usize = 40;
const LONG_SAMPLES: usize = LONG_TICKS / WINDOW_TICKS;

/// Autoregression by recursive least squares.
#[derive(Clone, Copy, Debug)]
pub struct Autoregression {
    coefficients: [f64; ORDER],
    covariance: [[f64; ORDER]; ORDER],
}

impl Default for Autoregression {
    fn default() -> Self {
        let mut covariance = [[0.0; ORDER]; ORDER];
        (0..ORDER).for_each(|i| covariance[i][i] = UNCERTAINTY);
        Self {
            coefficients: [0.0; ORDER],
            covariance,
        }
    }
}

impl Forecast for Autoregression {
    fn step(&mut self, history: &History, horizon: usize) -> f64 {
        let (now, scale) = features(history, 0);
        if history.len() > horizon + LONG_TICKS {
            let (before, scale_before) = features(history, horizon);
            self.learn(
                &before,
                (history.mean(0) - history.mean(horizon)) / scale_before,
            );
        }
        history.mean(0) + scale * dot(&self.coefficients, &now)
    }
}

impl Autoregression {
    fn learn(&mut self, features: &[f64; ORDER], change: f64) {
        let spread: [f64; ORDER] = std::array::from_fn(|i| dot(&self.covariance[i], features));
        let gain_scale = FORGETTING + dot(&spread, features);
        let error = change - dot(&self.coefficients, features);
        for i in 0..ORDER {
            let gain = spread[i] / gain_scale;
            self.coefficients[i] += gain * error;
            for (j, other) in spread.iter().enumerate() {
                self.covariance[i][j] = (self.covariance[i][j] - gain * other) / FORGETTING;
            }
        }
        let trace: f64 = (0..ORDER).map(|i| self.covariance[i][i]).sum();
        let healthy = self.coefficients.iter().all(|value| value.abs() < 1e3);
        // Also false for NaN.
        if !(trace > 0.0 && trace < UNCERTAINTY_MAX && healthy) {
            let coefficients = if healthy {
                self.coefficients
            } else {
                [0.0; ORDER]
            };
            *self = Self {
                coefficients,
                ..Self::default()
            };
        }
    }
}

/// The features as they were `ago` ticks ago, and the scale that makes them dimensionless.
fn features(history: &History, ago: usize) -> ([f64; ORDER], f64) {
    let mean = |back: usize| history.mean(ago + back);
    let long = (0..LONG_SAMPLES)
        .map(|k| mean(k * WINDOW_TICKS))
        .sum::<f64>()
        / LONG_SAMPLES as f64;
    let (newest, middle, oldest) = (mean(0), mean(WINDOW_TICKS), mean(3 * WINDOW_TICKS));
    let scale = long.max(1.0);
    let features = [newest - middle, middle - oldest, long - newest].map(|value| value / scale);
    (features, scale)
}

fn dot(left: &[f64; ORDER], right: &[f64; ORDER]) -> f64 {
    left.iter().zip(right).map(|(a, b)| a * b).sum()
}
