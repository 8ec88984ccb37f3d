//! Tensors between the engine's form and ours.
//!
//! The engine wants aligned memory of its own, so an input is copied once. An output is not: the
//! bytes of the reply are those that the engine wrote, kept alive by the tensor that owns them.

use std::sync::Arc;

use bytes::Bytes;
use half::bf16;
use tidegate_inference::{Dtype, Shape, Tensor, byte_elements};
use tract_onnx::prelude::tract_ndarray::ArrayD;
use tract_onnx::prelude::{DatumType, IntoArcTensor, TValue, Tensor as Native, TractResult};
use tract_onnx::tract_hir::internal::{bail, format_err};

/// Most elements of a string tensor that a graph takes; each costs the engine an allocation.
const STRINGS_MAX: usize = 1 << 20;

/// The engine's type for a dtype. Brain floats are computed with in 32 bits.
pub(super) fn native_type(dtype: Dtype) -> DatumType {
    match dtype {
        Dtype::Bool => DatumType::Bool,
        Dtype::Uint8 => DatumType::U8,
        Dtype::Uint16 => DatumType::U16,
        Dtype::Uint32 => DatumType::U32,
        Dtype::Uint64 => DatumType::U64,
        Dtype::Int8 => DatumType::I8,
        Dtype::Int16 => DatumType::I16,
        Dtype::Int32 => DatumType::I32,
        Dtype::Int64 => DatumType::I64,
        Dtype::Fp16 => DatumType::F16,
        Dtype::Bf16 | Dtype::Fp32 => DatumType::F32,
        Dtype::Fp64 => DatumType::F64,
        Dtype::Bytes => DatumType::String,
    }
}

/// The dtype in which replies carry one of the engine's types, if they do.
pub(super) fn dtype_of(native: DatumType) -> Option<Dtype> {
    match native {
        DatumType::Bool => Some(Dtype::Bool),
        DatumType::U8 | DatumType::QU8(_) => Some(Dtype::Uint8),
        DatumType::U16 => Some(Dtype::Uint16),
        DatumType::U32 => Some(Dtype::Uint32),
        DatumType::U64 => Some(Dtype::Uint64),
        DatumType::I8 | DatumType::QI8(_) => Some(Dtype::Int8),
        DatumType::I16 => Some(Dtype::Int16),
        DatumType::I32 | DatumType::QI32(_) => Some(Dtype::Int32),
        DatumType::I64 | DatumType::TDim => Some(Dtype::Int64),
        DatumType::F16 => Some(Dtype::Fp16),
        DatumType::F32 => Some(Dtype::Fp32),
        DatumType::F64 => Some(Dtype::Fp64),
        DatumType::String => Some(Dtype::Bytes),
        _ => None,
    }
}

/// The tensor in the engine's form. Strings must be UTF-8.
pub(super) fn to_native(tensor: &Tensor) -> TractResult<TValue> {
    let dtype = tensor.dtype();
    if dtype == Dtype::Bytes {
        if tensor.len() > STRINGS_MAX {
            bail!("more than {STRINGS_MAX} strings");
        }
        let elements = byte_elements(tensor.data())
            .map(|element| {
                let bytes = element.ok_or_else(|| format_err!("an element is cut off"))?;
                let text = std::str::from_utf8(bytes)
                    .map_err(|error| format_err!("an element is not UTF-8: {error}"))?;
                Ok(text.to_owned())
            })
            .collect::<TractResult<Vec<String>>>()?;
        let array = ArrayD::from_shape_vec(tensor.shape(), elements)?;
        return Ok(Native::from(array).into());
    }
    let mut native = Native::zero_dt(native_type(dtype), tensor.shape())?;
    if dtype == Dtype::Bf16 {
        let (elements, _) = tensor.data().as_chunks::<2>();
        let (wide, _) = native.as_bytes_mut().as_chunks_mut::<4>();
        for (wide, element) in wide.iter_mut().zip(elements) {
            *wide = bf16::from_le_bytes(*element).to_f32().to_le_bytes();
        }
    } else if !tensor.is_empty() {
        native.as_bytes_mut().copy_from_slice(tensor.data());
    }
    Ok(native.into())
}

/// The tensor in our form, sharing the engine's memory.
pub(super) fn from_native(value: TValue) -> TractResult<Tensor> {
    let shape = Shape::from_slice(value.shape());
    match value.datum_type() {
        // Shapes that the graph computes are symbolic expressions inside the engine.
        DatumType::TDim => {
            let numbers = value.cast_to::<i64>()?.into_owned();
            return from_native(numbers.into());
        }
        DatumType::String => return from_strings(&value, shape),
        _ => {}
    }
    let Some(dtype) = dtype_of(value.datum_type()) else {
        let other = value.datum_type();
        bail!("an output has the type {other:?}, which replies cannot carry");
    };
    if !value.is_plain_ram() {
        bail!("an output is not laid out as a plain array");
    }
    let data = if value.volume() == 0 {
        Bytes::new()
    } else {
        Bytes::from_owner(Owned(value.into_arc_tensor()))
    };
    Ok(Tensor::new(dtype, shape, data)?)
}

/// 32-bit floats as 16-bit brain floats, rounded to the nearest.
pub(super) fn to_bf16(tensor: Tensor) -> TractResult<Tensor> {
    if tensor.dtype() != Dtype::Fp32 {
        bail!("an output is {}, not BF16", tensor.dtype());
    }
    let (elements, _) = tensor.data().as_chunks::<4>();
    let round = |element: &[u8; 4]| bf16::from_f32(f32::from_le_bytes(*element)).to_le_bytes();
    let data: Vec<u8> = elements.iter().flat_map(round).collect();
    let shape = Shape::from_slice(tensor.shape());
    Ok(Tensor::new(Dtype::Bf16, shape, data.into())?)
}

fn from_strings(value: &TValue, shape: Shape) -> TractResult<Tensor> {
    let view = value.to_plain_array_view::<String>()?;
    let elements: Vec<&str> = view.iter().map(String::as_str).collect();
    let flat = Tensor::from_byte_elements(&elements);
    Ok(Tensor::new(Dtype::Bytes, shape, flat.data().clone())?)
}

/// Lends the bytes of the engine's tensor for as long as a reply needs them.
struct Owned(Arc<Native>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
