//! Runs a plan for as long as a budget lasts.
//!
//! Between nodes the deadline and the caller's interest are checked, so a run ends within the time of
//! one node; a loop checks them between its rounds too. The size of a tensor whose shape is known only
//! now, because an input's value decides it, is checked before the node makes it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tidegate_inference::Tensor;
use tract_onnx::prelude::{TValue, TVec, TractError, TractResult};
use tract_onnx::tract_hir::internal::tvec;

use super::convert::{from_native, to_bf16, to_native};
use super::error::NodeError;
use super::scope::{self, GoesOn};
use super::{GraphError, Plan, panic_text, said};

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
    /// A value of the inputs leads a node to one that it cannot take: an index, a divisor, a step.
    #[error("the inputs give a node what it cannot take: {reason}")]
    Operand {
        /// Which node, and what is wrong.
        reason: String,
    },
    /// A tensor inside the graph would be larger than a limit, or all that are held at once, by the shape
    /// or value of an input.
    #[error(transparent)]
    TooLarge(GraphError),
    /// There is no plan for inputs of these shapes and values.
    #[error("the graph takes no inputs of these shapes: {0}")]
    Plan(GraphError),
    /// The engine failed.
    #[error("the graph failed: {reason}")]
    Failed {
        /// Which node, and what tract says, causes included.
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
        check: impl Fn() -> Result<(), S> + Send + Sync + 'static,
    ) -> Result<Vec<Tensor>, RunError<S>> {
        let check = Arc::new(check);
        self.run_while(inputs, &*check, &goes_on(&check))
    }

    /// Runs it while `goes_on` says so, which is what `check` does.
    pub(super) fn run_while<S: Stop>(
        &self,
        inputs: &[Tensor],
        check: &impl Fn() -> Result<(), S>,
        goes_on: &GoesOn,
    ) -> Result<Vec<Tensor>, RunError<S>> {
        check().map_err(RunError::Stopped)?;
        let mut native: TVec<TValue> = tvec![];
        for &index in &self.fed {
            native.push(to_native(&inputs[index]).map_err(|error| RunError::Input {
                index,
                reason: said(&error),
            })?);
        }
        let run = || scope::within(self.limits, goes_on, || self.run_native(native));
        let outputs = catch_unwind(AssertUnwindSafe(run)).map_err(|panic| RunError::Failed {
            reason: format!("the engine panicked: {}", panic_text(&*panic)),
        })?;
        outputs.map_err(|error| failure(&error, check))
    }

    fn run_native(&self, inputs: TVec<TValue>) -> TractResult<Vec<Tensor>> {
        let outputs = self.steps.run(inputs)?;
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
}

/// Whether a check passes, without why not.
pub(super) fn goes_on<S: Stop>(
    check: &Arc<impl Fn() -> Result<(), S> + Send + Sync + 'static>,
) -> GoesOn {
    let check = Arc::clone(check);
    Arc::new(move || check().is_ok())
}

fn failure<S: Stop>(error: &TractError, check: &impl Fn() -> Result<(), S>) -> RunError<S> {
    let ours = error.chain().find_map(|cause| cause.downcast_ref());
    match ours {
        Some(GraphError::Stopped) => {
            if let Err(stop) = check() {
                return RunError::Stopped(stop);
            }
        }
        Some(refused) => return RunError::TooLarge(GraphError::clone(refused)),
        None => {}
    }
    match NodeError::of(error) {
        Some(node) if node.is_of_operand => RunError::Operand {
            reason: node.to_string(),
        },
        Some(node) => RunError::Failed {
            reason: node.to_string(),
        },
        None => RunError::Failed {
            reason: said(error),
        },
    }
}
