//! A quantile that is right as often as it says, whatever the load does.
//!
//! Adaptive conformal inference (Gibbs and Candès, 2021): the residuals of the last ticks, in
//! sorted order, give the quantile; its level moves a little after each miss or cover, so that the
//! long-run coverage is the nominal one even while the load drifts. Residuals are divided by the
//! square root of the forecast, the scale of counting noise, so that those of a quiet time serve a
//! busy one.

/// Residuals kept: 32 s of ticks, 4 beyond the 0.9 quantile even if one in three is independent.
const RESIDUALS: usize = 128;
/// Residuals below which counting noise alone sets the quantile.
const RESIDUALS_MIN: usize = 24;
/// Step of the level after each tick.
const STEP: f64 = 0.01;

/// Ratio of the logistic to the normal quantile.
const LOGISTIC: f64 = 1.72;

/// Calibrates an upper bound of forecasts.
#[derive(Clone, Debug)]
pub(super) struct Conformal {
    quantile: f64,
    /// The level in use, about `quantile`.
    level: f64,
    /// Standard deviation of the windowed mean of a Poisson process at rate 1.
    noise: f64,
    ring: Vec<f64>,
    next: usize,
    sorted: Vec<f64>,
}

impl Conformal {
    /// Calibrated at `quantile` for means over `window_s` seconds.
    pub(super) fn new(quantile: f64, window_s: f64) -> Self {
        let quantile = if quantile.is_finite() {
            quantile.clamp(0.5, 0.999)
        } else {
            0.9
        };
        Self {
            quantile,
            level: quantile,
            noise: window_s.max(1e-3).sqrt().recip(),
            ring: Vec::with_capacity(RESIDUALS),
            next: 0,
            sorted: Vec::with_capacity(RESIDUALS),
        }
    }

    /// Takes what was forecast for now, and what is seen now.
    pub(super) fn learn(&mut self, forecast: f64, seen: f64) {
        let covered = seen <= self.upper(forecast);
        let missed = f64::from(u8::from(!covered));
        self.level = (self.level + STEP * (missed - (1.0 - self.quantile))).clamp(0.5, 0.999);

        let residual = (seen - forecast) / unit(forecast);
        if self.ring.len() < RESIDUALS {
            self.ring.push(residual);
        } else {
            let oldest = std::mem::replace(&mut self.ring[self.next], residual);
            let at = self.sorted.partition_point(|value| *value < oldest);
            self.sorted.remove(at);
        }
        self.next = (self.next + 1) % RESIDUALS;
        let at = self.sorted.partition_point(|value| *value < residual);
        self.sorted.insert(at, residual);
    }

    /// The quantile of what a forecast may turn out to be; not below the forecast.
    pub(super) fn upper(&self, forecast: f64) -> f64 {
        forecast + self.padding() * unit(forecast)
    }

    /// The same quantile of the rate behind the counts: what is left of the padding when counting
    /// noise, which a queue's utilisation bound pays for already, is taken out.
    pub(super) fn upper_intensity(&self, forecast: f64) -> f64 {
        let noise = self.counting_padding();
        let padding = self.padding();
        forecast + (padding * padding - noise * noise).max(0.0).sqrt() * unit(forecast)
    }

    /// What to add to a forecast, in units; not negative.
    fn padding(&self) -> f64 {
        let len = self.sorted.len();
        if len < RESIDUALS_MIN {
            return self.counting_padding();
        }
        #[expect(clippy::cast_possible_truncation, reason = "at most RESIDUALS")]
        let rank = (self.level * len as f64).ceil() as usize;
        self.sorted[rank.clamp(1, len) - 1].max(0.0)
    }

    /// The padding if arrivals were a Poisson process at the forecast rate. The logistic curve
    /// stands in for the normal one: within 5 % from 0.5 to 0.95.
    fn counting_padding(&self) -> f64 {
        (self.quantile / (1.0 - self.quantile)).ln() / LOGISTIC * self.noise
    }
}

/// The scale of counting noise at a rate, bounded below so that an idle time teaches little.
fn unit(forecast: f64) -> f64 {
    forecast.max(1.0).sqrt()
}
