//! Experts without a fit: last value, EWMA, damped Holt, linear trend.

use super::{Forecast, History};

/// The last second's mean stays.
#[derive(Clone, Copy, Debug)]
pub struct LastValue;

impl Forecast for LastValue {
    fn step(&mut self, history: &History, _horizon: usize) -> f64 {
        history.mean(0)
    }
}

/// An exponentially weighted mean stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ewma {
    level: Option<f64>,
}

/// Weight of a new tick: a time constant of 12 ticks, 3 s.
const EWMA_ALPHA: f64 = 0.08;

impl Forecast for Ewma {
    fn step(&mut self, history: &History, _horizon: usize) -> f64 {
        let seen = history.mean(0);
        let level = self
            .level
            .map_or(seen, |level| level + EWMA_ALPHA * (seen - level));
        *self.level.insert(level)
    }
}

/// A level and a trend that fades (Gardner and McKenzie, 1985).
#[derive(Clone, Copy, Debug, Default)]
pub struct DampedHolt {
    state: Option<(f64, f64)>,
}

const HOLT_ALPHA: f64 = 0.15;
const HOLT_BETA: f64 = 0.04;
/// What is left of the trend after a tick.
const HOLT_PHI: f64 = 0.97;

impl Forecast for DampedHolt {
    fn step(&mut self, history: &History, horizon: usize) -> f64 {
        let seen = history.mean(0);
        let (level, trend) = match self.state {
            None => (seen, 0.0),
            Some((level, trend)) => {
                let expected = level + HOLT_PHI * trend;
                let next = expected + HOLT_ALPHA * (seen - expected);
                (
                    next,
                    HOLT_BETA * (next - level) + (1.0 - HOLT_BETA) * HOLT_PHI * trend,
                )
            }
        };
        self.state = Some((level, trend));
        let ahead = i32::try_from(horizon).unwrap_or(i32::MAX);
        level + trend * HOLT_PHI * (1.0 - HOLT_PHI.powi(ahead)) / (1.0 - HOLT_PHI)
    }
}

/// y = kx + b by least squares over a sliding window, extended to the horizon.
#[derive(Clone, Copy, Debug)]
pub struct LinearTrend;

/// Ticks of the window: 10 s.
const TREND_TICKS: usize = 40;

impl Forecast for LinearTrend {
    fn step(&mut self, history: &History, horizon: usize) -> f64 {
        let count = history.len().min(TREND_TICKS);
        if count < TREND_TICKS / 4 {
            return history.mean(0);
        }
        // With x centred on the window, slope and intercept are independent.
        let centre = (count - 1) as f64 / 2.0;
        let (mut sum, mut products, mut squares) = (0.0, 0.0, 0.0);
        for ago in 0..count {
            let x = centre - ago as f64;
            let y = history.mean(ago);
            sum += y;
            products += x * y;
            squares += x * x;
        }
        sum / count as f64 + products / squares * (centre + horizon as f64)
    }
}
