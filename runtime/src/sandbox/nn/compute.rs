//! A run of a graph on behalf of a guest.

use tidegate_inference::{FailureKind, NamedTensor, Tensor};

use super::{ErrorCode, HostError, Outputs};
use crate::budget::Stop;
use crate::sandbox::Sandbox;
use tidegate_graph::{Graph, GraphError, RunError};

/// Runs a graph on what a guest gave, and hands the outputs to it.
pub(super) fn compute(
    sandbox: &mut Sandbox,
    graph: &Graph,
    inputs: Vec<NamedTensor>,
) -> Result<Outputs, HostError> {
    sandbox.take_compute_failure();
    let inputs = in_order(graph, inputs)?;
    let outputs = graph
        .run(&inputs, || sandbox.budget.check())
        .map_err(|error| run_error(sandbox, graph, &error))?;
    drop(inputs);
    graph
        .outputs()
        .iter()
        .zip(outputs)
        .map(|(name, output)| Ok((name.clone(), sandbox.push_tensor(output)?)))
        .collect()
}

/// The inputs in the graph's order, each there once and of the type and shape that the graph takes.
fn in_order(graph: &Graph, mut inputs: Vec<NamedTensor>) -> Result<Vec<Tensor>, HostError> {
    let invalid = |message: String| HostError::new(ErrorCode::InvalidArgument, message);
    let mut ordered = Vec::with_capacity(graph.inputs().len());
    for spec in graph.inputs() {
        let name = &spec.name;
        let at = inputs
            .iter()
            .position(|input| input.name == *name)
            .ok_or_else(|| invalid(format!("the graph's input {name:?} is missing")))?;
        let NamedTensor { tensor, .. } = inputs.swap_remove(at);
        if !spec.accepts(tensor.dtype(), tensor.shape()) {
            return Err(invalid(format!(
                "the graph's input {name:?} takes {} of shape {:?}, got {tensor:?}",
                spec.dtype, spec.shape
            )));
        }
        ordered.push(tensor);
    }
    match inputs.first() {
        Some(NamedTensor { name, .. }) => {
            let name: String = name.chars().take(128).collect();
            Err(invalid(format!("the graph has no further input {name:?}")))
        }
        None => Ok(ordered),
    }
}

/// Where the caller chose a shape, the engine may find out only in the run that it does not fit.
fn run_error(sandbox: &mut Sandbox, graph: &Graph, error: &RunError<Stop>) -> HostError {
    let message = error.to_string();
    match error {
        RunError::Input { .. } => HostError::new(ErrorCode::InvalidArgument, message),
        RunError::TooLarge(_) => {
            sandbox.fail_compute(FailureKind::TooLarge, &message);
            HostError::new(ErrorCode::TooLarge, message)
        }
        // A graph whose inputs leave nothing open was prepared when its module was loaded, so what
        // fails here is what the caller chose.
        RunError::Plan(error) => {
            let (code, kind) = match error {
                GraphError::NodeTooLarge { .. } => (ErrorCode::TooLarge, FailureKind::TooLarge),
                GraphError::Thread { .. } => (ErrorCode::RuntimeError, FailureKind::Internal),
                _ if graph.has_free_axes() => (ErrorCode::InvalidArgument, FailureKind::Invalid),
                _ => (ErrorCode::RuntimeError, FailureKind::Module),
            };
            sandbox.fail_compute(kind, &message);
            HostError::new(code, message)
        }
        RunError::Failed { .. } if graph.has_free_axes() => {
            sandbox.fail_compute(FailureKind::Invalid, &message);
            HostError::new(ErrorCode::InvalidArgument, message)
        }
        RunError::Failed { .. } => {
            sandbox.fail_compute(FailureKind::Module, &message);
            HostError::new(ErrorCode::RuntimeError, message)
        }
        // The budget is over: the caller of this looks at it and stops the guest.
        RunError::Stopped(Stop::DeadlineExceeded | Stop::Cancelled | Stop::TooLong) => {
            HostError::new(ErrorCode::Timeout, message)
        }
    }
}
