//! Sums that forget: each sample's weight falls by e every [`TAU_S`].
//!
//! A ratio of two such sums is a mean that follows a change within a few seconds, whatever the rate
//! of samples, and that stays where it was when samples stop.

use crate::Time;

/// Time constant of forgetting.
pub(crate) const TAU_S: f64 = 5.0;

/// Weight below which the past no longer counts, far above the smallest normal number.
const WEIGHT_MIN: f64 = 1e-100;

/// Decayed count, sum and sum of squares of samples.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moments {
    weight: f64,
    sum: f64,
    squares: f64,
    at: Time,
}

impl Moments {
    /// Adds a sample, which must be finite and not negative.
    pub(crate) fn add(&mut self, now: Time, value: f64) {
        let keep = (-now.seconds_since(self.at) / TAU_S).exp();
        self.at = self.at.max(now);
        if self.weight * keep < WEIGHT_MIN {
            (self.weight, self.sum, self.squares) = (1.0, value, value * value);
            return;
        }
        self.weight = self.weight * keep + 1.0;
        self.sum = self.sum * keep + value;
        self.squares = self.squares * keep + value * value;
    }

    /// The weighted mean, once there is a sample.
    pub(crate) fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }

    /// Variance over the squared mean; 0 before there are two samples' worth.
    pub(crate) fn squared_variation(&self) -> f64 {
        match self.mean() {
            Some(mean) if mean > 0.0 => {
                ((self.squares / self.weight - mean * mean) / (mean * mean)).max(0.0)
            }
            Some(_) | None => 0.0,
        }
    }
}

/// Decayed count of events, read as a rate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    count: f64,
    at: Time,
}

impl Rate {
    /// Counts one event.
    pub(crate) fn count(&mut self, now: Time) {
        self.count = self.decayed(now) + 1.0;
        self.at = self.at.max(now);
    }

    /// Events per second, weighted towards the last [`TAU_S`].
    pub(crate) fn per_second(&self, now: Time) -> f64 {
        self.decayed(now) / TAU_S
    }

    fn decayed(&self, now: Time) -> f64 {
        self.count * (-now.seconds_since(self.at) / TAU_S).exp()
    }
}
