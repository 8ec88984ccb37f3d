//! ZipMap gives a list of maps from labels to scores, which no tensor can hold.
//!
//! Its input is the same scores as a table, a row each, in the order of the labels. So a graph whose
//! output comes from a ZipMap is served with that table as the output: 32-bit floats of shape
//! `[rows, classes]`. The labels in their order stay in the file, in the attributes of the node.

use std::collections::HashMap;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Axis;
use tract_onnx::pb::type_proto::{Tensor, Value as Kind};
use tract_onnx::pb::{GraphProto, NodeProto, TensorShapeProto, TypeProto};

use super::DOMAIN;

/// Makes each ZipMap of the outermost graph pass its input on, and declares outputs that come from one
/// as what they then are.
pub(crate) fn pass_through(graph: &mut GraphProto) {
    let mut classes_of: HashMap<String, usize> = HashMap::new();
    for node in &mut graph.node {
        if node.op_type != "ZipMap" || node.domain != DOMAIN {
            continue;
        }
        let classes = classes(node);
        classes_of.extend(node.output.iter().map(|name| (name.clone(), classes)));
        "Identity".clone_into(&mut node.op_type);
        node.domain.clear();
    }
    for output in &mut graph.output {
        if let Some(classes) = classes_of.get(&output.name) {
            output.r#type = Some(table(*classes));
        }
    }
}

fn classes(node: &NodeProto) -> usize {
    let labels = node
        .attribute
        .iter()
        .filter_map(|found| match found.name.as_str() {
            "classlabels_int64s" => Some(found.ints.len()),
            "classlabels_strings" => Some(found.strings.len()),
            _ => None,
        });
    labels.max().unwrap_or(0)
}

fn table(classes: usize) -> TypeProto {
    let rows = Dimension::default();
    let columns = Dimension {
        value: i64::try_from(classes).ok().map(Axis::DimValue),
        ..Dimension::default()
    };
    TypeProto {
        value: Some(Kind::TensorType(Tensor {
            elem_type: DataType::Float.into(),
            shape: Some(TensorShapeProto {
                dim: vec![rows, columns],
            }),
        })),
        ..TypeProto::default()
    }
}
