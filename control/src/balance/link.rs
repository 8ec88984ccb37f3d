//! What the way to a relay and back costs: a round trip, and seconds a byte.
//!
//! The travel time of each answer (its sojourn without the relay's queue and run) is regressed on
//! its bytes by least squares over decayed sums. Requests of one size tell the slope nothing; then
//! the mean stands for the round trip, and larger requests are scaled up from it.

use crate::Time;
use crate::monitor::TAU_S;

/// Relative spread of the sizes (variance over squared mean) from which the slope is believed.
const SPREAD_MIN: f64 = 0.01;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    weight: f64,
    bytes: f64,
    seconds: f64,
    bytes_squared: f64,
    product: f64,
    at: Time,
}

impl Link {
    pub(super) fn learn(&mut self, now: Time, bytes: usize, seconds: f64) {
        // Old samples keep a little weight, so that an idle link is not forgotten.
        let keep = (-now.seconds_since(self.at) / TAU_S).exp().max(0.01);
        self.at = self.at.max(now);
        let bytes = bytes as f64;
        self.weight = self.weight * keep + 1.0;
        self.bytes = self.bytes * keep + bytes;
        self.seconds = self.seconds * keep + seconds;
        self.bytes_squared = self.bytes_squared * keep + bytes * bytes;
        self.product = self.product * keep + bytes * seconds;
    }

    /// Predicted travel time of a request of `bytes`, once any was seen.
    pub(super) fn travel_s(&self, bytes: usize) -> Option<f64> {
        if self.weight <= 0.0 {
            return None;
        }
        let bytes = bytes as f64;
        let (mean_bytes, mean) = (self.bytes / self.weight, self.seconds / self.weight);
        let variance = self.bytes_squared / self.weight - mean_bytes * mean_bytes;
        if variance <= SPREAD_MIN * mean_bytes * mean_bytes {
            return Some(mean * (bytes / mean_bytes.max(1.0)).max(1.0));
        }
        let slope = (self.product / self.weight - mean_bytes * mean) / variance;
        // A slope of at most mean / mean_bytes keeps the round trip from going negative.
        let slope = slope.clamp(0.0, mean / mean_bytes.max(1.0));
        Some((mean + slope * (bytes - mean_bytes)).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn round_trip_and_goodput_are_told_apart() {
        let mut link = Link::default();
        assert_eq!(link.travel_s(1), None);
        for step in 0..100_u32 {
            let bytes = 1000 * (1 + step as usize % 7);
            link.learn(
                Time(Duration::from_millis(10) * step),
                bytes,
                0.02 + bytes as f64 * 1e-6,
            );
        }
        for (bytes, seconds) in [(0, 0.02), (1000, 0.021), (100_000, 0.12)] {
            let travel = link.travel_s(bytes).unwrap();
            assert!((travel - seconds).abs() < 1e-4, "{bytes}: {travel}");
        }
    }

    #[test]
    fn one_size_scales_up_and_never_down() {
        let mut link = Link::default();
        (0..10).for_each(|_| link.learn(Time::default(), 1000, 0.03));
        for (bytes, seconds) in [(0, 0.03), (1000, 0.03), (3000, 0.09)] {
            let travel = link.travel_s(bytes).unwrap();
            assert!((travel - seconds).abs() < 1e-9, "{bytes}: {travel}");
        }
    }
}
