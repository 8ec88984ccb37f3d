//! What an ONNX file says of its inputs and outputs.
//!
//! This reads the file's own declarations, so it also works for graphs that the engine cannot run.
//! An input that an initialiser fills is a constant, not an input. An axis that is symbolic, unknown
//! or negative is free: `-1`.

use std::collections::HashSet;

use tidegate_inference::{Dtype, TensorSpec};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Axis;
use tract_onnx::pb::type_proto::Value as Kind;
use tract_onnx::pb::{GraphProto, ModelProto, ValueInfoProto};

use super::{AXIS_BYTES_MAX, GraphError, decode, on_deep_stack, shorten_name};

/// Inputs and outputs of an ONNX model, in its order, with `-1` for free axes.
///
/// Fails on bytes that are not ONNX, and names the input or output that is not a tensor, has an
/// element type that requests cannot carry, or has no declared number of axes.
pub fn describe(onnx: &[u8]) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), GraphError> {
    on_deep_stack(|| {
        let proto = decode(onnx)?;
        let graph = proto.graph.as_ref().ok_or(GraphError::NoGraph)?;
        Ok((inputs(graph)?, specs("output", &graph.output)?))
    })
}

/// The inputs, and the names of the outputs, which need no declared shape to be run.
pub(super) fn interface(proto: &ModelProto) -> Result<(Vec<TensorSpec>, Vec<String>), GraphError> {
    let graph = proto.graph.as_ref().ok_or(GraphError::NoGraph)?;
    let outputs = graph.output.iter().map(|output| output.name.clone());
    Ok((inputs(graph)?, outputs.collect()))
}

/// For each output whether the file declares it as 16-bit brain floats.
pub(super) fn bf16_outputs(proto: &ModelProto) -> Vec<bool> {
    let outputs = proto.graph.iter().flat_map(|graph| &graph.output);
    outputs
        .map(|output| match kind(output) {
            Some(Kind::TensorType(tensor)) => dtype(tensor.elem_type) == Ok(Dtype::Bf16),
            _ => false,
        })
        .collect()
}

/// Refuses names of axes that are too long to be parsed.
pub(super) fn check_axis_names(graph: &GraphProto) -> Result<(), GraphError> {
    let values = [
        ("input", &graph.input),
        ("output", &graph.output),
        ("value", &graph.value_info),
    ];
    for (place, values) in values {
        for value in values {
            let Some(Kind::TensorType(tensor)) = kind(value) else {
                continue;
            };
            for axis in tensor.shape.iter().flat_map(|shape| &shape.dim) {
                if matches!(&axis.value, Some(Axis::DimParam(name)) if name.len() > AXIS_BYTES_MAX)
                {
                    return Err(refuse(place, value, "the name of an axis is too long"));
                }
            }
        }
    }
    Ok(())
}

fn inputs(graph: &GraphProto) -> Result<Vec<TensorSpec>, GraphError> {
    let constants: HashSet<&str> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.as_str())
        .chain(
            graph
                .sparse_initializer
                .iter()
                .filter_map(|sparse| Some(sparse.values.as_ref()?.name.as_str())),
        )
        .collect();
    graph
        .input
        .iter()
        .filter(|input| !constants.contains(input.name.as_str()))
        .map(|input| spec("input", input))
        .collect()
}

fn specs(place: &'static str, values: &[ValueInfoProto]) -> Result<Vec<TensorSpec>, GraphError> {
    values.iter().map(|value| spec(place, value)).collect()
}

fn spec(place: &'static str, value: &ValueInfoProto) -> Result<TensorSpec, GraphError> {
    let Some(Kind::TensorType(tensor)) = kind(value) else {
        return Err(refuse(place, value, "is not declared as a tensor"));
    };
    let Some(shape) = &tensor.shape else {
        return Err(refuse(place, value, "has no declared shape"));
    };
    let extent = |axis: &Option<Axis>| match axis {
        Some(Axis::DimValue(extent)) if *extent >= 0 => *extent,
        Some(Axis::DimValue(_) | Axis::DimParam(_)) | None => -1,
    };
    Ok(TensorSpec {
        name: value.name.clone(),
        dtype: dtype(tensor.elem_type)
            .map_err(|reason| refuse(place, value, &format!("has element type {reason}")))?,
        shape: shape.dim.iter().map(|axis| extent(&axis.value)).collect(),
    })
}

fn kind(value: &ValueInfoProto) -> Option<&Kind> {
    value.r#type.as_ref()?.value.as_ref()
}

fn refuse(place: &'static str, value: &ValueInfoProto, reason: &str) -> GraphError {
    GraphError::Value {
        place,
        name: shorten_name(&value.name),
        reason: reason.to_owned(),
    }
}

/// The dtype of an ONNX element type, or the name of one that requests cannot carry.
fn dtype(elem_type: i32) -> Result<Dtype, String> {
    let data_type = DataType::try_from(elem_type).map_err(|_| elem_type.to_string())?;
    match data_type {
        DataType::Bool => Ok(Dtype::Bool),
        DataType::Uint8 => Ok(Dtype::Uint8),
        DataType::Uint16 => Ok(Dtype::Uint16),
        DataType::Uint32 => Ok(Dtype::Uint32),
        DataType::Uint64 => Ok(Dtype::Uint64),
        DataType::Int8 => Ok(Dtype::Int8),
        DataType::Int16 => Ok(Dtype::Int16),
        DataType::Int32 => Ok(Dtype::Int32),
        DataType::Int64 => Ok(Dtype::Int64),
        DataType::Float16 => Ok(Dtype::Fp16),
        DataType::Bfloat16 => Ok(Dtype::Bf16),
        DataType::Float => Ok(Dtype::Fp32),
        DataType::Double => Ok(Dtype::Fp64),
        DataType::String => Ok(Dtype::Bytes),
        DataType::Undefined
        | DataType::Complex64
        | DataType::Complex128
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Uint4
        | DataType::Int4
        | DataType::Float4e2m1 => Err(data_type.as_str_name().to_owned()),
    }
}
