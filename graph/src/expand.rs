//! Writes operators that the engine lacks as nodes that it has.
//!
//! ONNX itself defines many operators as functions of others. Writing them out is the shortest correct
//! implementation, and the engine optimises what comes out like the rest of the graph.

mod arrange;
mod loss;
mod recurrent;
mod write;

use tract_onnx::pb::{GraphProto, NodeProto};

use self::write::Writer;
use super::{GraphError, NODES_MAX};

/// Replaces the nodes that are sums of others, those of inner graphs included.
pub(super) fn expand(graph: &mut GraphProto, opset: i64) -> Result<(), GraphError> {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                expand(inner, opset)?;
            }
        }
        let Some(expansion) = expansion(&node, opset) else {
            nodes.push(node);
            continue;
        };
        let mut writer = Writer::new(&node, opset);
        expansion(&node, &mut writer)?;
        nodes.extend(writer.into_nodes());
        if nodes.len() > NODES_MAX {
            return Err(GraphError::Nodes { got: nodes.len() });
        }
    }
    graph.node = nodes;
    Ok(())
}

type Expansion = fn(&NodeProto, &mut Writer) -> Result<(), GraphError>;

fn expansion(node: &NodeProto, opset: i64) -> Option<Expansion> {
    if !node.domain.is_empty() && node.domain != "ai.onnx" {
        return None;
    }
    match node.op_type.as_str() {
        "NegativeLogLikelihoodLoss" => Some(loss::negative_log_likelihood),
        "SoftmaxCrossEntropyLoss" => Some(loss::softmax_cross_entropy),
        "Celu" => Some(arrange::celu),
        "Compress" => Some(arrange::compress),
        "DFT" if arrange::has_length(node) => Some(arrange::transform_of_length),
        "Pad" if node.input.len() > 2 => Some(|node, writer| {
            arrange::with_scalars(node, writer, &[2]);
            Ok(())
        }),
        "PRelu" if opset < 7 => Some(arrange::channel_relu),
        "QLinearMatMul" => Some(arrange::quantized_product),
        "Range" => Some(|node, writer| {
            arrange::with_scalars(node, writer, &[0, 1, 2]);
            Ok(())
        }),
        "RNN" | "GRU" | "LSTM" if recurrent::differs(node) => Some(recurrent::reverse),
        "SpaceToDepth" if arrange::is_column_row_depth(node) => Some(arrange::space_to_depth),
        "Swish" if arrange::has_slope(node) => Some(arrange::swish),
        _ => None,
    }
}
