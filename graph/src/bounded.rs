//! Keeps the engine from making huge tensors while it still infers shapes, and from going on for ever.
//!
//! The engine computes a node at once when all that it takes is known, and looks at the size of what came
//! out only then. A few bytes can ask for terabytes so: a shape, and a node that makes it real. This
//! wraps a node, infers what it would make, and refuses before it is made. It also looks whether there
//! is still time, holds the values that are known against what the node demands of them, and names the
//! node where it fails.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto};
use tract_onnx::prelude::{
    InferenceFact, InferenceModel, OutletId, TValue, TVec, TractResult, TypedModel,
};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::plan::EvalContext;
use tract_onnx::tract_hir::infer::{Factoid, InferenceModelPatch, InferenceOp};
use tract_onnx::tract_hir::internal::{
    DimLike, EvalOp, InferenceNode, Op, OpState, SpecialOps, StaticName, TypedOp, Validation, bail,
};

use super::error::NodeError;
use super::operands::{self, Demand, Known, NodeName};
use super::{GraphError, scope, shorten_name};

/// Wraps every node of `model` that computes anything. `graph` is what the model was read from.
pub(crate) fn wrap(model: &mut InferenceModel, graph: &GraphProto) {
    let makers: HashMap<&str, &NodeProto> = graph
        .node
        .iter()
        .flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node)))
        .collect();
    for id in 0..model.nodes.len() {
        let label = model.outlet_label(OutletId::new(id, 0));
        let maker = label.and_then(|label| makers.get(label)).copied();
        let node = &mut model.nodes[id];
        if InferenceModel::is_source(&node.op) || node.op_is::<Const>() {
            continue;
        }
        let operator = maker.map_or_else(
            || node.op.name().into_owned(),
            |maker| maker.op_type.clone(),
        );
        node.op = Box::new(Bounded {
            inner: node.op.clone(),
            node: NodeName {
                name: node.name.clone(),
                operator,
            },
            demands: maker.map(operands::of).unwrap_or_default(),
        });
    }
}

/// A node whose operands are looked at, and whose outputs are measured, before they are made.
#[derive(Clone, Debug)]
struct Bounded {
    inner: Box<dyn InferenceOp>,
    node: NodeName,
    demands: Vec<Demand>,
}

impl PartialEq for Bounded {
    fn eq(&self, _other: &Self) -> bool {
        false
    }
}

impl Eq for Bounded {}

impl Op for Bounded {
    fn name(&self) -> StaticName {
        self.inner.name()
    }

    fn validation(&self) -> Validation {
        self.inner.validation()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        self.inner.info()
    }

    fn as_typed(&self) -> Option<&dyn TypedOp> {
        self.inner.as_typed()
    }
}

impl EvalOp for Bounded {
    fn eval(&self, context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.inner.eval(context, inputs)
    }

    fn eval_out_of_plan(&self, inputs: TVec<TValue>) -> TractResult<Option<TVec<TValue>>> {
        self.inner.eval_out_of_plan(inputs)
    }

    fn state(&self, context: &EvalContext<'_>) -> TractResult<Option<Box<dyn OpState>>> {
        self.inner.state(context)
    }
}

