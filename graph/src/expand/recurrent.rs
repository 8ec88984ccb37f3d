//! Recurrent layers that read their sequence from its end: the engine's read it from its beginning.
//!
//! The engine looks at the number of directions alone, and at no activation, clip or coupled gate. What
//! it would compute otherwise than the file says is refused.

use tract_onnx::pb::{AttributeProto, NodeProto};

use super::write::Writer;
use crate::{GraphError, shorten_name};

/// Whether a layer has to be rewritten or refused.
pub(super) fn differs(node: &NodeProto) -> bool {
    unread(node).is_some() || direction(node) == b"reverse"
}

/// Reverses what the layer takes, and what it gives.
pub(super) fn reverse(node: &NodeProto, writer: &mut Writer) -> Result<(), GraphError> {
    let operator = &node.op_type;
    if let Some(attribute) = unread(node) {
        let operators = vec![format!("{operator} with {}", shorten_name(&attribute.name))];
        return Err(GraphError::Operators { operators });
    }
    let [values, rest @ ..] = &node.input[..] else {
        return Ok(());
    };
    let is_batch_first = node
        .attribute
        .iter()
        .any(|found| found.name == "layout" && found.i == 1);
    let axis = i64::from(is_batch_first);
    let values = writer.reverse(values, axis);
    let mut forward = node.clone();
    forward.input = [vec![values], rest.to_vec()].concat();
    forward
        .attribute
        .retain(|attribute| attribute.name != "direction");
    let sequence = node.output.first().filter(|name| !name.is_empty()).cloned();
    if let Some(output) = &sequence {
        forward.output[0] = format!("{output}/tidegate.forward");
    }
    let made = forward.output.first().cloned().unwrap_or_default();
    writer.push(forward);
    if let Some(output) = sequence {
        writer.reverse_to(&made, axis, &output);
    }
    Ok(())
}

fn direction(node: &NodeProto) -> &[u8] {
    let found = node
        .attribute
        .iter()
        .find(|found| found.name == "direction");
    found.map_or(b"forward", |found| &found.s)
}

/// An attribute that the engine would not read and that changes what is computed.
fn unread(node: &NodeProto) -> Option<&AttributeProto> {
    let defaults: &[&str] = match node.op_type.as_str() {
        "RNN" => &["tanh"],
        "GRU" => &["sigmoid", "tanh"],
        _ => &["sigmoid", "tanh", "tanh"],
    };
    node.attribute
        .iter()
        .find(|attribute| match attribute.name.as_str() {
            "clip" | "activation_alpha" | "activation_beta" => true,
            "input_forget" => attribute.i != 0,
            "activations" => {
                let given = attribute
                    .strings
                    .iter()
                    .map(|name| name.to_ascii_lowercase());
                !given
                    .zip(defaults.iter().cycle())
                    .all(|(given, default)| given == default.as_bytes())
            }
            _ => false,
        })
}
