//! ONNX graphs: what they take and give, and how they run.
//!
//! Everything that knows tract is in here. A [`Graph`] is read once per digest and shared; a plan is the
//! graph optimised for one set of input shapes. Reading and optimising happen outside the sandbox, on
//! bytes that may be anything: on a thread of their own with a deep stack, where a panic becomes a
//! [`GraphError`], and with every tensor's size checked before it is folded.

mod bf16;
mod bounded;
mod convert;
mod decisive;
mod describe;
mod error;
mod expand;
mod external;
mod fills;
mod fix;
mod functions;
mod given;
pub mod message;
mod nibbles;
mod normalise;
mod operands;
mod ops;
mod optimise;
mod plan;
mod plans;
mod run;
mod scope;
mod seal;
mod sequences;
mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message;
use tidegate_inference::{Shape, Tensor, TensorSpec};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::InferenceModel;

use self::decisive::DECISIVE_LEN_MAX;
pub use self::describe::describe;
pub use self::error::GraphError;
use self::error::said;
pub use self::fix::{FixError, fix};
pub use self::plan::{Plan, PlanKey};
use self::plans::Plans;
pub use self::run::{RunError, Stop};
use self::scope::GoesOn;

/// Largest ONNX file. The largest models that run well on an edge device's processor, some two hundred
/// million 32-bit weights, stay below it.
pub const ONNX_BYTES_MAX: usize = 1 << 30;

/// Most nodes at a graph's outermost level; large language models have some ten thousand.
pub const NODES_MAX: usize = 50_000;

/// Longest name of a symbolic axis, which tract parses as an expression, recursively.
const AXIS_BYTES_MAX: usize = 256;

/// Stack of a thread that reads or optimises a graph, which recurse over its structure.
#[cfg(not(target_family = "wasm"))]
const STACK_BYTES: usize = 64 << 20;

/// How much a graph may take.
#[derive(Clone, Copy, Debug)]
pub struct GraphLimits {
    /// Largest tensor inside a graph.
    pub tensor_bytes_max: usize,
    /// Plans kept for a graph with free axes.
    pub plans_max: usize,
}

impl GraphLimits {
    /// Most bytes of all tensors that one run holds at once, inputs and outputs included and weights not:
    /// two of the largest, since a node needs what it takes and what it makes.
    pub fn run_bytes_max(&self) -> usize {
        self.tensor_bytes_max.saturating_mul(2)
    }
}

/// Looks at a plan before it is made in this process, whatever its making would take.
pub trait VetPlan: std::fmt::Debug + Send + Sync {
    /// Whether it may be made. Blocks for as long as finding out takes.
    fn vet(&self, key: &PlanKey) -> Result<(), GraphError>;
}

/// A graph that has been read, with the plans made of it so far.
#[derive(Debug)]
pub struct Graph {
    source: Arc<Source>,
    outputs: Vec<String>,
    /// Positions of the inputs that may decide shapes by their values.
    decisive: Vec<usize>,
    /// Whether a plan needed those values. Then the next one is not tried without them.
    is_decided_by_values: AtomicBool,
    plans: Arc<Plans>,
    vet: Option<Arc<dyn VetPlan>>,
}

