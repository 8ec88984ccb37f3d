//! What will arrive: experts, their mixture, and a calibrated quantile.
//!
//! Time is counted in ticks. Each tick the bank takes one rate, scores the forecasts that were made
//! for this tick, reweights the experts (`hedge`), recalibrates the quantile (`conformal`), and
//! forecasts again for the horizon. The cost per tick and the memory are constant. The target of a
//! forecast is the mean rate of the [`WINDOW_TICKS`] that end at the horizon: what a queue feels is
//! the load of about a second, not that of an instant.
//!
//! Rates are clamped to [0, [`RATE_MAX`]] on the way in and forecasts on the way out, so no input
//! makes a NaN or an infinity.

mod autoregression;
mod conformal;
mod expert;
mod hedge;
mod history;

pub use autoregression::Autoregression;
pub use expert::{DampedHolt, Ewma, LastValue, LinearTrend};
pub use history::{HISTORY_TICKS, History, WINDOW_TICKS};

use conformal::Conformal;
use hedge::Hedge;

/// Largest rate that is believed, in arrivals per second.
pub const RATE_MAX: f64 = 1e9;

/// Furthest horizon: a minute of ticks.
pub const HORIZON_TICKS_MAX: usize = 240;

/// Windows of the mean that tells whether the load has fallen.
pub const CALM_WINDOWS: usize = 4;

/// Errors of the first ticks, when there is hardly a history, say nothing of later ones.
const WARM_UP_TICKS: u64 = 40;

/// Experts in a [`Bank`].
pub const EXPERTS: usize = 5;

/// One way of forecasting.
pub trait Forecast: std::fmt::Debug + Send {
    /// Learns from the newest tick of `history` and forecasts the windowed mean rate `horizon`
    /// ticks ahead, 1 to [`HORIZON_TICKS_MAX`]. Called once a tick.
    fn step(&mut self, history: &History, horizon: usize) -> f64;
}

/// The experts, their weights and their quantile.
#[derive(Debug)]
pub struct Bank {
    history: History,
    experts: [Box<dyn Forecast>; EXPERTS],
    hedge: Hedge<EXPERTS>,
    conformal: Conformal,
    pending: Vec<Option<Pending>>,
    latest: f64,
}

/// Forecasts that wait for the tick that they are about.
#[derive(Clone, Copy, Debug)]
struct Pending {
    due: u64,
    experts: [f64; EXPERTS],
    combined: f64,
}

impl Bank {
    /// A bank that calibrates its upper forecast at `quantile`, in (0, 1), for rates measured over
    /// ticks of `tick_s` seconds.
    #[must_use]
    pub fn new(quantile: f64, tick_s: f64) -> Self {
        Self {
            history: History::new(),
            experts: [
                Box::new(LastValue),
                Box::new(Ewma::default()),
                Box::new(DampedHolt::default()),
                Box::new(LinearTrend),
                Box::new(Autoregression::default()),
            ],
            hedge: Hedge::new(),
            conformal: Conformal::new(quantile, WINDOW_TICKS as f64 * tick_s),
            pending: vec![None; HORIZON_TICKS_MAX + 1],
            latest: 0.0,
        }
    }

    /// Takes the rate of one tick and forecasts for `horizon` ticks ahead, clamped to 1 ..=
    /// [`HORIZON_TICKS_MAX`].
    pub fn observe(&mut self, rate: f64, horizon: usize) {
        let horizon = horizon.clamp(1, HORIZON_TICKS_MAX);
        self.history.push(rate);
        let now = self.history.ticks();
        let slot = slot(now);
        if let Some(pending) = self.pending[slot].take_if(|pending| pending.due == now) {
            let seen = self.history.mean(0);
            self.hedge.learn(&pending.experts, seen);
            if now > WARM_UP_TICKS {
                self.conformal.learn(pending.combined, seen);
            }
        }
        let bound = self.history.bound();
        let experts = self.experts.each_mut().map(|expert| {
            let forecast = expert.step(&self.history, horizon);
            if forecast.is_finite() {
                forecast.clamp(0.0, bound)
            } else {
                self.history.mean(0)
            }
        });
        self.latest = self.hedge.combine(&experts);
        let due = now + horizon as u64;
        self.pending[self::slot(due)] = Some(Pending {
            due,
            experts,
            combined: self.latest,
        });
    }

