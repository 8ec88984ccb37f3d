//! Tensor elements as JSON, both ways.
//!
//! Numbers must fit their type: an integer type takes no fraction and nothing outside its range.
//! 16-bit floats are rounded to nearest. NaN and the infinities, which JSON lacks, print as null.

use half::{bf16, f16};
use serde_json::{Number, Value};
use tidegate_inference::{Dtype, RANK_MAX, Shape, Tensor, byte_elements};

/// Why JSON is not the elements of a tensor.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum ValueError {
    /// Arrays of different lengths, or elements beside arrays.
    #[error("the arrays at depth {depth} differ in length or depth")]
    Ragged {
        /// Depth from the outermost array, which is 0.
        depth: usize,
    },
    /// Arrays nested too deeply.
    #[error("more than {RANK_MAX} nested arrays")]
    Rank,
    /// An element of another type, or out of its range.
    #[error("{element} is no {dtype}")]
    Element {
        /// The element, shortened.
        element: String,
        /// The type that it should have.
        dtype: Dtype,
    },
}

/// Shape and row-major, little-endian data of nested arrays.
pub(super) fn encode(dtype: Dtype, json: &Value) -> Result<(Shape, Vec<u8>), ValueError> {
    let mut shape = Shape::new();
    let mut inner = json;
    while let Value::Array(items) = inner {
        if shape.len() == RANK_MAX {
            return Err(ValueError::Rank);
        }
        shape.push(items.len());
        match items.first() {
            Some(first) => inner = first,
            None => break,
        }
    }
    let mut data = Vec::new();
    encode_axes(dtype, &shape, 0, json, &mut data)?;
    Ok((shape, data))
}

fn encode_axes(
    dtype: Dtype,
    shape: &[usize],
    depth: usize,
    json: &Value,
    data: &mut Vec<u8>,
) -> Result<(), ValueError> {
    match (json, shape.get(depth)) {
        (Value::Array(items), Some(extent)) if items.len() == *extent => items
            .iter()
            .try_for_each(|item| encode_axes(dtype, shape, depth + 1, item, data)),
        (Value::Array(_), _) | (_, Some(_)) => Err(ValueError::Ragged { depth }),
        (element, None) => push(dtype, element, data).ok_or_else(|| ValueError::Element {
            element: element.to_string().chars().take(40).collect(),
            dtype,
        }),
    }
}

/// Appends one element; `None` if it is not of the type.
fn push(dtype: Dtype, element: &Value, data: &mut Vec<u8>) -> Option<()> {
    macro_rules! integer {
        ($int:ty, $as:ident) => {
            data.extend(<$int>::try_from(element.$as()?).ok()?.to_le_bytes())
        };
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to FP32 is what is asked for"
    )]
    match dtype {
        Dtype::Bool => data.push(u8::from(element.as_bool()?)),
        Dtype::Uint8 => integer!(u8, as_u64),
        Dtype::Uint16 => integer!(u16, as_u64),
        Dtype::Uint32 => integer!(u32, as_u64),
        Dtype::Uint64 => integer!(u64, as_u64),
        Dtype::Int8 => integer!(i8, as_i64),
        Dtype::Int16 => integer!(i16, as_i64),
        Dtype::Int32 => integer!(i32, as_i64),
        Dtype::Int64 => integer!(i64, as_i64),
        Dtype::Fp16 => data.extend(f16::from_f64(element.as_f64()?).to_le_bytes()),
        Dtype::Bf16 => data.extend(bf16::from_f64(element.as_f64()?).to_le_bytes()),
        Dtype::Fp32 => data.extend((element.as_f64()? as f32).to_le_bytes()),
        Dtype::Fp64 => data.extend(element.as_f64()?.to_le_bytes()),
        Dtype::Bytes => {
            let text = element.as_str()?.as_bytes();
            data.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
            data.extend(text);
        }
    }
    Some(())
}

