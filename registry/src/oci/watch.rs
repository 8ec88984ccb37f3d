//! Who follows a transfer.

use std::fmt;
use std::sync::Arc;

/// Called with the bytes that are through and the bytes that there are, many times a second.
#[derive(Clone, Default)]
pub struct Watch(Option<Arc<dyn Fn(u64, u64) + Send + Sync>>);

impl Watch {
    /// Calls `report` on the way. It must not block.
    pub fn new(report: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(report)))
    }

    /// Nobody follows.
    #[must_use]
    pub fn nobody() -> Self {
        Self(None)
    }

    pub(crate) fn report(&self, bytes: u64, bytes_max: u64) {
        if let Some(report) = &self.0 {
            report(bytes, bytes_max);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
