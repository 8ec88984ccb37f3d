//! ONNX graphs: what they take and give, and how they run.
//!
//! Everything that knows tract is in here. A [`Graph`] is read once per digest and shared; a plan is the
//! graph optimised for one set of input shapes. Reading and optimising happen outside the sandbox, on
//! bytes that may be anything: on a thread of their own with a deep stack, where a panic becomes a
//! [`GraphError`], and with every tensor's size checked before it is folded.

mod convert;
mod describe;
mod external;
mod fills;
mod ops;
mod plan;
mod run;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use prost::Message;
use tidegate_inference::{Shape, TensorError, TensorSpec};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{InferenceModel, TractError};

pub use self::describe::describe;
pub use self::plan::Plan;
pub use self::run::{RunError, Stop};

/// Largest ONNX file. The largest models that run well on an edge device's processor, some two hundred
/// million 32-bit weights, stay below it.
pub const ONNX_BYTES_MAX: usize = 1 << 30;

/// Most nodes at a graph's outermost level; large language models have some ten thousand.
pub const NODES_MAX: usize = 50_000;

/// Longest name of a symbolic axis, which tract parses as an expression, recursively.
const AXIS_BYTES_MAX: usize = 256;

/// Stack of a thread that reads or optimises a graph, which recurse over its structure.
const STACK_BYTES: usize = 64 << 20;