/// The first `elements_max` elements, in row-major order.
///
/// Byte strings that are not UTF-8 have the replacement character for what is not.
pub(super) fn decode(tensor: &Tensor, elements_max: usize) -> Vec<Value> {
    macro_rules! all {
        ($number:ty, $wrap:expr) => {{
            let (elements, _) = tensor.data().as_chunks::<{ size_of::<$number>() }>();
            let elements = elements.iter().take(elements_max);
            elements
                .map(|bytes| $wrap(<$number>::from_le_bytes(*bytes)))
                .collect()
        }};
    }
    let float = |value: f64| Number::from_f64(value).map_or(Value::Null, Value::Number);
    match tensor.dtype() {
        Dtype::Bool => all!(u8, |byte| Value::Bool(byte != 0)),
        Dtype::Uint8 => all!(u8, Value::from),
        Dtype::Uint16 => all!(u16, Value::from),
        Dtype::Uint32 => all!(u32, Value::from),
        Dtype::Uint64 => all!(u64, Value::from),
        Dtype::Int8 => all!(i8, Value::from),
        Dtype::Int16 => all!(i16, Value::from),
        Dtype::Int32 => all!(i32, Value::from),
        Dtype::Int64 => all!(i64, Value::from),
        Dtype::Fp16 => all!(f16, |value: f16| float(shortest(value.to_f32()))),
        Dtype::Bf16 => all!(bf16, |value: bf16| float(shortest(value.to_f32()))),
        Dtype::Fp32 => all!(f32, |value| float(shortest(value))),
        Dtype::Fp64 => all!(f64, float),
        Dtype::Bytes => byte_elements(tensor.data())
            .take(elements_max)
            .map(|bytes| Value::from(String::from_utf8_lossy(bytes.unwrap_or_default())))
            .collect(),
    }
}

/// The 64-bit number with the fewest digits that reads back as this one: 0.1, not 0.10000000149.
fn shortest(value: f32) -> f64 {
    value
        .to_string()
        .parse()
        .unwrap_or_else(|_| f64::from(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_reads_back_at_its_ends() {
        for (dtype, values) in [
            (Dtype::Bool, json!([true, false])),
            (Dtype::Uint8, json!([0, 255])),
            (Dtype::Uint16, json!([0, 65535])),
            (Dtype::Uint32, json!([0, 4294967295_u32])),
            (Dtype::Uint64, json!([0, u64::MAX])),
            (Dtype::Int8, json!([-128, 127])),
            (Dtype::Int16, json!([-32768, 32767])),
            (Dtype::Int32, json!([i32::MIN, i32::MAX])),
            (Dtype::Int64, json!([i64::MIN, i64::MAX])),
            (Dtype::Fp16, json!([0.5, -65504.0])),
            (Dtype::Bf16, json!([0.5, -2.0])),
            (Dtype::Fp32, json!([0.1, -1e-30])),
            (Dtype::Fp64, json!([0.1, -1e300])),
            (Dtype::Bytes, json!(["", "grüße"])),
        ] {
            let (shape, data) = encode(dtype, &values).unwrap();
            assert_eq!(shape[..], [2], "{dtype}");
            let tensor = Tensor::new(dtype, shape, data.into()).unwrap();
            assert_eq!(json!(decode(&tensor, 9)), values, "{dtype}");
            assert_eq!(decode(&tensor, 1).len(), 1, "{dtype}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (dtype, json) in [
            (Dtype::Uint8, json!(256)),
            (Dtype::Uint8, json!(-1)),
            (Dtype::Int8, json!(128)),
            (Dtype::Int32, json!(0.5)),
            (Dtype::Int64, json!(u64::MAX)),
            (Dtype::Bool, json!(1)),
            (Dtype::Fp32, json!("1")),
            (Dtype::Fp32, json!(null)),
            (Dtype::Bytes, json!(1)),
            (Dtype::Bytes, json!({"a": 1})),
        ] {
            let error = encode(dtype, &json).unwrap_err();
            assert!(
                matches!(error, ValueError::Element { .. }),
                "{dtype} {json}: {error}"
            );
        }
        for ragged in [
            json!([[1], [1, 2]]),
            json!([[1], 2]),
            json!([1, [2]]),
            json!([[], [1]]),
        ] {
            let error = encode(Dtype::Int32, &ragged).unwrap_err();
            assert!(
                matches!(error, ValueError::Ragged { .. }),
                "{ragged}: {error}"
            );
        }
        let deep = (0..=RANK_MAX).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(encode(Dtype::Int32, &deep), Err(ValueError::Rank));
    }

    #[test]
    fn arrays_are_the_shape() {
        let (shape, data) = encode(Dtype::Uint8, &json!([[1, 2, 3], [4, 5, 6]])).unwrap();
        assert_eq!(
            (&shape[..], &data[..]),
            (&[2, 3][..], &[1, 2, 3, 4, 5, 6][..])
        );
        assert_eq!(
            encode(Dtype::Uint8, &json!([[], []])).unwrap().0[..],
            [2, 0]
        );
        assert!(encode(Dtype::Uint8, &json!(7)).unwrap().0.is_empty());
    }

    #[test]
    fn what_json_cannot_say_is_null() {
        let data = [f32::NAN, f32::INFINITY].map(f32::to_le_bytes).concat();
        let tensor = Tensor::new(Dtype::Fp32, Shape::from_slice(&[2]), data.into()).unwrap();
        assert_eq!(decode(&tensor, 9), [Value::Null, Value::Null]);
    }
}
