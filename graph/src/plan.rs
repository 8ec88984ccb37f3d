//! Makes a plan of a graph: translate, infer, simplify, optimise.

use std::collections::BTreeSet;

use tidegate_inference::{Shape, Tensor, TensorSpec};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    InferenceFact, InferenceModel, InferenceModelExt, IntoArcTensor, TractResult, TypedModel,
};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_hir::internal::TypedFact;
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use super::convert::{native_type, to_native};
use super::optimise::optimise;
use super::steps::Steps;
use super::{GraphError, GraphLimits, bounded, ops, shorten_name};

/// What a plan is made for: the shapes of all inputs, and the values of those that decide shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanKey {
    /// By position, in the graph's order.
    pub shapes: Vec<Shape>,
    /// With their positions.
    pub values: Vec<(usize, Tensor)>,
}

/// A graph, ready to run on inputs of certain shapes.
#[derive(Debug)]
pub struct Plan {
    /// Positions of the inputs that the plan takes; the values of the others are part of it.
    pub(super) fed: Vec<usize>,
    /// All inputs of the graph.
    inputs: usize,
    pub(super) steps: Steps,
    pub(super) limits: GraphLimits,
    /// For each output whether it leaves as 16-bit brain floats.
    pub(super) rounded: Vec<bool>,
}

/// Translates an ONNX graph into the engine's, which still has to infer its types and shapes.
///
/// No node in it makes a tensor above the scope's limit while that is done.
pub(super) fn translate(proto: &ModelProto) -> Result<InferenceModel, GraphError> {
    // The shapes that a file notes for inner values are hints, often with names for free axes that
    // contradict the shape that a request brings. The engine infers them from the inputs.
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    ops::register(&mut onnx.op_register);
    let parsed = onnx
        .parse(proto, None)
        .map_err(|error| GraphError::prepare(&error))?;
    if let Some(name) = parsed.unresolved_inputs.first() {
        let reason = format!(
            "no node, input or initialiser makes {:?}",
            shorten_name(name)
        );
        return Err(GraphError::Prepare { reason });
    }
    let operators: BTreeSet<_> = parsed
        .model
        .nodes
        .iter()
        .filter(|node| node.op_is::<UnimplementedOp>())
        .map(|node| {
            let name = node.op.name();
            let bare = name.strip_prefix("Unimplemented(");
            let bare = bare.and_then(|bare| bare.strip_suffix(')'));
            shorten_name(bare.unwrap_or(&name))
        })
        .collect();
    if !operators.is_empty() {
        let operators = operators.into_iter().take(16).collect();
        return Err(GraphError::Operators { operators });
    }
    let mut model = parsed.model;
    if let Some(graph) = &proto.graph {
        bounded::wrap(&mut model, graph);
    }
    Ok(model)
}

impl Plan {
    /// Prepares `model` for inputs of these shapes, some of them with these values, within `limits`.
    pub(super) fn new(
        model: &InferenceModel,
        inputs: &[TensorSpec],
        key: &PlanKey,
        limits: GraphLimits,
    ) -> Result<Self, GraphError> {
        let typed = infer(model, inputs, key)?;
        check_sizes(&typed, limits.tensor_bytes_max)?;
        let steps = optimise(typed)
            .and_then(Steps::new)
            .map_err(|error| GraphError::prepare(&error))?;
        check_sizes(steps.model(), limits.tensor_bytes_max)?;
        let is_fed = |index: &usize| key.values.iter().all(|(known, _)| known != index);
        Ok(Self {
            inputs: inputs.len(),
            fed: (0..inputs.len()).filter(is_fed).collect(),
            steps,
            limits,
            rounded: Vec::new(),
        })
    }

    /// Whether no value of an input is part of it.
    pub(super) fn is_by_shapes_alone(&self) -> bool {
        self.fed.len() == self.inputs
    }

    /// The same plan, with these outputs given as 16-bit brain floats.
    pub(super) fn rounding(self, rounded: &[bool]) -> Self {
        Self {
            rounded: rounded.to_vec(),
            ..self
        }
    }
}

fn infer(
    model: &InferenceModel,
    inputs: &[TensorSpec],
    key: &PlanKey,
) -> Result<TypedModel, GraphError> {
    let mut model = model.clone();
    for (index, (input, shape)) in inputs.iter().zip(&key.shapes).enumerate() {
        let fact = InferenceFact::dt_shape(native_type(input.dtype), shape.as_slice());
        model
            .set_input_fact(index, fact)
            .map_err(|error| GraphError::prepare(&error))?;
    }
    fix(&mut model, &key.values).map_err(|error| GraphError::prepare(&error))?;
    let typed: TractResult<TypedModel> = model.into_typed();
    typed.map_err(|error| GraphError::prepare(&error))
}

/// Makes constants of inputs whose values are known.
fn fix(model: &mut InferenceModel, values: &[(usize, Tensor)]) -> TractResult<()> {
    let mut outlets = model.input_outlets()?.to_vec();
    for (index, value) in values {
        let outlet = outlets[*index];
        let value = to_native(value)?.into_arc_tensor();
        let node = model.node_mut(outlet.node);
        node.outputs[0].fact = InferenceFact::from((*value).clone());
        node.op = Box::new(Const::new(value)?);
    }
    let known = |at: &usize| values.iter().any(|(index, _)| index == at);
    let mut at = 0..;
    outlets.retain(|_| at.next().is_none_or(|at| !known(&at)));
    model.set_input_outlets(&outlets)
}

/// Refuses a graph with a tensor above the limit, before constants are folded into such tensors.
fn check_sizes(model: &TypedModel, limit: usize) -> Result<(), GraphError> {
    for node in &model.nodes {
        for output in &node.outputs {
            let Some(shape) = output.fact.shape.as_concrete() else {
                continue;
            };
            let bytes = tensor_bytes(&output.fact, shape);
            if bytes > limit {
                let node = shorten_name(&node.name);
                return Err(GraphError::NodeTooLarge { node, bytes, limit });
            }
        }
    }
    Ok(())
}

/// Bytes of a tensor of this type and shape, `usize::MAX` if they cannot be counted. An extent of zero counts
/// as one: what goes over the other axes takes as long.
pub(super) fn tensor_bytes(fact: &TypedFact, shape: &[usize]) -> usize {
    shape
        .iter()
        .try_fold(fact.datum_type.size_of(), |bytes, extent| {
            bytes.checked_mul((*extent).max(1))
        })
        .unwrap_or(usize::MAX)
}