/// What plans are made of.
#[derive(Debug)]
struct Source {
    model: InferenceModel,
    inputs: Vec<TensorSpec>,
    /// For each output whether it leaves as 16-bit brain floats.
    rounded: Vec<bool>,
    limits: GraphLimits,
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
        let read = || {
            let mut proto = decode(onnx)?;
            let (inputs, outputs) = describe::interface(&proto)?;
            let rounded = describe::bf16_outputs(&proto);
            normalise::normalise(&mut proto)?;
            if let Some(graph) = &proto.graph {
                fills::check(graph, limits.tensor_bytes_max)?;
            }
            let graph = proto.graph.as_ref().ok_or(GraphError::NoGraph)?;
            let decisive = decisive::inputs(graph, &inputs);
            let source = Source {
                model: plan::translate(&proto)?,
                inputs,
                rounded,
                limits,
            };
            Ok(Self {
                source: Arc::new(source),
                outputs,
                decisive,
                is_decided_by_values: AtomicBool::new(false),
                plans: Arc::new(Plans::new(limits.plans_max)),
                vet: None,
            })
        };
        on_deep_stack(|| scope::within(limits, &scope::always(), read))
    }

    /// The same graph, whose plans for shapes that requests bring are looked at before they are made.
    #[must_use]
    pub fn vetting_plans(self, vet: Arc<dyn VetPlan>) -> Self {
        let vet = Some(vet);
        Self { vet, ..self }
    }

    /// Makes the plan of a graph that needs but one: no axis of its inputs is free, and no value of
    /// theirs is needed to tell a shape.
    pub fn prepare(&self) -> Result<(), GraphError> {
        let Some(shapes) = self.fixed_shapes() else {
            return Ok(());
        };
        let values = Vec::new();
        match self.prepare_for(PlanKey { shapes, values }) {
            // The values may be what is missing, and come with a request.
            Err(GraphError::Prepare { .. }) if !self.decisive.is_empty() => Ok(()),
            plan => plan.map(drop),
        }
    }

    /// Makes the plan for this key, and keeps it, without looking at it before.
    pub fn prepare_for(&self, key: PlanKey) -> Result<(), GraphError> {
        self.plan_by(key, None, &scope::always()).map(drop)
    }

    /// What it takes, in the order in which a plan wants it.
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.source.inputs
    }

    /// The names of what it gives.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// Whether the caller chooses a shape, by a free axis or by the value of an input.
    pub fn has_free_axes(&self) -> bool {
        self.fixed_shapes().is_none() || !self.decisive.is_empty()
    }

    fn fixed_shapes(&self) -> Option<Vec<Shape>> {
        let extent = |extent: &i64| usize::try_from(*extent).ok();
        self.source
            .inputs
            .iter()
            .map(|input| input.shape.iter().map(extent).collect())
            .collect()
    }

    /// The plan for inputs of these shapes, made now if it is not there. Where shapes alone make no plan,
    /// it is one for the values of the inputs that decide shapes too. Of several threads that want the same
    /// plan one makes it and the others wait for it.
    ///
    /// `inputs` are in the graph's order.
    pub fn plan(&self, inputs: &[Tensor]) -> Result<Arc<Plan>, GraphError> {
        self.plan_while(inputs, &scope::always())
    }

    /// The same, waited for as long as it goes on.
    fn plan_while(&self, inputs: &[Tensor], goes_on: &GoesOn) -> Result<Arc<Plan>, GraphError> {
        for index in &self.decisive {
            decisive::check(&self.source.inputs[*index], &inputs[*index])?;
        }
        let shapes: Vec<Shape> = inputs
            .iter()
            .map(|input| Shape::from_slice(input.shape()))
            .collect();
        if !self.is_decided_by_values.load(Ordering::Relaxed) {
            let key = PlanKey {
                shapes: shapes.clone(),
                values: Vec::new(),
            };
            match self.plan_for(key, goes_on) {
                Err(GraphError::Prepare { .. }) if !self.decisive.is_empty() => {}
                plan => return plan,
            }
        }
        let is_small = |index: &&usize| inputs[**index].len() <= DECISIVE_LEN_MAX;
        let values = self.decisive.iter().filter(is_small).map(|index| {
            // The input may be a slice of a whole request, which the plan shall not keep.
            (*index, inputs[*index].detached())
        });
        let key = PlanKey {
            shapes,
            values: values.collect(),
        };
        let plan = self.plan_for(key, goes_on);
        match plan {
            Ok(_) => self.is_decided_by_values.store(true, Ordering::Relaxed),
            Err(GraphError::Prepare { reason }) => {
                let large = |index: &&usize| !is_small(index);
                return Err(match self.decisive.iter().find(large) {
                    Some(index) => GraphError::Decisive {
                        name: shorten_name(&self.source.inputs[*index].name),
                        got: inputs[*index].len(),
                        reason,
                    },
                    None => GraphError::Prepare { reason },
                });
            }
            Err(_) => {}
        }
        plan
    }

    /// Runs the graph on inputs in its order, with the plan that they need. Before each node, and while it
    /// waits for the plan, `check` is asked whether to go on.
    pub fn run<S: Stop>(
        &self,
        inputs: &[Tensor],
        check: impl Fn() -> Result<(), S> + Send + Sync + 'static,
    ) -> Result<Vec<Tensor>, RunError<S>> {
        let check = Arc::new(check);
        let goes_on = run::goes_on(&check);
        loop {
            check().map_err(RunError::Stopped)?;
            let plan = self.plan_while(inputs, &goes_on);
            check().map_err(RunError::Stopped)?;
            let plan = plan.map_err(RunError::Plan)?;
            let outputs = plan.run_while(inputs, &*check, &goes_on);
            // The engine may plan around a shape that it does not know and then not find its way.
            if let Err(RunError::Failed { .. }) = outputs
                && plan.is_by_shapes_alone()
                && !self.decisive.is_empty()
                && !self.is_decided_by_values.swap(true, Ordering::Relaxed)
            {
                continue;
            }
            return outputs;
        }
    }

    fn plan_for(&self, key: PlanKey, goes_on: &GoesOn) -> Result<Arc<Plan>, GraphError> {
        self.plan_by(key, self.vet.clone(), goes_on)
    }

    fn plan_by(
        &self,
        key: PlanKey,
        vet: Option<Arc<dyn VetPlan>>,
        goes_on: &GoesOn,
    ) -> Result<Arc<Plan>, GraphError> {
        let source = Arc::clone(&self.source);
        self.plans.get(key, goes_on, move |key| {
            if let Some(vet) = vet {
                vet.vet(key)?;
            }
            let make = || Plan::new(&source.model, &source.inputs, key, source.limits);
            let plan = scope::within(source.limits, &scope::always(), make)?;
            Ok(Arc::new(plan.rounding(&source.rounded)))
        })
    }
}

/// Decodes an ONNX file and checks what could make later steps run away.
fn decode(onnx: &[u8]) -> Result<ModelProto, GraphError> {
    if onnx.len() > ONNX_BYTES_MAX {
        return Err(GraphError::TooLarge);
    }
    let mut proto = ModelProto::decode(onnx).map_err(|source| GraphError::NotOnnx { source })?;
    let graph = proto.graph.as_mut().ok_or(GraphError::NoGraph)?;
    let got = graph.node.len();
    if got > NODES_MAX {
        return Err(GraphError::Nodes { got });
    }
    external::check(graph)?;
    describe::check_axis_names(graph)?;
    ops::pass_zip_maps(graph);
    Ok(proto)
}

/// Runs a step of tract where its recursion does not hurt: the sandbox gives a guest a deep stack, and
/// contains its panics.
#[cfg(target_family = "wasm")]
fn on_deep_stack<T: Send>(
    step: impl FnOnce() -> Result<T, GraphError> + Send,
) -> Result<T, GraphError> {
    step()
}

/// Runs a step of tract where neither its recursion nor its panics hurt.
#[cfg(not(target_family = "wasm"))]
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
            .unwrap_or_else(|panic| Err(panicked(&*panic)))
    })
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> GraphError {
    let reason = format!("the engine panicked: {}", panic_text(panic));
    GraphError::Prepare { reason }
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
