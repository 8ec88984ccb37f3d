//! The runtime of commands that load modules: as careful as the daemons, and with their state folder.

use std::sync::Arc;

use tidegate_daemon::state::StateConfig;
use tidegate_runtime::{
    CacheConfig, Runtime, RuntimeConfig, StartError, Vetting, tract_guest_beside_program,
};

/// Starts a runtime for at most `slots_max` requests at once, which keeps compiled code where the daemons
/// do by default, and prepares graphs in a child process first.
pub(crate) fn start(slots_max: usize) -> Result<Arc<Runtime>, StartError> {
    let cache = StateConfig::default().open().map(|folder| CacheConfig {
        folder: folder.path().to_owned(),
        bytes_max: folder.code_bytes_max(),
    });
    Runtime::start(RuntimeConfig {
        cache,
        vetting: Some(Vetting::by_this_program()),
        tract_guest: tract_guest_beside_program(),
        ..RuntimeConfig::new(slots_max)
    })
}
