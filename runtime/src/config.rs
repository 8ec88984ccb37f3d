//! What a runtime is started with.

use std::path::PathBuf;

use crate::limits::Limits;
use crate::vet::Vetting;

/// What a runtime is started with. [`RuntimeConfig::new`] is a runtime that keeps nothing and prepares
/// graphs in its own process, as suits a tool or a test; daemons set all of it.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Most requests that run at once, 1 to [`crate::SLOTS_MAX`].
    pub slots_max: usize,
    /// What one request may take, and what the caches may hold.
    pub limits: Limits,
    /// Where compiled code and verdicts on graphs are kept; without it every start makes them anew.
    pub cache: Option<CacheConfig>,
    /// The child process that prepares every graph before this process does; without it a graph that
    /// aborts or takes all memory takes this process with it.
    pub vetting: Option<Vetting>,
    /// The engine of graphs as a guest, `tract-guest.wasm`; without it modules whose graphs must run inside
    /// the sandbox are refused.
    pub tract_guest: Option<PathBuf>,
}

impl RuntimeConfig {
    /// A runtime for at most `slots_max` requests at once, with the default limits.
    #[must_use]
    pub fn new(slots_max: usize) -> Self {
        Self {
            slots_max,
            limits: Limits::default(),
            cache: None,
            vetting: None,
            tract_guest: None,
        }
    }
}

/// Where a runtime keeps what it made, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// The state folder. Nobody but the owner of this process may be able to write to it: code from
    /// there is run. Entries go to `code/` in it, and the key that authenticates them to `code.key`.
    pub folder: PathBuf,
    /// Most bytes of all entries; the least recently used ones go first.
    pub bytes_max: u64,
}
