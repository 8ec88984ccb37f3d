//! The child's side: gives up all that it does not need, then prepares one graph and says how it went.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use bytes::Bytes;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, nice, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, setsid,
};
use rustix::thread::set_no_new_privs;
use rustix::time::{ClockId, clock_gettime};
use tidegate_graph::{Graph, GraphError, GraphLimits, PlanKey};
use tidegate_inference::{Shape, Tensor};

use super::{PlanTask, Report, Task, VET_ARGUMENT, Verdict};
use crate::cache::chain;

/// What the line with the report begins with; other lines are of no interest.
pub(super) const REPORT_PREFIX: &str = "tidegate-graph ";

/// Longest reason that is reported.
const REASON_CHARS_MAX: usize = 2048;

/// Most bytes of all values that decide shapes.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Open files: the standard streams, and what finding out about the processor opens for a moment.
const FILES_MAX: u64 = 16;

/// Address space beside the memory that may be used: the program's own, and what allocators reserve
/// for each thread without touching it.
const RESERVED_BYTES: u64 = 1 << 30;

/// How low the child's claim on the processor is, of 19: requests are served meanwhile.
const NICENESS: i32 = 10;

/// Exit code of a child that could not do what it was told.
const EXIT_UNABLE: u8 = 70;

/// Prepares a graph and gives the exit code, if that is what this process was started for. To be called
/// first in `main` of every program that vets graphs by itself.
#[must_use]
pub fn vet_graph_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != VET_ARGUMENT {
        return None;
    }
    let task = arguments.next().unwrap_or_default();
    Some(vet_graph(&task.to_string_lossy()))
}

/// Prepares the graph on standard input within the limits of `task`, and reports on standard output.
///
/// Limits this whole process for good: it is of no use for anything afterwards.
#[must_use]
pub fn vet_graph(task: &str) -> ExitCode {
    match try_vet(task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "cannot prepare a graph: {error}");
            EXIT_UNABLE.into()
        }
    }
}

fn try_vet(task: &str) -> io::Result<()> {
    let task: Task = serde_json::from_str(task)?;
    withdraw(&task)?;
    let mut onnx = Vec::with_capacity(task.onnx_bytes.min(tidegate_graph::ONNX_BYTES_MAX));
    // One byte more than a graph may have, so that reading it says so, and a little for values.
    let most = tidegate_graph::ONNX_BYTES_MAX as u64 + VALUE_BYTES_MAX;
    io::stdin().lock().take(most).read_to_end(&mut onnx)?;
    let values = onnx.split_off(task.onnx_bytes.min(onnx.len()));
    let limits = GraphLimits {
        tensor_bytes_max: task.tensor_bytes_max,
        plans_max: task.plans_max,
    };
    let made = match &task.plan {
        None => Graph::read(&onnx, limits).map(drop),
        Some(plan) => make(plan, &onnx, values.into(), limits),
    };
    let report = match made {
        Ok(()) => Report::Good(Verdict {
            peak_bytes: peak_bytes()?,
            cpu_micros: cpu_micros(),
        }),
        Err(error) => Report::Bad(chain(&error).chars().take(REASON_CHARS_MAX).collect()),
    };
    let json = serde_json::to_string(&report)?;
    let mut out = io::stdout().lock();
    writeln!(out, "\n{REPORT_PREFIX}{json}")?;
    out.flush()
}

/// Makes one plan of a graph. `values` are those of the plan, one behind the other.
fn make(
    plan: &PlanTask,
    onnx: &[u8],
    mut values: Bytes,
    limits: GraphLimits,
) -> Result<(), GraphError> {
    let graph = Graph::read_only(onnx, limits)?;
    let shapes: Vec<Shape> = plan
        .shapes
        .iter()
        .map(|shape| Shape::from_slice(shape))
        .collect();
    let mut fixed = Vec::new();
    for &(index, len) in &plan.values {
        let (Some(spec), Some(shape)) = (graph.inputs().get(index), shapes.get(index)) else {
            continue;
        };
        let data = values.split_to(len.min(values.len()));
        fixed.push((index, Tensor::new(spec.dtype, shape.clone(), data)?));
    }
    let values = fixed;
    graph.prepare_for(PlanKey { shapes, values })
}

/// Gives up what preparing a graph does not need. What only makes the child a better neighbour may fail;
/// a limit may not.
fn withdraw(task: &Task) -> io::Result<()> {
    let _ = setsid();
    let _ = nice(NICENESS);
    // Where memory ends, this process goes first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let seconds = task.cpu_seconds_max;
    let memory = task.memory_bytes_max;
    let limits = [
        (Resource::Core, 0, 0),
        (Resource::Fsize, 0, 0),
        (Resource::Nofile, FILES_MAX, FILES_MAX),
        // The first ends the process with a signal that tells the reason.
        (Resource::Cpu, seconds, seconds + 1),
        (Resource::Data, memory, memory),
        (
            Resource::As,
            memory.saturating_add(RESERVED_BYTES),
            memory.saturating_add(RESERVED_BYTES),
        ),
    ];
    for (resource, current, maximum) in limits {
        let limit = Rlimit {
            current: Some(current),
            maximum: Some(maximum),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Most memory that this process ever had resident.
fn peak_bytes() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .map(|kib| kib << 10)
        .ok_or_else(|| io::Error::other("/proc/self/status has no line VmHWM"))
}

/// Processor time that this process has taken, by all its threads.
fn cpu_micros() -> u64 {
    let taken = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(taken.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(taken.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000) + nanoseconds / 1000
}
