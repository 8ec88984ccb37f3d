//! One thread that moves the engine's epoch on while guests run.
//!
//! Every tick makes running guests look at their budget. While nothing runs the thread parks, so an
//! idle device is not woken; it parks only after a second without a run, so that a steady trickle of
//! requests does not pay for waking it each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use wasmtime::Engine;

/// How late a guest may notice that its budget is over.
const TICK: Duration = Duration::from_millis(5);

/// Ticks without a run after which the thread parks.
const IDLE_TICKS_MAX: u32 = 200;

/// The thread that interrupts guests. Dropping it stops and joins the thread.
#[derive(Debug)]
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    parked: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread = {
            let (shared, engine) = (Arc::clone(&shared), engine.clone());
            std::thread::Builder::new()
                .name("tidegate-ticker".to_owned())
                .spawn(move || tick(&shared, &engine))?
        };
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Ticks for as long as the guard lives.
    pub(crate) fn run(&self) -> RunGuard<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.parked.load(Ordering::SeqCst) {
            self.unpark();
        }
        RunGuard(self)
    }

    fn unpark(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.unpark();
        if let Some(thread) = self.thread.take() {
            // The thread only counts; it has nothing to report and cannot have panicked.
            drop(thread.join());
        }
    }
}

/// Something runs.
#[derive(Debug)]
pub(crate) struct RunGuard<'a>(&'a Ticker);

impl Drop for RunGuard<'_> {
    fn drop(&mut self) {
        self.0.shared.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(shared: &Shared, engine: &Engine) {
    let mut idle_ticks = 0;
    while !shared.stop.load(Ordering::SeqCst) {
        if shared.running.load(Ordering::SeqCst) > 0 {
            idle_ticks = 0;
            engine.increment_epoch();
        } else {
            idle_ticks += 1;
        }
        if idle_ticks < IDLE_TICKS_MAX {
            std::thread::park_timeout(TICK);
            continue;
        }
        // A run that starts now either sees the flag and unparks, or is seen by the second look.
        shared.parked.store(true, Ordering::SeqCst);
        if shared.running.load(Ordering::SeqCst) == 0 && !shared.stop.load(Ordering::SeqCst) {
            std::thread::park();
        }
        shared.parked.store(false, Ordering::SeqCst);
        idle_ticks = 0;
    }
}
