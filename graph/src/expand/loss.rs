//! Losses of classifiers, for any number of axes behind the classes.
//!
//! Scores `[N, C, d...]` and labels `[N, d...]` are taken as `[N, C, D]` and `[N, 1, D]`, so that the
//! number of axes does not matter, and the losses get the labels' shape in the end.

use tract_onnx::pb::NodeProto;

use super::write::{Writer, integer};
use crate::{GraphError, shorten_name};

/// How the losses of a batch become the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

/// `NegativeLogLikelihoodLoss`.
pub(super) fn negative_log_likelihood(
    node: &NodeProto,
    writer: &mut Writer,
) -> Result<(), GraphError> {
    let [scores, labels, ..] = &node.input[..] else {
        return Err(refuse(node, "takes scores and labels"));
    };
    let scores = writer.reshape(scores, &[0, 0, -1]);
    loss(node, writer, &scores, labels)
}

/// `SoftmaxCrossEntropyLoss`: the same of the logarithms of the softmax, which it may give too.
pub(super) fn softmax_cross_entropy(
    node: &NodeProto,
    writer: &mut Writer,
) -> Result<(), GraphError> {
    let [scores, labels, ..] = &node.input[..] else {
        return Err(refuse(node, "takes scores and labels"));
    };
    let flat = writer.reshape(scores, &[0, 0, -1]);
    let largest = writer.reduce("ReduceMax", &flat, 1);
    let shifted = writer.node("Sub", &[&flat, &largest], vec![]);
    let powers = writer.node("Exp", &[&shifted], vec![]);
    let sum = writer.reduce("ReduceSum", &powers, 1);
    let logarithm = writer.node("Log", &[&sum], vec![]);
    let likelihoods = writer.node("Sub", &[&shifted, &logarithm], vec![]);
    if let Some(output) = node.output.get(1).filter(|name| !name.is_empty()) {
        let shape = writer.node("Shape", &[scores], vec![]);
        writer.node_to("Reshape", &[&likelihoods, &shape], vec![], output);
    }
    loss(node, writer, &likelihoods, labels)
}

/// Writes the loss of log-likelihoods `[N, C, D]`.
fn loss(
    node: &NodeProto,
    writer: &mut Writer,
    scores: &str,
    labels: &str,
) -> Result<(), GraphError> {
    let reduction = reduction(node)?;
    let Some(output) = node.output.first().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let flat = writer.reshape(labels, &[0, 1, -1]);
    let flat = writer.node("Cast", &[&flat], vec![integer("to", 7)]);
    let ignored = node
        .attribute
        .iter()
        .find(|found| found.name == "ignore_index");
    let mask = ignored.map(|ignored| {
        let value = writer.integer(ignored.i);
        writer.node("Equal", &[&flat, &value], vec![])
    });
    // An ignored label need not be a class, so another stands in for it.
    let classes = match &mask {
        Some(mask) => {
            let first = writer.integer(0);
            writer.node("Where", &[mask, &first, &flat], vec![])
        }
        None => flat,
    };
    let picked = writer.node(
        "GatherElements",
        &[scores, &classes],
        vec![integer("axis", 1)],
    );
    let mut losses = writer.node("Neg", &[&picked], vec![]);
    let weights = node.input.get(2).filter(|name| !name.is_empty());
    let mut weights = weights
        .map(|weights| writer.node("Gather", &[weights, &classes], vec![integer("axis", 0)]));
    if let Some(mask) = &mask {
        let zero = writer.float_like(0.0, &losses);
        let given = match weights {
            Some(weights) => weights,
            None => writer.float_like(1.0, &losses),
        };
        weights = Some(writer.node("Where", &[mask, &zero, &given], vec![]));
    }
    if let Some(weights) = &weights {
        losses = writer.node("Mul", &[&losses, weights], vec![]);
    }
    let keep = |writer: &mut Writer, values: &str| {
        writer.node("ReduceSum", &[values], vec![integer("keepdims", 0)])
    };
    match (reduction, weights) {
        (Reduction::None, _) => {
            let shape = writer.node("Shape", &[labels], vec![]);
            writer.node_to("Reshape", &[&losses, &shape], vec![], output);
        }
        (Reduction::Sum, _) => {
            let attributes = vec![integer("keepdims", 0)];
            writer.node_to("ReduceSum", &[&losses], attributes, output);
        }
        (Reduction::Mean, None) => {
            let attributes = vec![integer("keepdims", 0)];
            writer.node_to("ReduceMean", &[&losses], attributes, output);
        }
        (Reduction::Mean, Some(weights)) => {
            let sum = keep(writer, &losses);
            let total = keep(writer, &weights);
            writer.node_to("Div", &[&sum, &total], vec![], output);
        }
    }
    Ok(())
}

fn reduction(node: &NodeProto) -> Result<Reduction, GraphError> {
    let found = node
        .attribute
        .iter()
        .find(|found| found.name == "reduction");
    match found.map(|found| found.s.as_slice()) {
        None | Some(b"mean") => Ok(Reduction::Mean),
        Some(b"sum") => Ok(Reduction::Sum),
        Some(b"none") => Ok(Reduction::None),
        Some(_) => Err(refuse(node, "has an unknown reduction")),
    }
}

fn refuse(node: &NodeProto, what: &str) -> GraphError {
    let operator = &node.op_type;
    GraphError::Malformed {
        reason: format!("{operator} {:?} {what}", shorten_name(&node.name)),
    }
}
