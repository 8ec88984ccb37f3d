//! What one request may take inside the sandbox, and what the caches may hold.

use std::time::Duration;

/// Most requests that run at once: each reserves 8 GiB of address space, of which a process has
/// 128 TiB, and a thread.
pub const SLOTS_MAX: usize = 1024;

/// Limits of one instance, that is of one request, and of the caches.
///
/// A module's manifest may lower what it is allowed, never raise it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Linear memory of an instance, all its memories together.
    pub memory_bytes_max: usize,
    /// Stack of the guest's code. A runaway recursion ends here.
    pub stack_bytes_max: usize,
    /// Elements of each table of an instance; compilers put one function pointer in each.
    pub table_elements_max: usize,
    /// Tensors, graphs, contexts and errors that an instance holds at once.
    pub handles_max: usize,
    /// Bytes of the tensors that an instance holds at once, inputs and outputs included.
    pub tensor_bytes_max: usize,
    /// Bytes of all outputs of a request together.
    pub output_bytes_max: usize,
    /// Largest tensor that a graph may make on the way. All that a run holds at once may be twice that,
    /// weights not counted.
    pub graph_tensor_bytes_max: usize,
    /// Linear memory of a graph that runs inside the sandbox: its weights, as the file has them and as the
    /// engine does, and what a run takes.
    pub strict_memory_bytes_max: usize,
    /// Plans kept for each graph with free axes, one per set of input shapes.
    pub plans_max: usize,
    /// Longest run of a request, whatever its deadline.
    pub run_time_max: Duration,
    /// What a guest may write to the log in one request.
    pub log_bytes_max: usize,
    /// Code of a module: its file without manifest and graphs. Compiling takes seconds a megabyte.
    pub code_bytes_max: usize,
}

impl Default for Limits {
    /// Sums for a device with 2 GiB of memory and four slots: the linear memories and the tensors in
    /// the host can take all of it only if every slot runs a module at its limits.
    fn default() -> Self {
        Self {
            memory_bytes_max: 256 << 20,
            stack_bytes_max: 512 << 10,
            table_elements_max: 20_000,
            handles_max: 1024,
            tensor_bytes_max: 256 << 20,
            output_bytes_max: 64 << 20,
            graph_tensor_bytes_max: 512 << 20,
            strict_memory_bytes_max: 1 << 30,
            plans_max: 8,
            run_time_max: Duration::from_secs(60),
            log_bytes_max: 4 << 10,
            code_bytes_max: 32 << 20,
        }
    }
}
