//! Prepares every graph in a child process first, so that no graph takes this process down.
//!
//! A graph comes from whoever made the module, and preparing it recurses, allocates and loops as the
//! graph says. A panic can be caught; an abort, an overflowing stack or the end of memory cannot. So a
//! child, which is this program again, does exactly what is then done here, under limits of memory and
//! time that the system enforces. Only a graph that the child got through is prepared in this process.
//!
//! The child reads the graph from its standard input and writes a line about it to its standard output. It
//! has no environment, no other files, a session of its own and the lowest claim on processor and memory;
//! it ends with its parent. Children run one at a time, so what one may take is what all may take.
//!
//! A graph with free axes is planned for the shapes that requests bring: a child makes each such plan first,
//! too, while the request waits for as long as its deadline lets it.

mod child;
mod plans;
mod process;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_graph::{GraphLimits, PlanKey};
use tidegate_inference::Digest;

pub use self::child::{vet_graph, vet_graph_if_asked};
pub(crate) use self::plans::PlanVetter;
use crate::cache::{Cache, EntryName, Kind};
use crate::module::sha256;

/// The first argument of a program that is to prepare a graph and do nothing else.
pub const VET_ARGUMENT: &str = "vet-graph";

/// Memory that preparing a graph may take unless an operator says otherwise: eight times the weights of
/// the largest models that run well on an edge device, whose preparation holds some three copies.
pub const GRAPH_MEMORY_BYTES_DEFAULT: u64 = 2 << 30;

/// Least memory for preparing graphs: the child's stacks and code take a part of it.
pub const GRAPH_MEMORY_BYTES_MIN: u64 = 256 << 20;

/// Most memory for preparing graphs.
pub const GRAPH_MEMORY_BYTES_MAX: u64 = 1 << 40;

/// Processor time that preparing a graph may take unless an operator says otherwise; the largest of the
/// models in `docs/benchmarks.md` takes two seconds.
pub const GRAPH_CPU_TIME_DEFAULT: Duration = Duration::from_secs(60);

/// Most processor time for preparing a graph, in seconds.
pub const GRAPH_CPU_SECONDS_MAX: u64 = 3600;

/// How many times the processor time the child may take by the clock, since others go first.
const CLOCK_PER_CPU: u32 = 4;

/// The child process that prepares graphs, and what it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vetting {
    /// The program, by an absolute path.
    pub program: PathBuf,
    /// What it is told before the task: it then calls [`vet_graph`] with its last argument.
    pub arguments: Vec<OsString>,
    /// Most memory of the child, in bytes.
    pub memory_bytes_max: u64,
    /// Most processor time of the child, at least a second. By the clock it may take four times as long.
    pub cpu_time_max: Duration,
}

impl Vetting {
    /// Vetting by this program, whose `main` has to begin with [`vet_graph_if_asked`].
    #[must_use]
    pub fn by_this_program() -> Self {
        Self {
            // The running image itself, even when its file has been replaced by an upgrade.
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec![VET_ARGUMENT.into()],
            memory_bytes_max: GRAPH_MEMORY_BYTES_DEFAULT,
            cpu_time_max: GRAPH_CPU_TIME_DEFAULT,
        }
    }
}

/// Why a graph was not let into this process.
#[derive(Debug, thiserror::Error)]
pub enum VetError {
    /// It cannot be prepared, for a reason that is its own.
    #[error("{reason}")]
    Refused {
        /// What is wrong with it.
        reason: String,
    },
    /// Preparing it took more memory than it may.
    #[error("graph preparation was killed: it wanted more than {bytes_max} bytes")]
    Memory {
        /// The limit.
        bytes_max: u64,
    },
    /// Preparing it took longer than it may.
    #[error("graph preparation was killed: it took more than {} s", limit.as_secs())]
    Time {
        /// The limit, of processor time or by the clock.
        limit: Duration,
    },
    /// It nests deeper than the stack.
    #[error("graph preparation was killed: it overflowed its stack")]
    Stack,
    /// The child ended otherwise, which no graph should bring about.
    #[error("graph preparation ended without an answer: {how}")]
    Died {
        /// How, and the last that it wrote.
        how: String,
    },
    /// There is no child to prepare graphs in, so none is prepared.
    #[error("cannot start the process that prepares graphs, {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What the child is to do, as its last argument.
#[derive(Debug, Serialize, Deserialize)]
struct Task {
    onnx_bytes: usize,
    /// The plan to make of the graph; else it is the one of its declared shapes, if they are fixed.
    plan: Option<PlanTask>,
    tensor_bytes_max: usize,
    plans_max: usize,
    memory_bytes_max: u64,
    cpu_seconds_max: u64,
}

/// A plan for shapes of a request. The values that are part of it stand behind the graph.
#[derive(Debug, Serialize, Deserialize)]
struct PlanTask {
    shapes: Vec<Vec<usize>>,
    /// Positions of the inputs whose values are given, and their bytes.
    values: Vec<(usize, usize)>,
}

impl PlanTask {
    fn of(key: &PlanKey) -> Self {
        Self {
            shapes: key.shapes.iter().map(|shape| shape.to_vec()).collect(),
            values: key
                .values
                .iter()
                .map(|(index, value)| (*index, value.data().len()))
                .collect(),
        }
    }
}

/// What the child says.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// The graph can be prepared.
    Good(Verdict),
    /// It cannot, for this reason.
    Bad(String),
}

