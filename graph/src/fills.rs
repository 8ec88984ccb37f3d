//! Refuses graphs that fill memory by a few bytes: a shape in the file, and a node that makes it real.
//!
//! The engine folds such nodes while it infers shapes, before there is a plan whose sizes could be
//! checked. So what a file asks for outright is looked at first.

use std::collections::HashMap;

use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

use super::{GraphError, shorten_name};

/// Refuses nodes that make a tensor of more elements than `bytes_max`, going by constants alone.
pub(super) fn check(graph: &GraphProto, bytes_max: usize) -> Result<(), GraphError> {
    let constants: HashMap<&str, &TensorProto> = graph
        .initializer
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .chain(graph.node.iter().filter_map(constant))
        .collect();
    for node in &graph.node {
        let operand = match node.op_type.as_str() {
            "ConstantOfShape" => 0,
            "Expand" | "Tile" => 1,
            _ => continue,
        };
        let Some(shape) = node
            .input
            .get(operand)
            .and_then(|name| constants.get(name.as_str()))
        else {
            continue;
        };
        let bytes = elements(shape);
        if bytes > bytes_max {
            return Err(GraphError::NodeTooLarge {
                node: shorten_name(&node.name),
                bytes,
                limit: bytes_max,
            });
        }
    }
    Ok(())
}

/// What a node of operator `Constant` makes, by the name of its output.
fn constant(node: &NodeProto) -> Option<(&str, &TensorProto)> {
    if node.op_type != "Constant" {
        return None;
    }
    let value = node.attribute.iter().find_map(|found| found.t.as_ref())?;
    Some((node.output.first()?.as_str(), value))
}

/// The product of a tensor of 64-bit extents, at one byte an element the least that it can take.
fn elements(shape: &TensorProto) -> usize {
    let (chunks, _) = shape.raw_data.as_chunks::<8>();
    let raw = chunks.iter().map(|chunk| i64::from_le_bytes(*chunk));
    shape
        .int64_data
        .iter()
        .copied()
        .chain(raw)
        .map(|extent| usize::try_from(extent).unwrap_or(1))
        .fold(1, usize::saturating_mul)
}
