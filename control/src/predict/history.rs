//! The last rates and their means: all that an expert may look back on.

use super::{HORIZON_TICKS_MAX, RATE_MAX};

/// Ticks kept: the furthest horizon and what the longest look back adds to it.
pub const HISTORY_TICKS: usize = 512;

/// Ticks of the mean that forecasts are about: a second.
pub const WINDOW_TICKS: usize = 4;

const _: () = assert!(HORIZON_TICKS_MAX + 64 < HISTORY_TICKS && HISTORY_TICKS.is_power_of_two());

/// A forecast may exceed the largest recent windowed mean by this factor.
const BOUND: f64 = 2.0;
/// Per tick, what is kept of the largest mean: half of it after about 30 s.
const PEAK_KEEP: f64 = 0.994;

/// A ring of windowed mean rates.
#[derive(Debug)]
pub struct History {
    rates: [f64; WINDOW_TICKS],
    means: Box<[f64; HISTORY_TICKS]>,
    ticks: u64,
    peak: f64,
}

impl History {
    pub(super) fn new() -> Self {
        Self {
            rates: [0.0; WINDOW_TICKS],
            means: Box::new([0.0; HISTORY_TICKS]),
            ticks: 0,
            peak: 0.0,
        }
    }

    pub(super) fn push(&mut self, rate: f64) {
        let rate = if rate.is_nan() {
            0.0
        } else {
            rate.clamp(0.0, RATE_MAX)
        };
        let oldest = self.ticks % WINDOW_TICKS as u64;
        self.rates[usize::try_from(oldest).expect("below the window")] = rate;
        self.ticks += 1;
        let filled = self.len().min(WINDOW_TICKS);
        let mean = self.rates[..filled].iter().sum::<f64>() / filled as f64;
        let index = self.index(0);
        self.means[index] = mean;
        self.peak = (self.peak * PEAK_KEEP).max(mean);
    }

    /// Ticks pushed so far.
    #[must_use]
    pub fn ticks(&self) -> u64 {
        self.ticks
    }

    /// Ticks that can be looked back on.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.ticks).map_or(HISTORY_TICKS, |ticks| ticks.min(HISTORY_TICKS))
    }

    /// Whether nothing was pushed yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ticks == 0
    }

    /// Mean rate of the window that ended `ago` ticks ago; the oldest known if that is too far
    /// back, 0 if there is none.
    #[must_use]
    pub fn mean(&self, ago: usize) -> f64 {
        match self.len() {
            0 => 0.0,
            len => self.means[self.index(ago.min(len - 1))],
        }
    }

    /// The largest forecast worth believing: twice the recent peak.
    #[must_use]
    pub fn bound(&self) -> f64 {
        (self.peak * BOUND).min(RATE_MAX)
    }

    fn index(&self, ago: usize) -> usize {
        let at = (self.ticks - 1).wrapping_sub(ago as u64) % HISTORY_TICKS as u64;
        usize::try_from(at).expect("below the history's length")
    }
}
