//! Runs a plan, node by node, for as long as a budget lasts.
//!
//! Between nodes the deadline and the caller's interest are checked, so a run ends within the time of
//! one node. The size of a tensor whose shape is known only now, because an input's value decides it,
//! is checked before the node makes it, as far as the operator can tell.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tidegate_inference::Tensor;
use tract_onnx::prelude::{IntoArcTensor, TValue, TVec, TractResult};
use tract_onnx::tract_core::ops::array::Topk;
use tract_onnx::tract_core::plan::{EvalContext, SimpleState, eval};
use tract_onnx::tract_hir::internal::{TypedFact, TypedNode, bail, tvec};

use super::convert::{from_native, to_bf16, to_native};
use super::plan::tensor_bytes;
use super::{GraphError, Plan, panic_text, said, shorten_name};

/// Why a run gave no outputs. `S` says why a caller stops its runs.
#[derive(Debug, thiserror::Error)]
pub enum RunError<S> {
    /// The caller stopped it.
    #[error("{0}")]
    Stopped(S),
    /// An input cannot be brought into the engine's form.
    #[error("input {index}: {reason}")]
    Input {
        /// Its position in the graph's order.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// A tensor inside the graph would be larger than a limit, by the shape or value of an input.
    #[error(transparent)]
    TooLarge(GraphError),
    /// There is no plan for inputs of these shapes and values.
    #[error("the graph takes no inputs of these shapes: {0}")]
    Plan(GraphError),
    /// The engine failed.
    #[error("the graph failed: {reason}")]
    Failed {
        /// What tract says, causes included.
        reason: String,
    },
}

/// Why a caller stops its runs.
pub trait Stop: std::error::Error + Copy + Send + Sync + 'static {}

impl<S: std::error::Error + Copy + Send + Sync + 'static> Stop for S {}

impl Plan {
    /// Runs the plan on all inputs in the graph's order, those that the plan was made for. Before
    /// each node `check` is asked whether to go on.
    pub fn run<S: Stop>(
        &self,
        inputs: &[Tensor],
        check: impl Fn() -> Result<(), S>,
    ) -> Result<Vec<Tensor>, RunError<S>> {
        check().map_err(RunError::Stopped)?;
        let mut native: TVec<TValue> = tvec![];
        for &index in &self.fed {
            native.push(to_native(&inputs[index]).map_err(|error| RunError::Input {
                index,
                reason: said(&error),
            })?);
        }
        let run = || self.run_native(native, &check);
        let outputs = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| RunError::Failed {
            reason: format!("the engine panicked: {}", panic_text(&*panic)),
        })?;
        outputs.map_err(|error| {
            if let Some(stop) = error.downcast_ref::<S>() {
                return RunError::Stopped(*stop);
            }
            if let Some(refused) = error.downcast_ref::<GraphError>() {
                return RunError::TooLarge(refused.clone());
            }
            RunError::Failed {
                reason: said(&error),
            }
        })
    }

    fn run_native<S: Stop>(
        &self,
        inputs: TVec<TValue>,
        check: &impl Fn() -> Result<(), S>,
    ) -> TractResult<Vec<Tensor>> {
        let mut state = SimpleState::new(&self.simple)?;
        let outputs = state.run_plan_with_eval(inputs, |context, state, node, inputs| {
            check()?;
            check_operands(node, &inputs)?;
            self.check_size(context, node, &inputs)?;
            eval(context, state, node, inputs)
        })?;
        // What the run still holds is dropped first, so that outputs are not shared with it.
        drop(state);
        let rounded = self.rounded.iter().copied().chain(std::iter::repeat(false));
        outputs
            .into_iter()
            .zip(rounded)
            .map(|(output, rounded)| {
                let output = from_native(output)?;
                if rounded { to_bf16(output) } else { Ok(output) }
            })
            .collect()
    }

    fn check_size(
        &self,
        context: &EvalContext<'_>,
        node: &TypedNode,
        inputs: &[TValue],
    ) -> TractResult<()> {
        if node
            .outputs
            .iter()
            .all(|output| output.fact.shape.is_concrete())
        {
            return Ok(());
        }
        let known = |fact: &TypedFact| fact.shape.eval_to_usize(context.symbols).is_ok();
        let facts: TVec<TypedFact> = if node.outputs.iter().all(|output| known(&output.fact)) {
            node.outputs
                .iter()
                .map(|output| output.fact.clone())
                .collect()
        } else {
            let inputs: Vec<TypedFact> = inputs
                .iter()
                .map(|input| TypedFact::try_from(input.clone().into_arc_tensor()))
                .collect::<Result<_, _>>()?;
            let inputs: Vec<&TypedFact> = inputs.iter().collect();
            let Ok(facts) = node.op.output_facts(&inputs) else {
                return Ok(());
            };
            facts
        };
        for fact in &facts {
            let Ok(shape) = fact.shape.eval_to_usize(context.symbols) else {
                continue;
            };
            let (bytes, limit) = (tensor_bytes(fact, &shape), self.tensor_bytes_max);
            if bytes > limit {
                let node = shorten_name(&node.name);
                return Err(GraphError::NodeTooLarge { node, bytes, limit }.into());
            }
        }
        Ok(())
    }
}

/// Refuses operands that the engine would take for others without a word: more of the largest elements
/// than there are.
fn check_operands(node: &TypedNode, inputs: &[TValue]) -> TractResult<()> {
    if let Some(topk) = node.op_as::<Topk>() {
        let wanted = inputs[1].cast_to_scalar::<i64>()?;
        let there = inputs[0].shape()[topk.axis];
        if usize::try_from(wanted).map_or(true, |wanted| wanted > there) {
            bail!("TopK wants {wanted} of {there} elements");
        }
    }
    Ok(())
}