impl InferenceOp for Bounded {
    fn infer(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(
        TVec<InferenceFact>,
        TVec<InferenceFact>,
        TVec<InferenceFact>,
    )> {
        scope::check()?;
        let known: Vec<Known> = inputs.iter().copied().map(Known::inferred).collect();
        for demand in &self.demands {
            demand
                .check(&known)
                .map_err(|reason| self.node.refuse_operand(reason))?;
        }
        let node = self.node.clone();
        NodeError::naming(&node.name, &node.operator, || {
            for input in &inputs {
                self.check(input)?;
            }
            if inputs.iter().all(|input| input.value.is_concrete()) {
                let inferred =
                    self.inner
                        .infer_facts(inputs.clone(), outputs.clone(), observed.clone());
                // What does not infer says so below, in the engine's own words.
                for output in inferred.iter().flat_map(|(_, outputs, _)| outputs) {
                    self.check(output)?;
                }
            }
            let inferred = self.inner.infer(inputs, outputs, observed)?;
            if self.node.operator == "Split" {
                self.check_split(&inferred.0[0], &inferred.1)?;
            }
            Ok(inferred)
        })
    }

    fn infer_facts(
        &mut self,
        inputs: TVec<&InferenceFact>,
        outputs: TVec<&InferenceFact>,
        observed: TVec<&InferenceFact>,
    ) -> TractResult<(
        TVec<InferenceFact>,
        TVec<InferenceFact>,
        TVec<InferenceFact>,
    )> {
        self.inner.infer_facts(inputs, outputs, observed)
    }

    fn observe_outlets(
        &self,
        model: &InferenceModel,
        node: &InferenceNode,
    ) -> TractResult<Vec<OutletId>> {
        self.inner.observe_outlets(model, node)
    }

    fn incorporate(
        &self,
        model: &InferenceModel,
        node: &InferenceNode,
    ) -> TractResult<Option<InferenceModelPatch>> {
        self.inner.incorporate(model, node)
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.inner.nboutputs()
    }

    fn as_op(&self) -> &dyn Op {
        self.inner.as_op()
    }

    fn as_op_mut(&mut self) -> &mut dyn Op {
        self.inner.as_op_mut()
    }

    fn to_typed(
        &self,
        source: &InferenceModel,
        node: &InferenceNode,
        target: &mut TypedModel,
        mapping: &HashMap<OutletId, OutletId>,
    ) -> TractResult<TVec<OutletId>> {
        scope::check()?;
        let inputs: Option<TVec<OutletId>> = node
            .inputs
            .iter()
            .map(|input| mapping.get(input).copied())
            .collect();
        let Some(inputs) = inputs else {
            let name = shorten_name(&self.node.name);
            bail!("node {name:?} takes what only a node after it makes");
        };
        let checked = operands::checked(&self.demands, &self.node, target, &inputs)?;
        let mapping = node.inputs.iter().copied().zip(checked).collect();
        NodeError::naming(&self.node.name, &self.node.operator, || {
            self.inner.to_typed(source, node, target, &mapping)
        })
    }
}

impl Bounded {
    /// Refuses to split an axis into parts that are not all of it: the engine would drop the rest.
    fn check_split(&self, whole: &InferenceFact, parts: &[InferenceFact]) -> TractResult<()> {
        let extents = |fact: &InferenceFact| operands::extents(&fact.shape.concretize()?);
        let Some(whole) = extents(whole) else {
            return Ok(());
        };
        let Some(parts) = parts.iter().map(extents).collect::<Option<Vec<_>>>() else {
            return Ok(());
        };
        let is_split = |axis: usize| {
            let sum: usize = parts.iter().map(|part| part[axis]).sum();
            sum == whole[axis]
        };
        let is_kept = |axis: usize| parts.iter().all(|part| part[axis] == whole[axis]);
        let others_kept = |split| (0..whole.len()).all(|axis| axis == split || is_kept(axis));
        if !(0..whole.len()).any(|axis| is_split(axis) && others_kept(axis)) {
            bail!("the parts are not all of the axis");
        }
        Ok(())
    }

    fn check(&self, output: &InferenceFact) -> TractResult<()> {
        let Some(shape) = output.shape.concretize() else {
            return Ok(());
        };
        let element = output.datum_type.concretize().map_or(1, |dt| dt.size_of());
        let bytes = shape
            .iter()
            .map(|extent| extent.to_usize().unwrap_or(1).max(1))
            .fold(element, usize::saturating_mul);
        let limit = scope::tensor_bytes_max();
        if bytes > limit {
            let node = shorten_name(&self.node.name);
            return Err(GraphError::NodeTooLarge { node, bytes, limit }.into());
        }
        Ok(())
    }
}
