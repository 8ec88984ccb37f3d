//! The nodes of a plan, run one by one under the eyes of the scope.
//!
//! Before each node it is asked whether to go on, and what the node would make is measured, as far as its
//! operator can tell: each tensor by itself, and all that are held at once. A node that fails is named.

use std::sync::Arc;

use tract_onnx::prelude::{IntoArcTensor, TValue, TVec, TractResult, TypedModel};
use tract_onnx::tract_core::ops::array::Topk;
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::plan::{EvalContext, SimplePlan, SimpleState, eval};
use tract_onnx::tract_hir::internal::{TypedFact, TypedNode, TypedOp, tvec};

use super::error::NodeError;
use super::plan::tensor_bytes;
use super::scope::{self, Held};
use super::{GraphError, shorten_name};

/// A graph in the order in which its nodes are run.
#[derive(Debug)]
pub(crate) struct Steps {
    simple: Arc<SimplePlan<TypedFact, Box<dyn TypedOp>>>,
    /// For each node those whose outputs nobody wants after it.
    let_go: Vec<TVec<usize>>,
}

impl Steps {
    /// Puts a graph in order. Where all shapes are known, so is what a run holds at once.
    pub(crate) fn new(model: TypedModel) -> TractResult<Self> {
        let simple = SimplePlan::new(model)?;
        let model = simple.model();
        let mut last: Vec<Option<usize>> = vec![None; model.nodes.len()];
        for id in simple.order_without_consts() {
            for input in &model.node(*id).inputs {
                last[input.node] = Some(*id);
            }
        }
        for output in model.output_outlets()? {
            last[output.node] = None;
        }
        let mut let_go = vec![tvec![]; model.nodes.len()];
        for (id, last) in last.into_iter().enumerate() {
            if let Some(last) = last
                && !model.node(id).op_is::<Const>()
            {
                let_go[last].push(id);
            }
        }
        let steps = Self { simple, let_go };
        steps.check_held()?;
        Ok(steps)
    }

    pub(super) fn model(&self) -> &TypedModel {
        self.simple.model()
    }

    /// Refuses a graph whose run would hold too much at once, where that can be told beforehand.
    fn check_held(&self) -> Result<(), GraphError> {
        let model = self.simple.model();
        let mut held = Held::nothing();
        let mut sizes = vec![0; model.nodes.len()];
        for id in self.simple.order_without_consts() {
            let node = model.node(*id);
            let mut bytes = 0_usize;
            for output in &node.outputs {
                let Some(shape) = output.fact.shape.as_concrete() else {
                    return Ok(());
                };
                bytes = bytes.saturating_add(tensor_bytes(&output.fact, shape));
            }
            held.check(&node.name, bytes)?;
            self.count(&mut held, &mut sizes, node, bytes);
        }
        Ok(())
    }

    /// Counts what a node has made, and lets go of what nobody wants after it.
    fn count(&self, held: &mut Held, sizes: &mut [usize], node: &TypedNode, bytes: usize) {
        held.add(bytes);
        sizes[node.id] = bytes;
        for id in &self.let_go[node.id] {
            held.remove(std::mem::take(&mut sizes[*id]));
        }
    }

    pub(crate) fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let mut state = SimpleState::new(&self.simple)?;
        let mut held = Held::nothing();
        let mut sizes = vec![0; self.simple.model().nodes.len()];
        state.run_plan_with_eval(inputs, |context, state, node, inputs| {
            scope::check()?;
            check_operands(node, &inputs)?;
            held.check(&node.name, expected(context, node, &inputs)?)?;
            let outputs = NodeError::naming(&node.name, &node.op.name(), || {
                eval(context, state, node, inputs)
            })?;
            let made = outputs.iter().map(bytes_of);
            let bytes = made.fold(0_usize, usize::saturating_add);
            held.check(&node.name, bytes)?;
            self.count(&mut held, &mut sizes, node, bytes);
            TractResult::Ok(outputs)
        })
    }
}

fn bytes_of(value: &TValue) -> usize {
    value.volume().saturating_mul(value.datum_type().size_of())
}

/// Bytes of what a node will make, as far as can be told: too large a tensor is refused.
fn expected(context: &EvalContext<'_>, node: &TypedNode, inputs: &[TValue]) -> TractResult<usize> {
    let is_known = |fact: &TypedFact| fact.shape.eval_to_usize(context.symbols).is_ok();
    if node.outputs.iter().all(|output| is_known(&output.fact)) {
        return measure(
            context,
            node,
            node.outputs.iter().map(|output| &output.fact),
        );
    }
    let inputs: Vec<TypedFact> = inputs
        .iter()
        .map(|input| TypedFact::try_from(input.clone().into_arc_tensor()))
        .collect::<Result<_, _>>()?;
    match node.op.output_facts(&inputs.iter().collect::<TVec<_>>()) {
        Ok(facts) => measure(context, node, facts.iter()),
        Err(_) => Ok(0),
    }
}

fn measure<'a>(
    context: &EvalContext<'_>,
    node: &TypedNode,
    facts: impl Iterator<Item = &'a TypedFact>,
) -> TractResult<usize> {
    let limit = scope::tensor_bytes_max();
    let mut sum = 0_usize;
    for fact in facts {
        let Ok(shape) = fact.shape.eval_to_usize(context.symbols) else {
            continue;
        };
        let bytes = tensor_bytes(fact, &shape);
        if bytes > limit {
            let node = shorten_name(&node.name);
            return Err(GraphError::NodeTooLarge { node, bytes, limit }.into());
        }
        sum = sum.saturating_add(bytes);
    }
    Ok(sum)
}

/// Refuses more of the largest elements than there are, which the engine would make up without a word.
fn check_operands(node: &TypedNode, inputs: &[TValue]) -> TractResult<()> {
    if let Some(topk) = node.op_as::<Topk>() {
        let wanted = inputs[1].cast_to_scalar::<i64>()?;
        let there = inputs[0].shape()[topk.axis];
        if usize::try_from(wanted).map_or(true, |wanted| wanted > there) {
            let reason = format!("{wanted} of {there} elements are wanted");
            return Err(NodeError::operand(&node.name, "TopK", reason).into());
        }
    }
    Ok(())
}
