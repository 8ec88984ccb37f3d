//! The threads that compile, which give way to those that answer requests.
//!
//! wasmtime compiles functions on the threads of rayon's pool that it is called in. A large module takes all
//! of them for seconds, and a device that serves at its limit has none to give.

use std::sync::LazyLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// How far the threads stand back: of a core that is wanted by both, serving gets nine parts in ten.
const NICENESS: i32 = 10;

/// Stack of a thread that compiles, which recurses over what a component nests.
const STACK_BYTES: usize = 8 << 20;

/// One thread for each core; none if the system gives none.
static THREADS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let pool = ThreadPoolBuilder::new()
        .thread_name(|index| format!("tidegate-compile-{index}"))
        .stack_size(STACK_BYTES)
        .start_handler(|_| {
            if let Err(error) = rustix::process::nice(NICENESS) {
                tracing::debug!(%error, "the priority of a thread that compiles was not lowered");
            }
        })
        .build();
    pool.inspect_err(|error| tracing::warn!(%error, "there are no threads to compile on"))
        .ok()
});

/// Runs what compiles on those threads, or here if there are none.
pub(crate) fn compiling<T: Send>(compile: impl FnOnce() -> T + Send) -> T {
    match &*THREADS {
        Some(threads) => threads.install(compile),
        None => compile(),
    }
}
