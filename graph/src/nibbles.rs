//! Weights of four bits, as generative models carry them, in eight.
//!
//! The engine has no such type. Two elements lie in a byte, the first in its lower half; each gets a byte of
//! its own, and what is computed from them stays the same. Nothing is rounded to four bits here, so an
//! operator that would is refused.

use std::collections::HashSet;

use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, TensorProto};

use super::GraphError;

/// Rewrites the initialisers and constants of the graph, those inside it included.
pub(super) fn widen(graph: &mut GraphProto) -> Result<(), GraphError> {
    let mut widened: HashSet<String> = HashSet::new();
    for tensor in &mut graph.initializer {
        if widen_tensor(tensor)? {
            widened.insert(tensor.name.clone());
        }
    }
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            if let Some(tensor) = &mut attribute.t
                && widen_tensor(tensor)?
            {
                widened.extend(node.output.first().cloned());
            }
            for inner in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                widen(inner)?;
            }
        }
    }
    let rounds = |name: Option<&String>| name.is_some_and(|name| widened.contains(name));
    let quantizes = graph.node.iter().any(|node| {
        (node.op_type == "QuantizeLinear" && rounds(node.input.get(2)))
            || (node.op_type == "CastLike" && rounds(node.input.get(1)))
    });
    if quantizes {
        let operators = vec!["QuantizeLinear to four bits".to_owned()];
        return Err(GraphError::Operators { operators });
    }
    Ok(())
}

/// Whether the tensor was one of four bits.
fn widen_tensor(tensor: &mut TensorProto) -> Result<bool, GraphError> {
    let data_type = match DataType::try_from(tensor.data_type) {
        Ok(DataType::Uint4) => DataType::Uint8,
        Ok(DataType::Int4) => DataType::Int8,
        _ => return Ok(false),
    };
    // Where bytes are not raw, each lies in the lowest part of a 32-bit integer.
    let listed = tensor
        .int32_data
        .iter()
        .map(|packed| packed.to_le_bytes()[0]);
    let packed: Vec<u8> = tensor.raw_data.iter().copied().chain(listed).collect();
    let wanted = tensor.dims.iter().try_fold(1_usize, |elements, extent| {
        elements.checked_mul(usize::try_from(*extent).ok()?)
    });
    let Some(wanted) = wanted.filter(|wanted| wanted.div_ceil(2) == packed.len()) else {
        let (name, got) = (super::shorten_name(&tensor.name), packed.len());
        let reason = format!("tensor {name:?} of four bits has {got} bytes");
        return Err(GraphError::Malformed { reason });
    };
    let halves = packed.iter().flat_map(|byte| [byte & 0xf, byte >> 4]);
    let extend = |half: u8| match data_type {
        // The upper of the four bits is the sign.
        DataType::Int8 if half > 7 => half | 0xf0,
        _ => half,
    };
    tensor.raw_data = halves.take(wanted).map(extend).collect();
    tensor.int32_data = Vec::new();
    tensor.data_type = data_type.into();
    Ok(true)
}
