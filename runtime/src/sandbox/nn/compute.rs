//! A run of a graph on behalf of a guest.

use tidegate_inference::{FailureKind, NamedTensor, Tensor};

use super::{ErrorCode, HostError, Outputs};
use crate::runnable::{Blame, RunnableGraph};
use crate::sandbox::Sandbox;

/// Runs a graph on what a guest gave, and hands the outputs to it.
pub(crate) fn compute(
    sandbox: &mut Sandbox,
    graph: &RunnableGraph,
    inputs: Vec<NamedTensor>,
) -> Result<Outputs, HostError> {
    sandbox.take_compute_failure();
    let inputs = in_order(graph, inputs)?;
    let outputs = graph
        .run(&inputs, &sandbox.budget)
        .map_err(|error| host_error(sandbox, graph.blame(&error), error.to_string()))?;
    drop(inputs);
    hand_over(sandbox, graph, outputs)
}

/// Gives the guest all outputs or none.
fn hand_over(
    sandbox: &mut Sandbox,
    graph: &RunnableGraph,
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
fn in_order(graph: &RunnableGraph, mut inputs: Vec<NamedTensor>) -> Result<Vec<Tensor>, HostError> {
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

/// What the guest is told. Unless it is to blame, the request fails so, whatever the guest makes of it.
fn host_error(sandbox: &mut Sandbox, blame: Blame, message: String) -> HostError {
    let (code, kind) = match blame {
        Blame::Guest => return HostError::new(ErrorCode::InvalidArgument, message),
        // The budget is over: the caller of this looks at it and stops the guest.
        Blame::Time => return HostError::new(ErrorCode::Timeout, message),
        Blame::Inputs => (ErrorCode::InvalidArgument, FailureKind::Invalid),
        Blame::Size => (ErrorCode::TooLarge, FailureKind::TooLarge),
        Blame::Graph => (ErrorCode::RuntimeError, FailureKind::Module),
        Blame::Host => (ErrorCode::RuntimeError, FailureKind::Internal),
    };
    sandbox.fail_compute(kind, &message);
    HostError::new(code, message)
}
