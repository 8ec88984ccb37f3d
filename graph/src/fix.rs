//! Settles inputs for good: a value becomes part of the graph, a free axis gets its extent.
//!
//! A model that takes its sampling rate, or any batch size, is smaller and quicker once it is told that
//! there is one. What is settled disappears from what the graph asks of a request.

use std::collections::HashMap;

use prost::Message;
use serde_json::Value;
use tidegate_inference::{Dtype, TensorSpec};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Axis;
use tract_onnx::pb::type_proto::Value as Kind;
use tract_onnx::pb::{GraphProto, TensorProto, ValueInfoProto};

use super::{GraphError, decode, describe, on_deep_stack, shorten_name};

/// Most elements of a value that is written out by hand.
const ELEMENTS_MAX: usize = 1 << 16;

/// Why an input cannot be settled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FixError {
    /// The graph cannot be read.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// There is no such input, or it was settled before.
    #[error("the graph has no input {name:?}; its inputs are {known:?}")]
    NoInput {
        /// The name given.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The value is none of the input's type and shape.
    #[error(
        "{value:?} is no value of input {name:?}, which takes {dtype} of shape {shape:?}: {reason}"
    )]
    Value {
        /// The input.
        name: String,
        /// The value as it was written, shortened.
        value: String,
        /// The input's type.
        dtype: Dtype,
        /// The input's shape, `-1` for free axes.
        shape: Vec<i64>,
        /// What is wrong.
        reason: String,
    },
    /// The shape is none that the input takes.
    #[error("input {name:?} has shape {shape:?}, which {wanted:?} does not fit")]
    Shape {
        /// The input.
        name: String,
        /// Its shape, `-1` for free axes.
        shape: Vec<i64>,
        /// The shape given.
        wanted: Vec<i64>,
    },
}

/// The same ONNX file with some inputs settled: `constants` by name and value, `shapes` by name.
///
/// A value is written as JSON: a number, `true`, a text, or nested arrays of them; text that is no JSON
/// stands for itself where the input takes text. `-1` in a shape leaves an axis as it is. An axis that
/// has a name gets the same extent wherever the name occurs.
pub fn fix(
    onnx: &[u8],
    constants: &[(String, String)],
    shapes: &[(String, Vec<i64>)],
) -> Result<Vec<u8>, FixError> {
    let mut proto = on_deep_stack(|| decode(onnx))?;
    let (inputs, _) = describe::interface(&proto)?;
    let graph = proto.graph.as_mut().ok_or(GraphError::NoGraph)?;
    for (name, wanted) in shapes {
        fix_shape(graph, find(&inputs, name)?, wanted)?;
    }
    // Shapes may have changed what a value must be.
    let (inputs, _) = describe::interface(&proto)?;
    let graph = proto.graph.as_mut().ok_or(GraphError::NoGraph)?;
    for (name, text) in constants {
        let constant = constant(find(&inputs, name)?, text)?;
        let count = graph.input.len();
        graph.input.retain(|input| input.name != *name);
        if graph.input.len() == count {
            return Err(unknown(&inputs, name));
        }
        graph.initializer.push(constant);
    }
    Ok(proto.encode_to_vec())
}

fn find<'a>(inputs: &'a [TensorSpec], name: &str) -> Result<&'a TensorSpec, FixError> {
    let found = inputs.iter().find(|input| input.name == name);
    found.ok_or_else(|| unknown(inputs, name))
}

fn unknown(inputs: &[TensorSpec], name: &str) -> FixError {
    FixError::NoInput {
        name: shorten_name(name),
        known: inputs
            .iter()
            .map(|input| shorten_name(&input.name))
            .collect(),
    }
}

/// Gives the free axes of an input their extents, and every axis of the same names.
fn fix_shape(graph: &mut GraphProto, input: &TensorSpec, wanted: &[i64]) -> Result<(), FixError> {
    let fits =
        |(have, want): (&i64, &i64)| *want == -1 || (*want >= 0 && [-1, *want].contains(have));
    if input.shape.len() != wanted.len() || !input.shape.iter().zip(wanted).all(fits) {
        return Err(FixError::Shape {
            name: shorten_name(&input.name),
            shape: input.shape.clone(),
            wanted: wanted.to_vec(),
        });
    }
    let mut named: HashMap<String, i64> = HashMap::new();
    let is_input = |value: &&mut ValueInfoProto| value.name == input.name;
    for value in graph.input.iter_mut().filter(is_input) {
        for (axis, want) in axes(value).zip(wanted).filter(|(_, want)| **want >= 0) {
            if let Some(Axis::DimParam(name)) = axis
                && !name.is_empty()
            {
                named.insert(name.clone(), *want);
            }
            *axis = Some(Axis::DimValue(*want));
        }
    }
    let values = graph.input.iter_mut().chain(&mut graph.output);
    for axis in values.chain(&mut graph.value_info).flat_map(axes) {
        if let Some(Axis::DimParam(name)) = axis
            && let Some(extent) = named.get(name)
        {
            *axis = Some(Axis::DimValue(*extent));
        }
    }
    Ok(())
}

fn axes(value: &mut ValueInfoProto) -> impl Iterator<Item = &mut Option<Axis>> {
    let kind = value.r#type.as_mut().and_then(|kind| kind.value.as_mut());
    let shape = kind.and_then(|Kind::TensorType(tensor)| tensor.shape.as_mut());
    let axes = shape.into_iter().flat_map(|shape| &mut shape.dim);
    axes.map(|axis| &mut axis.value)
}

