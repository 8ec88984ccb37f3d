//! How loaded this relay is, as it tells agents.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_runtime::SlotLoad;
use tidegate_wire::LoadReport;

/// Weight of the newest run in the mean service time: the mean follows the last ten runs or so.
const NEWEST: f64 = 0.1;

/// Mean service time of recent runs, of all modules together.
#[derive(Debug, Default)]
pub(crate) struct ServiceTime {
    /// Bits of an `f64` in seconds; 0 until the first run. A run that is lost to a race of two
    /// threads changes the mean by less than the next run does.
    mean_s: AtomicU64,
}

impl ServiceTime {
    /// Takes one run into the mean.
    pub(crate) fn record(&self, run: Duration) {
        let mean = f64::from_bits(self.mean_s.load(Ordering::Relaxed));
        let run = run.as_secs_f64();
        let next = if mean == 0.0 {
            run
        } else {
            mean + NEWEST * (run - mean)
        };
        self.mean_s.store(next.to_bits(), Ordering::Relaxed);
    }

    /// The mean, 0 before the first run.
    pub(crate) fn mean(&self) -> Duration {
        Duration::from_secs_f64(f64::from_bits(self.mean_s.load(Ordering::Relaxed)))
    }
}

/// What a request that arrives now would find: it waits for as many runs as have to end before a
/// slot is free for it, `slots` of them at a time.
pub(crate) fn report(now: SlotLoad, mean: Duration, reserved: f64, stage: Stage) -> LoadReport {
    let ahead = (now.busy + now.queued + 1).saturating_sub(now.slots);
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    LoadReport {
        slots: count(now.slots),
        busy: count(now.busy),
        queued: count(now.queued),
        wait: mean.saturating_mul(count(ahead)) / count(now.slots.max(1)),
        reserved,
        draining: match stage {
            Stage::Serving => false,
            Stage::Draining => true,
        },
    }
}

/// Whether the relay wants more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It does.
    Serving,
    /// It finishes what it has, and stops.
    Draining,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_is_the_runs_ahead_shared_by_the_slots() {
        let check = |slots, busy, queued, ms| {
            let load = SlotLoad {
                slots,
                busy,
                queued,
            };
            let mean = Duration::from_millis(30);
            let wait = report(load, mean, 0.0, Stage::Serving).wait;
            assert_eq!(wait.as_millis(), ms, "{slots} {busy} {queued}");
        };
        check(2, 0, 0, 0);
        check(2, 1, 0, 0);
        check(2, 2, 0, 15);
        check(2, 2, 3, 60);
        check(1, 1, 0, 30);
        check(1, 0, 0, 0);
    }

    #[test]
    fn the_mean_follows_the_runs() {
        let service = ServiceTime::default();
        assert_eq!(service.mean(), Duration::ZERO);
        service.record(Duration::from_millis(10));
        assert_eq!(service.mean(), Duration::from_millis(10));
        (0..60).for_each(|_| service.record(Duration::from_millis(50)));
        assert_eq!(service.mean().as_millis(), 49);
    }
}
