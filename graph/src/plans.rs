//! The plans of a graph that are kept, and those that are being made.
//!
//! Making a plan takes a processor for as long as a hundred runs. So no more than a few are made at once,
//! whatever shapes requests bring, and one that several requests want is made once. Who waits looks at
//! its own time; who makes one and runs out of time leaves it to the others.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::scope::GoesOn;
use super::{GraphError, Plan};
use crate::plan::Key;

/// Most plans of one graph that are made at once: a second, so that one odd request does not hold up all.
const MAKING_MAX: usize = 2;

/// How often one that waits for a plan looks at its own time.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What came of making a plan.
type Made = Result<Arc<Plan>, GraphError>;

/// The plans of one graph.
#[derive(Debug)]
pub(super) struct Plans {
    kept_max: usize,
    state: Mutex<State>,
    /// One has been made, or given up.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The one used last is last.
    kept: Vec<(Key, Made)>,
    making: Vec<Key>,
}

impl Plans {
    pub(super) fn new(kept_max: usize) -> Self {
        Self {
            kept_max: kept_max.max(1),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The plan for this key, which is made now if it is not there.
    pub(super) fn get(&self, key: Key, goes_on: &GoesOn, make: impl FnOnce(&Key) -> Made) -> Made {
        let mut state = self.lock();
        loop {
            if let Some(at) = state.kept.iter().position(|(kept, _)| *kept == key) {
                let found = state.kept.remove(at);
                state.kept.push(found.clone());
                return found.1;
            }
            if state.making.len() < MAKING_MAX && !state.making.contains(&key) {
                break;
            }
            if !goes_on() {
                return Err(GraphError::Stopped);
            }
            let waited = self.changed.wait_timeout(state, LOOK_EVERY);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.making.push(key.clone());
        drop(state);
        let made = make(&key);
        let mut state = self.lock();
        state.making.retain(|making| *making != key);
        // Neither says anything of these shapes, so the next request tries again.
        if !matches!(made, Err(GraphError::Thread { .. } | GraphError::Stopped)) {
            if state.kept.len() >= self.kept_max {
                drop(state.kept.remove(0));
            }
            state.kept.push((key, made.clone()));
        }
        self.changed.notify_all();
        made
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use tidegate_inference::Shape;

    use super::*;
    use crate::scope::always;

    fn key(extent: usize) -> Key {
        Key {
            shapes: vec![Shape::from_slice(&[extent])],
            values: vec![],
        }
    }

    fn failed() -> Made {
        let reason = "made".to_owned();
        Err(GraphError::Prepare { reason })
    }

    #[test]
    fn no_more_are_made_at_once_than_there_may_be() {
        let plans = Plans::new(8);
        let (started, starts) = mpsc::channel();
        let never: GoesOn = Arc::new(|| false);
        std::thread::scope(|scope| {
            let mut ends = vec![];
            for extent in 0..MAKING_MAX {
                let (end, ended) = mpsc::channel::<()>();
                ends.push(end);
                let (plans, started) = (&plans, started.clone());
                scope.spawn(move || {
                    plans.get(key(extent), &always(), |_| {
                        started.send(()).unwrap();
                        ended.recv().ok();
                        failed()
                    })
                });
            }
            for _ in 0..MAKING_MAX {
                starts.recv().unwrap();
            }
            for extent in [0, MAKING_MAX] {
                let late = plans.get(key(extent), &never, |_| panic!("it is not made"));
                assert!(matches!(late, Err(GraphError::Stopped)));
            }
            drop(ends);
            let made = plans.get(key(MAKING_MAX), &always(), |_| failed());
            assert!(matches!(made, Err(GraphError::Prepare { .. })));
        });
    }

    #[test]
    fn one_that_ran_out_of_time_is_made_again_and_others_are_not() {
        let plans = Plans::new(8);
        let made = AtomicUsize::new(0);
        let count = |made_is: fn() -> Made| {
            drop(plans.get(key(1), &always(), |_| {
                made.fetch_add(1, Ordering::Relaxed);
                made_is()
            }));
            made.load(Ordering::Relaxed)
        };
        assert_eq!(count(|| Err(GraphError::Stopped)), 1);
        assert_eq!(count(failed), 2);
        assert_eq!(count(failed), 2);
    }
}
