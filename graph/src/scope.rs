//! What the graph that is at work on this thread may take: time, and memory.
//!
//! The engine calls operators of ours and the bodies of loops, and hands on nothing of what bounds the
//! whole. So that is kept beside the thread for as long as a graph is read, planned or run there.
//! Outside of that nothing may be made.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::{GraphError, GraphLimits, shorten_name};

/// Whether whoever wants the graph's work still does.
pub(super) type GoesOn = Arc<dyn Fn() -> bool + Send + Sync>;

thread_local! {
    static SCOPE: RefCell<Option<Rc<Scope>>> = const { RefCell::new(None) };
}

struct Scope {
    limits: GraphLimits,
    goes_on: GoesOn,
    /// Bytes of all tensors that a run holds now, those of the bodies in it included.
    live: Cell<usize>,
}

/// Nobody stops the work.
pub(super) fn always() -> GoesOn {
    Arc::new(|| true)
}

/// Does a step within these limits, and for as long as it goes on.
pub(super) fn within<T>(limits: GraphLimits, goes_on: &GoesOn, step: impl FnOnce() -> T) -> T {
    /// Puts back what was there, even when the step panics.
    struct Restore(Option<Rc<Scope>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SCOPE.set(self.0.take());
        }
    }
    let scope = Scope {
        limits,
        goes_on: Arc::clone(goes_on),
        live: Cell::new(0),
    };
    let _restore = Restore(SCOPE.replace(Some(Rc::new(scope))));
    step()
}

/// Fails once nobody waits for the work any more.
pub(crate) fn check() -> Result<(), GraphError> {
    match current() {
        Some(scope) if !(scope.goes_on)() => Err(GraphError::Stopped),
        _ => Ok(()),
    }
}

/// Largest tensor that may be made here.
pub(crate) fn tensor_bytes_max() -> usize {
    current().map_or(0, |scope| scope.limits.tensor_bytes_max)
}

fn current() -> Option<Rc<Scope>> {
    SCOPE.with_borrow(Option::clone)
}

/// The bytes that one run of a plan holds, counted in the scope until it is dropped.
pub(super) struct Held {
    scope: Option<Rc<Scope>>,
    bytes: usize,
}

impl Held {
    pub(super) fn nothing() -> Self {
        let scope = current();
        Self { scope, bytes: 0 }
    }

    /// Fails if that many bytes more were too many; `node` is what would make them.
    pub(super) fn check(&self, node: &str, bytes: usize) -> Result<(), GraphError> {
        let Some(scope) = &self.scope else {
            return Ok(());
        };
        let held = scope.live.get().saturating_add(bytes);
        let limit = scope.limits.run_bytes_max();
        if held > limit {
            let node = shorten_name(node);
            return Err(GraphError::RunTooLarge { node, held, limit });
        }
        Ok(())
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        if let Some(scope) = &self.scope {
            scope.live.set(scope.live.get().saturating_add(bytes));
        }
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(scope) = &self.scope {
            scope.live.set(scope.live.get().saturating_sub(bytes));
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.remove(self.bytes);
    }
}
