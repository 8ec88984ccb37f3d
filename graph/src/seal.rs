//! Keeps the engine from moving nodes past others where what comes out is then wrong.
//!
//! It takes a broadcast away before a product that sums over the axis that was made longer, and moves a
//! slice with a step in front of what is computed over the same axis, a softmax for example.

use tract_onnx::pb::{GraphProto, NodeProto};

use super::sequences;

/// The operator of a node through which nothing is moved.
pub(crate) const OPERATOR: &str = "tidegate.Seal";

/// Puts seals behind what makes an axis longer, and before what takes each so many of one.
pub(super) fn seal(graph: &mut GraphProto) {
    let constants = sequences::constants(graph);
    let is_contiguous = |steps: &String| {
        let known = constants.get(steps);
        known.is_some_and(|steps| steps.iter().all(|step| step.unsigned_abs() == 1))
    };
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        for attribute in &mut node.attribute {
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                seal(inner);
            }
        }
        let has_step = |node: &NodeProto| {
            let steps = node.input.get(4).filter(|name| !name.is_empty());
            steps.is_some_and(|steps| !is_contiguous(steps))
        };
        match node.op_type.as_str() {
            "Expand" | "Tile" if node.domain.is_empty() && node.output.len() == 1 => {
                let output = std::mem::take(&mut node.output[0]);
                let open = format!("{output}/tidegate.open");
                node.output[0].clone_from(&open);
                nodes.push(node);
                nodes.push(sealed(open, output));
            }
            "Slice" if node.domain.is_empty() && has_step(&node) && !node.output.is_empty() => {
                let name = format!("{}/tidegate.sealed", node.output[0]);
                let data = std::mem::replace(&mut node.input[0], name.clone());
                nodes.push(sealed(data, name));
                nodes.push(node);
            }
            _ => nodes.push(node),
        }
    }
    graph.node = nodes;
}

fn sealed(input: String, output: String) -> NodeProto {
    NodeProto {
        name: format!("{output}/tidegate.seal"),
        op_type: OPERATOR.to_owned(),
        input: vec![input],
        output: vec![output],
        ..NodeProto::default()
    }
}
