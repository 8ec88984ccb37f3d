//! Writes the bytes of a tensor as flat JSON data.

use serde::ser::{Error as _, Serialize, SerializeSeq, Serializer};
use tidegate_inference::{Dtype, Tensor, byte_elements};

use super::{INFINITY, NAN, NEGATIVE_INFINITY, NoJsonForm};

/// Writes a tensor as flat JSON `data`. Fails for what has no JSON form, saying so.
pub(crate) struct JsonData<'a>(pub(crate) &'a Tensor);

impl Serialize for JsonData<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.0.data();
        match self.0.dtype() {
            Dtype::Bool => serializer.collect_seq(data.iter().map(|byte| *byte == 1)),
            Dtype::Uint8 => serializer.collect_seq(data.iter()),
            Dtype::Uint16 => serializer.collect_seq(chunks(data).map(u16::from_le_bytes)),
            Dtype::Uint32 => serializer.collect_seq(chunks(data).map(u32::from_le_bytes)),
            Dtype::Uint64 => serializer.collect_seq(chunks(data).map(u64::from_le_bytes)),
            Dtype::Int8 => serializer.collect_seq(chunks(data).map(i8::from_le_bytes)),
            Dtype::Int16 => serializer.collect_seq(chunks(data).map(i16::from_le_bytes)),
            Dtype::Int32 => serializer.collect_seq(chunks(data).map(i32::from_le_bytes)),
            Dtype::Int64 => serializer.collect_seq(chunks(data).map(i64::from_le_bytes)),
            Dtype::Fp32 => {
                let floats = chunks(data).map(f32::from_le_bytes);
                serializer.collect_seq(floats.map(|value| match non_finite(value.into()) {
                    None => Float::Fp32(value),
                    Some(name) => Float::Name(name),
                }))
            }
            Dtype::Fp64 => {
                let floats = chunks(data).map(f64::from_le_bytes);
                serializer.collect_seq(floats.map(|value| match non_finite(value) {
                    None => Float::Fp64(value),
                    Some(name) => Float::Name(name),
                }))
            }
            Dtype::Bytes => {
                let mut array = serializer.serialize_seq(Some(self.0.len()))?;
                for (index, element) in byte_elements(data).flatten().enumerate() {
                    let text = std::str::from_utf8(element).map_err(|_| {
                        let what = "is not UTF-8: ask for it as binary_data";
                        S::Error::custom(format_args!("element {index} {what}"))
                    })?;
                    array.serialize_element(text)?;
                }
                array.end()
            }
            Dtype::Fp16 | Dtype::Bf16 => Err(S::Error::custom(NoJsonForm(self.0.dtype()))),
        }
    }
}

/// A float, or the string that stands for one that JSON cannot write.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Float {
    Fp32(f32),
    Fp64(f64),
    Name(&'static str),
}

fn non_finite(value: f64) -> Option<&'static str> {
    if value.is_finite() {
        None
    } else if value.is_nan() {
        Some(NAN)
    } else if value > 0.0 {
        Some(INFINITY)
    } else {
        Some(NEGATIVE_INFINITY)
    }
}

fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> {
    data.as_chunks::<N>().0.iter().copied()
}
