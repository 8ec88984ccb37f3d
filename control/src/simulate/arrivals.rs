//! Arrival times: a Poisson process whose rate changes over time.

use super::Random;
use crate::Time;
use crate::time::duration;

/// Most arrivals of one simulation: about 400 MB of events and outcomes.
pub const ARRIVALS_MAX: usize = 10_000_000;

/// How the rate goes from one point to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// It jumps at each point.
    Steps,
    /// It moves in a straight line.
    Lines,
}

/// A Poisson process whose rate passes through `points`, each (second, requests per second), in
/// order of time, until the last point. At most [`ARRIVALS_MAX`] arrivals.
#[must_use]
pub fn poisson(points: &[(f64, f64)], shape: Shape, random: &mut Random) -> Vec<Time> {
    let mut arrivals = Vec::new();
    // Time-rescaling: the integral of the rate between two arrivals is exponential.
    let mut owed = random.exponential();
    for pair in points.windows(2) {
        let [(from, start), (to, end)] = [pair[0], pair[1]];
        let length = (to - from).max(0.0);
        let (start, end) = match shape {
            Shape::Steps => (start.max(0.0), start.max(0.0)),
            Shape::Lines => (start.max(0.0), end.max(0.0)),
        };
        let area = length * f64::midpoint(start, end);
        let mut used = 0.0;
        while used + owed <= area && arrivals.len() < ARRIVALS_MAX {
            used += owed;
            owed = random.exponential();
            arrivals.push(Time(duration(from + reach(used, start, end, length))));
        }
        owed -= area - used;
    }
    arrivals
}

/// The time into a piece of `length` at which a rate that goes from `start` to `end` has an
/// integral of `area`.
fn reach(area: f64, start: f64, end: f64, length: f64) -> f64 {
    let slope = (end - start) / length;
    let root = (start * start + 2.0 * slope * area).max(0.0).sqrt();
    (2.0 * area / (start + root)).min(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_follow_the_rate() {
        let count = |points: &[(f64, f64)], shape, from: f64, to: f64| {
            let arrivals = poisson(points, shape, &mut Random::new(1));
            assert!(arrivals.is_sorted());
            arrivals
                .iter()
                .filter(|at| (from..to).contains(&at.0.as_secs_f64()))
                .count() as f64
        };
        let steps = [(0.0, 100.0), (50.0, 0.0), (60.0, 300.0), (100.0, 0.0)];
        for (from, to, mean) in [
            (0.0, 50.0, 5000.0),
            (50.0, 60.0, 0.0),
            (60.0, 100.0, 12_000.0),
        ] {
            let seen = count(&steps, Shape::Steps, from, to);
            assert!(
                (seen - mean).abs() <= 4.0 * f64::sqrt(mean),
                "{from}: {seen}"
            );
        }
        let lines = [(0.0, 0.0), (100.0, 200.0)];
        for (from, to, mean) in [(0.0, 50.0, 2500.0), (50.0, 100.0, 7500.0)] {
            let seen = count(&lines, Shape::Lines, from, to);
            assert!(
                (seen - mean).abs() <= 4.0 * f64::sqrt(mean),
                "{from}: {seen}"
            );
        }
    }
}