/// An initialiser of an input's name and type.
fn constant(input: &TensorSpec, text: &str) -> Result<TensorProto, FixError> {
    let refuse = |reason: String| FixError::Value {
        name: shorten_name(&input.name),
        value: text.chars().take(64).collect(),
        dtype: input.dtype,
        shape: input.shape.clone(),
        reason,
    };
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    let mut elements = Vec::new();
    let mut extents = Vec::new();
    flatten(&value, 0, &mut extents, &mut elements).map_err(&refuse)?;
    let free_or_one = |extent: &i64| *extent == 1 || *extent == -1;
    if extents.is_empty() && input.shape.iter().all(free_or_one) {
        // A lone number stands for a tensor of one element.
        extents = vec![1; input.shape.len()];
    }
    let fits = |(have, want): (&i64, &i64)| *have == -1 || have == want;
    if extents.len() != input.shape.len() || !input.shape.iter().zip(&extents).all(fits) {
        return Err(refuse(format!("it has the shape {extents:?}")));
    }
    let mut tensor = TensorProto {
        name: input.name.clone(),
        dims: extents,
        data_type: data_type(input.dtype).into(),
        ..TensorProto::default()
    };
    for element in elements {
        match (element, input.dtype) {
            (Value::String(text), Dtype::Bytes) => {
                tensor.string_data.push(text.clone().into_bytes())
            }
            (other, Dtype::Bytes) => return Err(refuse(format!("{other} is no text"))),
            (other, dtype) => {
                let bytes = bytes(other, dtype);
                let bytes = bytes.ok_or_else(|| refuse(format!("{other} is no {dtype}")))?;
                tensor.raw_data.extend(bytes);
            }
        }
    }
    Ok(tensor)
}

/// Walks nested arrays, which must be as long as each other on each level.
fn flatten<'a>(
    value: &'a Value,
    depth: usize,
    extents: &mut Vec<i64>,
    elements: &mut Vec<&'a Value>,
) -> Result<(), String> {
    let Value::Array(values) = value else {
        if depth < extents.len() {
            return Err("its arrays are nested unevenly".to_owned());
        }
        if elements.len() == ELEMENTS_MAX {
            return Err(format!("it has more than {ELEMENTS_MAX} elements"));
        }
        elements.push(value);
        return Ok(());
    };
    let extent = i64::try_from(values.len()).unwrap_or(i64::MAX);
    match extents.get(depth) {
        None if elements.is_empty() => extents.push(extent),
        Some(known) if *known == extent => {}
        Some(_) | None => return Err("its arrays are nested unevenly".to_owned()),
    }
    for value in values {
        flatten(value, depth + 1, extents, elements)?;
    }
    Ok(())
}

/// The little-endian bytes of one element, or `None` if the type does not have it.
fn bytes(value: &Value, dtype: Dtype) -> Option<Vec<u8>> {
    let float = || match value {
        Value::Number(number) => number.as_f64(),
        // JSON has no words for these.
        Value::String(text) => match text.as_str() {
            "nan" | "NaN" => Some(f64::NAN),
            "inf" | "Infinity" => Some(f64::INFINITY),
            "-inf" | "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    };
    let single = || {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding to the type is what is asked for"
        )]
        float().map(|value| value as f32)
    };
    macro_rules! integer {
        ($type:ty) => {{
            let number = value
                .as_i64()
                .map(i128::from)
                .or(value.as_u64().map(i128::from))?;
            <$type>::try_from(number).ok()?.to_le_bytes().to_vec()
        }};
    }
    Some(match dtype {
        Dtype::Bool => match (value, value.as_u64()) {
            (Value::Bool(value), _) => vec![u8::from(*value)],
            (_, Some(bit @ (0 | 1))) => vec![u8::from(bit == 1)],
            _ => return None,
        },
        Dtype::Uint8 => integer!(u8),
        Dtype::Uint16 => integer!(u16),
        Dtype::Uint32 => integer!(u32),
        Dtype::Uint64 => integer!(u64),
        Dtype::Int8 => integer!(i8),
        Dtype::Int16 => integer!(i16),
        Dtype::Int32 => integer!(i32),
        Dtype::Int64 => integer!(i64),
        Dtype::Fp16 => half::f16::from_f64(float()?).to_le_bytes().to_vec(),
        Dtype::Bf16 => half::bf16::from_f64(float()?).to_le_bytes().to_vec(),
        Dtype::Fp32 => single()?.to_le_bytes().to_vec(),
        Dtype::Fp64 => float()?.to_le_bytes().to_vec(),
        Dtype::Bytes => return None,
    })
}

fn data_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::Bool => DataType::Bool,
        Dtype::Uint8 => DataType::Uint8,
        Dtype::Uint16 => DataType::Uint16,
        Dtype::Uint32 => DataType::Uint32,
        Dtype::Uint64 => DataType::Uint64,
        Dtype::Int8 => DataType::Int8,
        Dtype::Int16 => DataType::Int16,
        Dtype::Int32 => DataType::Int32,
        Dtype::Int64 => DataType::Int64,
        Dtype::Fp16 => DataType::Float16,
        Dtype::Bf16 => DataType::Bfloat16,
        Dtype::Fp32 => DataType::Float,
        Dtype::Fp64 => DataType::Double,
        Dtype::Bytes => DataType::String,
    }
}
