//! A run of a graph on behalf of a guest.

use tidegate_inference::{FailureKind, NamedTensor, Tensor};

use super::{ErrorCode, HostError, Outputs};
use crate::budget::Stop;
use crate::sandbox::Sandbox;
use tidegate_graph::{Graph, GraphError, RunError};

/// Runs a graph on what a guest gave, and hands the outputs to it.
pub(crate) fn compute(
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
    hand_over(sandbox, graph, outputs)
}

/// Gives the guest all outputs or none.
fn hand_over(
    sandbox: &mut Sandbox,
    graph: &Graph,
    outputs: Vec<Tensor>,
) -> Result<Outputs, HostError> {
    let mut handles = Vec::with_capacity(outputs.len());
    for (name, output) in graph.outputs().iter().zip(outputs) {
        match sandbox.push_tensor(output) {
            Ok(handle) => handles.push((name.clone(), handle)),
            Err(refusal) => {
                for (_, handle) in handles {
                    sandbox
                        .take_tensor(handle)
                        .expect("the handle was made above");
                }
                return Err(refusal.into());
            }
        }
    }
    Ok(handles)
}

/// The inputs in the graph's order, each there once and of the type and shape that the graph takes.
fn in_order(graph: &Graph, mut inputs: Vec<NamedTensor>) -> Result<Vec<Tensor>, HostError> {
    let invalid = |message: String| HostError::new(ErrorCode::InvalidArgument, message);
    let mut ordered = Vec::with_capacity(graph.inputs().len());
    for (index, spec) in graph.inputs().iter().enumerate() {
        let name = &spec.name;
        let at = inputs
            .iter()
            .position(|input| input.name == *name)
            .or_else(|| {
                // Graphs of engines without names for inputs have them counted.
                let index = index.to_string();
                inputs.iter().position(|input| input.name == index)
            })
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
