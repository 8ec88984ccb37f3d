//! Graphs that modules share: preparing one takes seconds and memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tidegate_inference::Digest;

/// Graphs in use, by digest: modules that carry the same graph share it.
pub(super) struct Known<G>(Mutex<HashMap<Digest, Weak<G>>>);

impl<G> Default for Known<G> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<G> Known<G> {
    /// The graph of this digest, made now if it is not in use. No lock is held meanwhile, since that takes
    /// seconds; of two makers at once one wins.
    pub(super) fn get<E>(
        &self,
        digest: Digest,
        make: impl FnOnce() -> Result<Arc<G>, E>,
    ) -> Result<Arc<G>, E> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = lock().get(&digest).and_then(Weak::upgrade) {
            return Ok(graph);
        }
        let made = make()?;
        let mut graphs = lock();
        graphs.retain(|_, graph| graph.strong_count() > 0);
        if let Some(first) = graphs.get(&digest).and_then(Weak::upgrade) {
            return Ok(first);
        }
        graphs.insert(digest, Arc::downgrade(&made));
        Ok(made)
    }
}