    /// The mixture's forecast, made at the last tick.
    #[must_use]
    pub fn forecast(&self) -> f64 {
        self.latest
    }

    /// The calibrated quantile of the same forecast, never below it.
    #[must_use]
    pub fn upper(&self) -> f64 {
        self.conformal.upper(self.latest).min(RATE_MAX)
    }

    /// The same quantile of the rate behind the counts, never below the forecast: for Poisson
    /// arrivals at a steady rate it is the forecast itself. This is what a capacity that already
    /// leaves room for random arrivals is compared with.
    #[must_use]
    pub fn upper_intensity(&self) -> f64 {
        self.conformal.upper_intensity(self.latest).min(RATE_MAX)
    }

    /// Mean rate of the last window.
    #[must_use]
    pub fn current(&self) -> f64 {
        self.history.mean(0)
    }

    /// Mean rate of the last [`CALM_WINDOWS`] windows, which single gusts move little.
    #[must_use]
    pub fn calm(&self) -> f64 {
        let windows = (0..CALM_WINDOWS).map(|window| self.history.mean(window * WINDOW_TICKS));
        windows.sum::<f64>() / CALM_WINDOWS as f64
    }
}

/// Where the forecasts for tick `due` wait.
fn slot(due: u64) -> usize {
    let slots = HORIZON_TICKS_MAX as u64 + 1;
    usize::try_from(due % slots).expect("a remainder of a small number fits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Random;

    fn mean_error(rates: impl Iterator<Item = f64>, horizon: usize) -> (f64, f64) {
        let mut bank = Bank::new(0.9, 0.25);
        let (mut made, mut errors, mut covered, mut count) = (vec![], 0.0, 0.0, 0.0);
        for (tick, rate) in rates.enumerate() {
            bank.observe(rate, horizon);
            made.push((bank.forecast(), bank.upper()));
            if tick > 200 {
                let (forecast, upper) = made[tick - horizon];
                errors += (forecast - bank.current()).abs() / bank.current().max(1.0);
                covered += f64::from(u8::from(bank.current() <= upper + 1e-9));
                count += 1.0;
            }
        }
        (errors / count, covered / count)
    }

    /// A quarter second's count at `mean` per second, by a normal approximation, as a rate.
    fn noisy(tick: usize, mean: f64) -> f64 {
        let normal = Random::new(tick as u64).normal();
        (mean + normal * (mean / 0.25).sqrt()).max(0.0)
    }

    #[test]
    fn each_kind_of_load_is_forecast_within_its_noise() {
        let check = |name: &str, rate: &dyn Fn(usize) -> f64, error_max: f64| {
            let (error, _) = mean_error((0..2000).map(rate), 8);
            assert!(error <= error_max, "{name}: {error}");
        };
        check("constant", &|_| 40.0, 1e-9);
        check("ramp", &|tick| 10.0 + 0.1 * tick as f64, 0.01);
        check("noise", &|tick| noisy(tick, 40.0), 0.16);
        check(
            "sine",
            &|tick| 50.0 + 40.0 * (tick as f64 / 60.0).sin(),
            0.05,
        );
    }

    #[test]
    fn the_quantile_covers_what_it_says() {
        for (name, drift) in [("steady", 0.0), ("drifting", 0.05)] {
            let rates = (0..6000).map(|tick| noisy(tick, 40.0 + drift * tick as f64));
            let (_, covered) = mean_error(rates, 8);
            assert!((0.85..=0.95).contains(&covered), "{name}: {covered}");
        }
    }

    #[test]
    fn hostile_rates_leave_forecasts_finite() {
        let hostile = [
            f64::NAN,
            f64::INFINITY,
            -1.0,
            0.0,
            f64::MAX,
            1e-300,
            -0.0,
            1e9,
        ];
        let mut bank = Bank::new(0.9, 0.25);
        for tick in 0..5000_usize {
            bank.observe(
                hostile[(tick * tick + tick / 7) % hostile.len()],
                1 + tick % 300,
            );
            for value in [bank.forecast(), bank.upper(), bank.current()] {
                assert!((0.0..=RATE_MAX).contains(&value), "tick {tick}: {value}");
            }
            let weights: f64 = bank.hedge.weights().iter().sum();
            assert!((weights - 1.0).abs() < 1e-6, "tick {tick}: {weights}");
        }
    }
}