/// Why an ONNX file cannot be described, read or prepared.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    /// More than [`ONNX_BYTES_MAX`].
    #[error("the ONNX file has more than {ONNX_BYTES_MAX} bytes")]
    TooLarge,
    /// Not a serialised `ModelProto`.
    #[error("not an ONNX file")]
    NotOnnx {
        /// Where decoding failed.
        source: prost::DecodeError,
    },
    /// A `ModelProto` without a graph: empty, or something else that happens to decode.
    #[error("not an ONNX file: it holds no graph")]
    NoGraph,
    /// More than [`NODES_MAX`] nodes.
    #[error("the graph has {got} nodes, at most {NODES_MAX} are allowed")]
    Nodes {
        /// Nodes given.
        got: usize,
    },
    /// A tensor whose data lies in another file. No other file is ever read.
    #[error("tensor {tensor:?} has its data in another file: save the graph with its data inside")]
    ExternalData {
        /// The tensor.
        tensor: String,
    },
    /// An input or output that cannot be served.
    #[error("{place} {name:?}: {reason}")]
    Value {
        /// `input` or `output`.
        place: &'static str,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Operators that the engine does not have.
    #[error("operators {operators:?} are not implemented")]
    Operators {
        /// Each once.
        operators: Vec<String>,
    },
    /// The engine refuses the graph.
    #[error("the graph cannot be prepared: {reason}")]
    Prepare {
        /// What tract says, causes included.
        reason: String,
    },
    /// The system gave no thread to prepare the graph on.
    #[error("there is no thread to prepare the graph on: {reason}")]
    Thread {
        /// What the system says.
        reason: String,
    },
    /// A tensor inside the graph would be larger than a limit.
    #[error("node {node:?} makes a tensor of {bytes} bytes, at most {limit} are allowed")]
    NodeTooLarge {
        /// The node.
        node: String,
        /// Bytes of its output.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A tensor that the graph gives cannot be passed on.
    #[error("a tensor of the graph cannot be passed on")]
    Tensor(#[from] TensorError),
}

impl GraphError {
    fn prepare(error: &TractError) -> Self {
        let reason = said(error);
        Self::Prepare { reason }
    }
}

/// What the engine says, causes included. Each is cut by itself: the outer ones may print a whole node
/// or graph, and the innermost tells most.
fn said(error: &TractError) -> String {
    const CAUSES_MAX: usize = 8;
    let causes: Vec<String> = error
        .chain()
        .map(|cause| shorten(&cause.to_string()))
        .collect();
    match causes.split_at_checked(CAUSES_MAX) {
        Some((outer, [.., innermost])) => format!("{}: ...: {innermost}", outer.join(": ")),
        Some((_, [])) | None => causes.join(": "),
    }
}

/// How much a graph may take.
#[derive(Clone, Copy, Debug)]
pub struct GraphLimits {
    /// Largest tensor inside a graph.
    pub tensor_bytes_max: usize,
    /// Plans kept for a graph with free axes.
    pub plans_max: usize,
}

/// A graph that has been read, with the plans made of it so far.
#[derive(Debug)]
pub struct Graph {
    model: InferenceModel,
    inputs: Vec<TensorSpec>,
    outputs: Vec<String>,
    limits: GraphLimits,
    plans: Mutex<Vec<Entry>>,
}

/// A plan that is there or being made, for one set of input shapes.
#[derive(Clone, Debug)]
struct Entry {
    shapes: Vec<Shape>,
    plan: Arc<OnceLock<Result<Arc<Plan>, GraphError>>>,
}

impl Graph {
    /// Reads a graph, and prepares it as [`Graph::prepare`] does.
    pub fn read(onnx: &[u8], limits: GraphLimits) -> Result<Self, GraphError> {
        let graph = Self::read_only(onnx, limits)?;
        graph.prepare()?;
        Ok(graph)
    }

    /// Reads a graph and leaves preparing it to a later call, or to the first run, which waits for it.
    pub fn read_only(onnx: &[u8], limits: GraphLimits) -> Result<Self, GraphError> {
        on_deep_stack(|| {
            let proto = decode(onnx)?;
            if let Some(graph) = &proto.graph {
                fills::check(graph, limits.tensor_bytes_max)?;
            }
            let (inputs, outputs) = describe::interface(&proto)?;
            Ok(Self {
                model: plan::translate(&proto)?,
                inputs,
                outputs,
                limits,
                plans: Mutex::default(),
            })
        })
    }

    /// Makes the plan of a graph that needs but one: no axis of its inputs is free.
    pub fn prepare(&self) -> Result<(), GraphError> {
        match self.fixed_shapes() {
            Some(shapes) => self.plan(shapes).map(drop),
            None => Ok(()),
        }
    }

    /// What it takes, in the order in which a plan wants it.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    /// The names of what it gives.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Whether the caller chooses a shape.
    pub fn has_free_axes(&self) -> bool {
        self.fixed_shapes().is_none()
    }

    fn fixed_shapes(&self) -> Option<Vec<Shape>> {
        let extent = |extent: &i64| usize::try_from(*extent).ok();
        self.inputs
            .iter()
            .map(|input| input.shape.iter().map(extent).collect())
            .collect()
    }

    /// The plan for inputs of these shapes, made now if it is not there, which nothing interrupts. Of
    /// several threads that want the same plan one makes it and the others wait for it.
    pub fn plan(&self, shapes: Vec<Shape>) -> Result<Arc<Plan>, GraphError> {
        let entry = {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = match plans.iter().position(|entry| entry.shapes == shapes) {
                Some(at) => plans.remove(at),
                None => {
                    if plans.len() >= self.limits.plans_max.max(1) {
                        plans.remove(0);
                    }
                    let plan = Arc::default();
                    Entry { shapes, plan }
                }
            };
            plans.push(entry.clone());
            entry
        };
        let plan = entry
            .plan
            .get_or_init(|| {
                on_deep_stack(|| {
                    let limit = self.limits.tensor_bytes_max;
                    Plan::new(&self.model, &self.inputs, &entry.shapes, limit).map(Arc::new)
                })
            })
            .clone();
        if let Err(GraphError::Thread { .. }) = plan {
            // It says nothing of these shapes, so the next request tries again.
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            plans.retain(|other| !Arc::ptr_eq(&other.plan, &entry.plan));
        }
        plan
    }
}

/// Decodes an ONNX file and checks what could make later steps run away.
fn decode(onnx: &[u8]) -> Result<ModelProto, GraphError> {
    if onnx.len() > ONNX_BYTES_MAX {
        return Err(GraphError::TooLarge);
    }
    let proto = ModelProto::decode(onnx).map_err(|source| GraphError::NotOnnx { source })?;
    let graph = proto.graph.as_ref().ok_or(GraphError::NoGraph)?;
    let got = graph.node.len();
    if got > NODES_MAX {
        return Err(GraphError::Nodes { got });
    }
    external::check(graph)?;
    describe::check_axis_names(graph)?;
    Ok(proto)
}

/// Runs a step of tract where neither its recursion nor its panics hurt.
fn on_deep_stack<T: Send>(
    step: impl FnOnce() -> Result<T, GraphError> + Send,
) -> Result<T, GraphError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("tidegate-graph".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, step)
            .map_err(|error| GraphError::Thread {
                reason: error.to_string(),
            })?
            .join()
            .unwrap_or_else(|panic| {
                let reason = format!("the engine panicked: {}", panic_text(&*panic));
                Err(GraphError::Prepare { reason })
            })
    })
}

/// What a panic said.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    shorten(text.unwrap_or("no message"))
}

/// The beginning of a message that may hold a whole graph, on one line.
fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(CHARS_MAX) {
        Some((at, _)) => format!("{}...", line(&text[..at])),
        None => line(text),
    }
}

/// The beginning of a name that a file gives, which may have any length.
fn shorten_name(name: &str) -> String {
    name.chars().take(128).collect()
}
