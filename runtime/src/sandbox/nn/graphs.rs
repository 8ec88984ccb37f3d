//! Where a guest's graphs come from: its host by name, or, where its host allows it, its own bytes.
//!
//! Graphs that guests bring are ONNX, whatever encoding they are said to have: guests that were
//! written for another engine run with their model converted. Such a graph is read through the same
//! limits as one of a module, after a child process got through it, and its bytes count against what the
//! guest may hold.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tidegate_graph::{Graph, GraphError, GraphLimits};

use super::{ErrorCode, HostError};
use crate::runnable::RunnableGraph;
use crate::sandbox::Terms;
use crate::vet::{PlanVetter, Vetter};

/// Most parts in which a guest hands over a graph. ONNX comes in one, OpenVINO's format in two.
pub(crate) const PARTS_MAX: usize = 16;

/// What guests may bring, and how much they hold.
#[derive(Debug)]
pub(crate) struct Brought {
    limits: GraphLimits,
    vetter: Option<Arc<Vetter>>,
    bytes_max: usize,
    bytes: AtomicUsize,
    /// The graph of the host that is given for one that is not ONNX.
    stand_in: Option<String>,
}

impl Brought {
    /// Nothing brought yet, of at most `bytes_max` bytes at once.
    pub(crate) fn new(
        limits: GraphLimits,
        vetter: Option<Arc<Vetter>>,
        bytes_max: usize,
        stand_in: Option<String>,
    ) -> Self {
        Self {
            limits,
            vetter,
            bytes_max,
            bytes: AtomicUsize::new(0),
            stand_in,
        }
    }

    /// Counts bytes for as long as the charge lives.
    fn charge(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        let add = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .ok()?;
        let to = Arc::clone(self);
        Some(Charge { to, bytes })
    }
}

/// Bytes of a graph that a guest brought.
struct Charge {
    to: Arc<Brought>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.to.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A graph that a guest has a handle of. It lives as long as any handle or context of it.
#[derive(Clone)]
pub(crate) struct HostGraph {
    graph: RunnableGraph,
    _charge: Option<Arc<Charge>>,
}

impl fmt::Debug for HostGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostGraph({:?})", self.graph.inputs())
    }
}

impl HostGraph {
    /// The graph itself.
    pub(crate) fn graph(&self) -> &RunnableGraph {
        &self.graph
    }
}

/// The graph that the host offers under this name.
pub(crate) fn by_name(terms: &Terms, name: &str) -> Result<HostGraph, HostError> {
    let found = terms.graphs.iter().find(|graph| graph.name == name);
    let found = found.ok_or_else(|| {
        let name: String = name.chars().take(128).collect();
        HostError::new(ErrorCode::NotFound, format!("there is no graph {name:?}"))
    })?;
    Ok(HostGraph {
        graph: found.graph.clone(),
        _charge: None,
    })
}

/// A graph of bytes that the guest brought, of which all but one part are empty.
pub(crate) fn load(
    terms: &Terms,
    brought: &Arc<Brought>,
    parts: &[&[u8]],
    encoding: &str,
) -> Result<HostGraph, HostError> {
    let mut whole = parts.iter().filter(|part| !part.is_empty());
    let error = match (whole.next(), whole.next()) {
        (Some(onnx), None) => match read(brought, onnx) {
            Err(error) if error.code == ErrorCode::InvalidEncoding => error,
            loaded => return loaded,
        },
        (Some(_), Some(_)) => HostError::new(
            ErrorCode::InvalidEncoding,
            "a graph comes in one part, as ONNX",
        ),
        (None, _) => HostError::new(ErrorCode::InvalidArgument, "the graph has no bytes"),
    };
    match &brought.stand_in {
        Some(name) => {
            terms.note(&format!(
                "the graph {name:?} stands in for one in {encoding}"
            ));
            by_name(terms, name)
        }
        None => Err(HostError {
            message: format!("{} (the guest says it is {encoding})", error.message),
            ..error
        }),
    }
}

fn read(brought: &Arc<Brought>, onnx: &[u8]) -> Result<HostGraph, HostError> {
    let charge = brought.charge(onnx.len()).ok_or_else(|| {
        let limit = brought.bytes_max;
        let message = format!("the graphs that the guest brought have more than {limit} bytes");
        HostError::new(ErrorCode::TooLarge, message)
    })?;
    if let Some(vetter) = &brought.vetter {
        vetter.survives(onnx, brought.limits).map_err(|error| {
            let message = format!("cannot use the graph: {error}");
            HostError::new(ErrorCode::RuntimeError, message)
        })?;
    }
    let mut graph = Graph::read(onnx, brought.limits)
        .map_err(|error| HostError::new(code(&error), format!("cannot use the graph: {error}")))?;
    if let Some(vetter) = &brought.vetter {
        let onnx = Bytes::copy_from_slice(onnx);
        graph = PlanVetter::watch(vetter, graph, onnx, brought.limits);
    }
    Ok(HostGraph {
        graph: RunnableGraph::Host(Arc::new(graph)),
        _charge: Some(Arc::new(charge)),
    })
}

fn code(error: &GraphError) -> ErrorCode {
    match error {
        GraphError::NotOnnx { .. } | GraphError::NoGraph => ErrorCode::InvalidEncoding,
        GraphError::TooLarge
        | GraphError::Nodes { .. }
        | GraphError::NodeTooLarge { .. }
        | GraphError::RunTooLarge { .. } => ErrorCode::TooLarge,
        GraphError::ExternalData { .. }
        | GraphError::Malformed { .. }
        | GraphError::Value { .. }
        | GraphError::Decisive { .. }
        | GraphError::Operand { .. }
        | GraphError::Tensor(_) => ErrorCode::InvalidArgument,
        GraphError::Operators { .. } => ErrorCode::UnsupportedOperation,
        GraphError::Stopped => ErrorCode::Timeout,
        GraphError::Prepare { .. } | GraphError::Thread { .. } => ErrorCode::RuntimeError,
    }
}

/// What a guest hears whose host offers graphs by name only.
pub(super) fn none_brought() -> HostError {
    let message = "a guest loads the graphs of its module by name and brings no others";
    HostError::new(ErrorCode::UnsupportedOperation, message)
}

/// What a guest hears that hands over more than [`PARTS_MAX`] parts.
pub(crate) fn too_many_parts() -> HostError {
    let message = format!("a graph comes in at most {PARTS_MAX} parts");
    HostError::new(ErrorCode::InvalidArgument, message)
}
