//! The plans of a graph that are kept, and those that are being made.
//!
//! Making a plan takes a processor for as long as a hundred runs. So no more than a few are made at once,
//! whatever shapes requests bring, and one that several requests want is made once. It has a thread of its
//! own: who waits for it looks at its own time, and what it leaves unfinished is there for the next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::scope::GoesOn;
use super::{GraphError, Plan, PlanKey, panicked};

/// Most plans of one graph that are made at once: a second, so that one odd request does not hold up all.
const MAKING_MAX: usize = 2;

/// How often one that waits for a plan looks at its own time.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What came of making a plan.
type Made = Result<Arc<Plan>, GraphError>;

/// A plan that somebody waits for.
type Awaited = Arc<OnceLock<Made>>;

/// The plans of one graph.
#[derive(Debug)]
pub(super) struct Plans {
    kept_max: usize,
    state: Mutex<State>,
    /// One has been made.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The one used last is last.
    kept: Vec<(PlanKey, Made)>,
    making: Vec<(PlanKey, Awaited)>,
}

impl Plans {
    pub(super) fn new(kept_max: usize) -> Self {
        Self {
            kept_max: kept_max.max(1),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The plan for this key. If it is not there, `make` begins on another thread, and is waited for as long
    /// as it goes on.
    pub(super) fn get(
        self: &Arc<Self>,
        key: PlanKey,
        goes_on: &GoesOn,
        make: impl FnOnce(&PlanKey) -> Made + Send + 'static,
    ) -> Made {
        let mut state = self.lock();
        let awaited = loop {
            if let Some(at) = state.kept.iter().position(|(kept, _)| *kept == key) {
                let found = state.kept.remove(at);
                state.kept.push(found.clone());
                return found.1;
            }
            if let Some((_, awaited)) = state.making.iter().find(|(making, _)| *making == key) {
                break Arc::clone(awaited);
            }
            if state.making.len() < MAKING_MAX {
                let awaited = Awaited::default();
                state.making.push((key.clone(), Arc::clone(&awaited)));
                drop(state);
                self.begin(key, Arc::clone(&awaited), make);
                state = self.lock();
                break awaited;
            }
            state = self.wait(state, goes_on)?;
        };
        loop {
            if let Some(made) = awaited.get() {
                return made.clone();
            }
            state = self.wait(state, goes_on)?;
        }
    }

    /// Waits for a change, but not for long.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        goes_on: &GoesOn,
    ) -> Result<MutexGuard<'a, State>, GraphError> {
        if !goes_on() {
            return Err(GraphError::Stopped);
        }
        let waited = self.changed.wait_timeout(state, LOOK_EVERY);
        Ok(waited.unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Makes a plan on a thread that ends by itself; a guest has but one thread.
    fn begin(
        self: &Arc<Self>,
        key: PlanKey,
        awaited: Awaited,
        make: impl FnOnce(&PlanKey) -> Made + Send + 'static,
    ) {
        let making = {
            let (plans, key, awaited) = (Arc::clone(self), key.clone(), Arc::clone(&awaited));
            move || {
                let made = catch_unwind(AssertUnwindSafe(|| make(&key)));
                let made = made.unwrap_or_else(|panic| Err(panicked(&*panic)));
                plans.end(key, &awaited, made);
            }
        };
        if let Err(error) = on_a_thread(making) {
            let reason = error.to_string();
            self.end(key, &awaited, Err(GraphError::Thread { reason }));
        }
    }

    fn end(&self, key: PlanKey, awaited: &Awaited, made: Made) {
        let mut state = self.lock();
        state.making.retain(|(making, _)| *making != key);
        // It says nothing of these shapes, so the next request tries again.
        if !matches!(made, Err(GraphError::Thread { .. })) {
            if state.kept.len() >= self.kept_max {
                drop(state.kept.remove(0));
            }
            state.kept.push((key, made.clone()));
        }
        // Nobody else makes this one.
        let _ = awaited.set(made);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(not(target_family = "wasm"))]
fn on_a_thread(making: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let thread = std::thread::Builder::new()
        .name("tidegate-plan".to_owned())
        .stack_size(super::STACK_BYTES);
    thread.spawn(making).map(drop)
}

#[cfg(target_family = "wasm")]
fn on_a_thread(making: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    making();
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use tidegate_inference::Shape;

    use super::*;
    use crate::scope::always;

    fn key(extent: usize) -> PlanKey {
        PlanKey {
            shapes: vec![Shape::from_slice(&[extent])],
            values: vec![],
        }
    }

    fn failed() -> Made {
        let reason = "made".to_owned();
        Err(GraphError::Prepare { reason })
    }

    fn never() -> GoesOn {
        Arc::new(|| false)
    }

    #[test]
    fn no_more_are_made_at_once_than_there_may_be() {
        let plans = Arc::new(Plans::new(8));
        let (started, starts) = mpsc::channel();
        let mut ends = vec![];
        for extent in 0..MAKING_MAX {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            let started = started.clone();
            let left = plans.get(key(extent), &never(), move |_| {
                started.send(()).unwrap();
                ended.recv().ok();
                failed()
            });
            assert!(matches!(left, Err(GraphError::Stopped)));
            starts.recv().unwrap();
        }
        for extent in [0, MAKING_MAX] {
            let late = plans.get(key(extent), &never(), |_| panic!("it is not made"));
            assert!(matches!(late, Err(GraphError::Stopped)));
        }
        drop(ends);
        let made = plans.get(key(MAKING_MAX), &always(), |_| failed());
        assert!(matches!(made, Err(GraphError::Prepare { .. })));
    }

    #[test]
    fn one_that_nobody_waited_for_to_its_end_is_there_for_the_next() {
        let plans = Arc::new(Plans::new(8));
        let made = Arc::new(AtomicUsize::new(0));
        let (end, ended) = mpsc::channel::<()>();
        let counter = Arc::clone(&made);
        let left = plans.get(key(1), &never(), move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
            ended.recv().ok();
            failed()
        });
        assert!(matches!(left, Err(GraphError::Stopped)));
        drop(end);
        let next = plans.get(key(1), &always(), |_| panic!("it is made once"));
        assert!(matches!(next, Err(GraphError::Prepare { .. })));
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_panic_is_what_came_of_it() {
        let plans = Arc::new(Plans::new(8));
        let made = plans.get(key(1), &always(), |_| panic!("at the third node"));
        match made {
            Err(GraphError::Prepare { reason }) => {
                assert!(reason.contains("at the third node"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
}
