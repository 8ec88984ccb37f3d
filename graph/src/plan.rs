//! Makes a plan of a graph: translate, infer, simplify, optimise.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidegate_inference::{Shape, TensorSpec};
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    InferenceFact, InferenceModel, InferenceModelExt, TractResult, TypedModel,
};
use tract_onnx::tract_core::plan::SimplePlan;
use tract_onnx::tract_hir::internal::{TypedFact, TypedOp};
use tract_onnx::tract_hir::ops::unimpl::UnimplementedOp;

use super::convert::native_type;
use super::{GraphError, ops, shorten_name};

/// A graph, ready to run on inputs of certain shapes.
#[derive(Debug)]
pub struct Plan {
    pub(super) simple: Arc<SimplePlan<TypedFact, Box<dyn TypedOp>>>,
    pub(super) tensor_bytes_max: usize,
}

/// Translates an ONNX graph into the engine's, which still has to infer its types and shapes.
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
    Ok(parsed.model)
}

impl Plan {
    /// Prepares `model` for inputs of these shapes. No tensor in it may exceed `tensor_bytes_max`.
    pub(super) fn new(
        model: &InferenceModel,
        inputs: &[TensorSpec],
        shapes: &[Shape],
        tensor_bytes_max: usize,
    ) -> Result<Self, GraphError> {
        let typed = infer(model, inputs, shapes)?;
        check_sizes(&typed, tensor_bytes_max)?;
        let simple = typed
            .into_optimized()
            .and_then(SimplePlan::new)
            .map_err(|error| GraphError::prepare(&error))?;
        check_sizes(simple.model(), tensor_bytes_max)?;
        Ok(Self {
            simple,
            tensor_bytes_max,
        })
    }
}

fn infer(
    model: &InferenceModel,
    inputs: &[TensorSpec],
    shapes: &[Shape],
) -> Result<TypedModel, GraphError> {
    let mut model = model.clone();
    for (index, (input, shape)) in inputs.iter().zip(shapes).enumerate() {
        let Some(datum_type) = native_type(input.dtype) else {
            return Err(GraphError::Value {
                place: "input",
                name: shorten_name(&input.name),
                reason: format!("the engine has no type for {}", input.dtype),
            });
        };
        let fact = InferenceFact::dt_shape(datum_type, shape.as_slice());
        model
            .set_input_fact(index, fact)
            .map_err(|error| GraphError::prepare(&error))?;
    }
    let typed: TractResult<TypedModel> = model.into_typed();
    typed.map_err(|error| GraphError::prepare(&error))
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

/// Bytes of a tensor of this type and shape, `usize::MAX` if they cannot be counted.
pub(super) fn tensor_bytes(fact: &TypedFact, shape: &[usize]) -> usize {
    shape
        .iter()
        .try_fold(fact.datum_type.size_of(), |bytes, extent| {
            bytes.checked_mul(*extent)
        })
        .unwrap_or(usize::MAX)
}
