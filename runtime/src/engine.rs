//! The WebAssembly engine, set up so that an instance costs microseconds and nothing runs forever.
//!
//! Instances come from a pool whose memory is mapped at start: taking one and giving it back makes no
//! mapping, and the pages that a request touched are cleared before the next one gets them. Compiled
//! code looks at an epoch counter in every loop and function; [`Ticker`] moves it on.

mod compiler;
mod ticker;

use wasmtime::{Config, Engine as WasmEngine, OptLevel, PoolingAllocationConfig};

pub(crate) use self::compiler::compiling;
pub(crate) use self::ticker::Ticker;
use crate::limits::{Limits, SLOTS_MAX};

/// Most core instances in a component. wit-component makes three of a guest; componentize-py one for
/// each shared library of Python and each interface of WASI that it stubs, some forty.
const CORE_INSTANCES_MAX: u32 = 64;

/// Most linear memories in a component.
const MEMORIES_MAX: u32 = 2;

/// Memories, tables and core instances of a graph that runs inside the sandbox, beside its module's.
const STRICT_MAX: u32 = 1;

/// Graphs that are planned for new shapes at once, beside the slots.
const PLANNING_MAX: u32 = 1;

/// Most tables in a component: one of the guest's, one that wit-component adds, and spares.
const TABLES_MAX: u32 = 8;

/// What the engine may allocate to describe an instance; a guest of a megabyte takes some 10 KiB.
const INSTANCE_BYTES_MAX: usize = 1 << 20;

/// Memory of a slot that is cleared by writing zeros rather than by giving its pages back to the
/// system, which costs a call and a page fault for each page that the next request touches.
const KEEP_RESIDENT_BYTES: usize = 128 << 10;

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pool would be empty, or too large to count.
    #[error("a runtime needs 1 to {max} slots, not {got}")]
    Slots {
        /// Slots asked for.
        got: usize,
        /// Most that are allowed.
        max: usize,
    },
    /// wasmtime refused the configuration, or the system the address space of the pool.
    #[error("failed to start the WebAssembly engine: {reason}")]
    Engine {
        /// What wasmtime says, causes included.
        reason: String,
    },
    /// The host's interfaces contradict each other.
    #[error("failed to link the host's interfaces: {reason}")]
    Link {
        /// What wasmtime says, causes included.
        reason: String,
    },
    /// The system gave no thread.
    #[error("failed to start the thread that interrupts guests")]
    Ticker {
        /// What the system says.
        source: std::io::Error,
    },
}

/// An engine with a pool for `slots` requests at once.
pub(crate) fn start(slots: usize, limits: &Limits) -> Result<WasmEngine, StartError> {
    let count = u32::try_from(slots)
        .ok()
        .filter(|_| (1..=SLOTS_MAX).contains(&slots))
        .ok_or(StartError::Slots {
            got: slots,
            max: SLOTS_MAX,
        })?;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count)
        .total_core_instances(count * (CORE_INSTANCES_MAX + STRICT_MAX) + PLANNING_MAX)
        .total_memories(count * (MEMORIES_MAX + STRICT_MAX) + PLANNING_MAX)
        .total_tables(count * (TABLES_MAX + STRICT_MAX) + PLANNING_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_memory_size(limits.memory_bytes_max.max(limits.strict_memory_bytes_max))
        .table_elements(limits.table_elements_max)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
    let mut config = Config::new();
    config
        .allocation_strategy(pool)
        .epoch_interruption(true)
        .max_wasm_stack(limits.stack_bytes_max)
        .cranelift_opt_level(OptLevel::Speed)
        // Failures name the trap; a backtrace into generated code helps nobody and costs time.
        .wasm_backtrace_max_frames(None)
        .generate_address_map(false)
        // A module gives the same answer on a device and on a relay.
        .relaxed_simd_deterministic(true)
        .wasm_memory64(false);
    WasmEngine::new(&config).map_err(|error| StartError::Engine {
        reason: format!("{error:#}"),
    })
}