/// What preparing a good graph took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Verdict {
    /// Most memory that was resident at once.
    peak_bytes: u64,
    /// Processor time.
    cpu_micros: u64,
}

/// Vets graphs, and remembers the good ones.
pub(crate) struct Vetter {
    vetting: Vetting,
    cache: Option<Arc<Cache>>,
    /// Held while a child runs.
    child: Mutex<()>,
}

impl fmt::Debug for Vetter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.vetting.fmt(f)
    }
}

impl Vetter {
    pub(crate) fn new(vetting: Vetting, cache: Option<Arc<Cache>>) -> Self {
        Self {
            vetting,
            cache,
            child: Mutex::default(),
        }
    }

    /// Whether this graph can be prepared here, by a verdict of an earlier start or by a child's work.
    pub(crate) fn vet(
        &self,
        onnx: &[u8],
        digest: Digest,
        limits: GraphLimits,
    ) -> Result<(), VetError> {
        let _one_child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.name(digest, limits);
        if let Some(verdict) = self.remembered(&name)
            && self.is_within(verdict)
        {
            return Ok(());
        }
        let verdict = self.run(onnx, limits, None, &[])?;
        tracing::debug!(
            graph = %digest,
            peak_bytes = verdict.peak_bytes,
            cpu_micros = verdict.cpu_micros,
            "a graph was prepared in a child process"
        );
        if let (Some(cache), Ok(payload)) = (&self.cache, serde_json::to_vec(&verdict)) {
            cache.put(&name, &payload);
        }
        Ok(())
    }

    /// Whether a plan of a graph can be made here, by a child's work. The values of its task come as they are.
    fn vet_plan(
        &self,
        onnx: &[u8],
        limits: GraphLimits,
        plan: PlanTask,
        values: &[&[u8]],
    ) -> Result<(), VetError> {
        let verdict = self.run(onnx, limits, Some(plan), values)?;
        tracing::debug!(
            peak_bytes = verdict.peak_bytes,
            cpu_micros = verdict.cpu_micros,
            "a plan was made in a child process"
        );
        Ok(())
    }

    fn run(
        &self,
        onnx: &[u8],
        limits: GraphLimits,
        plan: Option<PlanTask>,
        values: &[&[u8]],
    ) -> Result<Verdict, VetError> {
        let task = Task {
            onnx_bytes: onnx.len(),
            plan,
            tensor_bytes_max: limits.tensor_bytes_max,
            plans_max: limits.plans_max,
            memory_bytes_max: self.vetting.memory_bytes_max,
            cpu_seconds_max: self.vetting.cpu_time_max.as_secs().max(1),
        };
        let clock_max = self.vetting.cpu_time_max * CLOCK_PER_CPU;
        let input = [&[onnx], values].concat();
        process::run(&self.vetting, &task, &input, clock_max)
    }

    /// Whether reading this graph takes no process down. What a child refuses by itself it got through, so
    /// that reading the graph here gives the same reason, as an error of its own.
    pub(crate) fn survives(&self, onnx: &[u8], limits: GraphLimits) -> Result<(), VetError> {
        match self.vet(onnx, sha256(onnx), limits) {
            Ok(()) | Err(VetError::Refused { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn remembered(&self, name: &EntryName) -> Option<Verdict> {
        let entry = self.cache.as_ref()?.get(name)?;
        serde_json::from_slice(entry.payload()).ok()
    }

    /// Whether a verdict of an earlier start was reached within what may be taken now.
    fn is_within(&self, verdict: Verdict) -> bool {
        verdict.peak_bytes <= self.vetting.memory_bytes_max
            && Duration::from_micros(verdict.cpu_micros) <= self.vetting.cpu_time_max
    }

    /// A verdict holds for this graph, these limits and this program: its version, and the length and
    /// time of its file, which tell one build from another.
    fn name(&self, digest: Digest, limits: GraphLimits) -> EntryName {
        let program = self.vetting.program.metadata();
        let (len, seconds, nanoseconds) = program.map_or((0, 0, 0), |file| {
            (file.len(), file.mtime(), file.mtime_nsec())
        });
        let parts: [&[u8]; 7] = [
            env!("CARGO_PKG_VERSION").as_bytes(),
            &len.to_le_bytes(),
            &seconds.to_le_bytes(),
            &nanoseconds.to_le_bytes(),
            &limits.tensor_bytes_max.to_le_bytes(),
            &limits.plans_max.to_le_bytes(),
            &digest.0,
        ];
        EntryName::new(Kind::Verdict, &parts)
    }
}
