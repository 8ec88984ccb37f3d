//! Computes with 16-bit brain floats in 32-bit floats, which hold each of them exactly.
//!
//! The engine has no such type. Every tensor of the type becomes one of 32-bit floats, a cast to the type
//! becomes a rounding, and what the graph gives is rounded once more where it leaves. Between those,
//! values keep more digits than the file asks for.

use half::bf16;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::type_proto::Value as Kind;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// The operator of ours that rounds 32-bit floats to the nearest brain floats.
pub(super) const ROUND: &str = "TidegateRoundToBf16";

/// Attributes that name an element type.
const TYPE_ATTRIBUTES: [&str; 4] = ["to", "dtype", "output_dtype", "output_datatype"];

/// Rewrites the graph, those inside it included.
pub(super) fn widen(graph: &mut GraphProto) {
    let values = graph.input.iter_mut().chain(&mut graph.output);
    values.chain(&mut graph.value_info).for_each(widen_value);
    graph.initializer.iter_mut().for_each(widen_tensor);
    graph.node.iter_mut().for_each(widen_node);
}

fn widen_node(node: &mut NodeProto) {
    for attribute in &mut node.attribute {
        let tensors = attribute.t.iter_mut().chain(&mut attribute.tensors);
        tensors.for_each(widen_tensor);
        let graphs = attribute.g.iter_mut().chain(&mut attribute.graphs);
        graphs.for_each(widen);
        if TYPE_ATTRIBUTES.contains(&attribute.name.as_str()) && is_bf16(attribute.i) {
            attribute.i = DataType::Float as i64;
            if node.op_type == "Cast" {
                ROUND.clone_into(&mut node.op_type);
            }
        }
    }
    if node.op_type == ROUND {
        node.attribute.clear();
    }
}

fn widen_value(value: &mut ValueInfoProto) {
    if let Some(Kind::TensorType(tensor)) =
        value.r#type.as_mut().and_then(|kind| kind.value.as_mut())
        && is_bf16(tensor.elem_type.into())
    {
        tensor.elem_type = DataType::Float.into();
    }
}

fn widen_tensor(tensor: &mut TensorProto) {
    if !is_bf16(tensor.data_type.into()) {
        return;
    }
    let (raw, _) = tensor.raw_data.as_chunks::<2>();
    let raw = raw.iter().map(|bytes| bf16::from_le_bytes(*bytes));
    // Where bytes are not raw, each element lies in the lower half of a 32-bit integer.
    let listed = tensor.int32_data.iter().map(|bits| {
        let [low, high, ..] = bits.to_le_bytes();
        bf16::from_le_bytes([low, high])
    });
    tensor.float_data = raw.chain(listed).map(bf16::to_f32).collect();
    tensor.raw_data = Vec::new();
    tensor.int32_data = Vec::new();
    tensor.data_type = DataType::Float.into();
}

fn is_bf16(data_type: i64) -> bool {
    data_type == DataType::Bfloat16 as i64
}
