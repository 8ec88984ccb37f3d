//! Tensors as they travel: a dtype, a shape and one shared run of bytes.
//!
//! The bytes are row-major and little-endian, exactly as the Open Inference Protocol's binary
//! extension puts them, so a tensor goes from socket to engine without being rewritten. A value of
//! type [`Tensor`] always has as many bytes as its dtype and shape say.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Most dimensions that a tensor may have.
pub const RANK_MAX: usize = 8;

/// Longest name of a tensor or model, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 128;

/// Extents of the axes, outermost first. Empty for a scalar.
pub type Shape = SmallVec<[usize; RANK_MAX]>;

/// Type of a tensor's elements, by the names of the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Dtype {
    /// One byte an element, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer.
    Uint8,
    /// Unsigned 16-bit integer.
    Uint16,
    /// Unsigned 32-bit integer.
    Uint32,
    /// Unsigned 64-bit integer.
    Uint64,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// IEEE 754 binary16.
    Fp16,
    /// The upper half of a binary32.
    Bf16,
    /// IEEE 754 binary32.
    Fp32,
    /// IEEE 754 binary64.
    Fp64,
    /// Byte strings, each behind its length as a little-endian `u32`.
    Bytes,
}

impl Dtype {
    /// Every dtype, in declaration order.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// The protocol's name, such as `FP32`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }

    /// Bytes an element; `None` for [`Dtype::Bytes`], whose elements differ in length.
    #[must_use]
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A dtype's name that the protocol does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown datatype {0:?}")]
pub struct ParseDtypeError(pub String);

impl FromStr for Dtype {
    type Err = ParseDtypeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.name() == name)
            .ok_or_else(|| ParseDtypeError(name.to_owned()))
    }
}

/// Why bytes, dtype and shape do not make a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// More than [`RANK_MAX`] dimensions.
    #[error("rank {rank} is above the limit of {RANK_MAX}")]
    Rank {
        /// Dimensions given.
        rank: usize,
    },
    /// The product of the dimensions does not fit the address space.
    #[error("the shape has more elements than can be addressed")]
    Overflow,
    /// The shape wants another number of bytes than there are.
    #[error("{dtype} of shape {shape:?} takes {wanted} bytes, got {got}")]
    Length {
        /// The element type.
        dtype: Dtype,
        /// The extents.
        shape: Shape,
        /// Bytes that dtype and shape take.
        wanted: usize,
        /// Bytes given.
        got: usize,
    },
    /// The byte strings of a BYTES tensor do not line up with its shape.
    #[error("BYTES of shape {shape:?} takes {wanted} elements, the data holds {got}")]
    Elements {
        /// The extents.
        shape: Shape,
        /// Elements that the shape takes.
        wanted: usize,
        /// Whole elements that the data holds before it ends or runs over.
        got: usize,
    },
    /// A BOOL element that is neither 0 nor 1.
    #[error("BOOL element {index} is {value}, not 0 or 1")]
    Bool {
        /// Position of the element in row-major order.
        index: usize,
        /// The byte found.
        value: u8,
    },
}

/// A dtype, a shape, and exactly the bytes that they take. Cloning shares the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: Dtype,
    shape: Shape,
    data: Bytes,
}

impl Tensor {
    /// Checks that `data` is what `dtype` and `shape` take, without copying it.
    pub fn new(dtype: Dtype, shape: Shape, data: Bytes) -> Result<Self, TensorError> {
        let elements = element_count(&shape)?;
        match dtype.size() {
            Some(size) => {
                let wanted = elements.checked_mul(size).ok_or(TensorError::Overflow)?;
                if wanted != data.len() {
                    let got = data.len();
                    return Err(TensorError::Length {
                        dtype,
                        shape,
                        wanted,
                        got,
                    });
                }
            }
            None => {
                let mut got = 0;
                let whole =
                    byte_elements(&data).all(|element| element.inspect(|_| got += 1).is_some());
                if !whole || got != elements {
                    return Err(TensorError::Elements {
                        shape,
                        wanted: elements,
                        got,
                    });
                }
            }
        }
        if dtype == Dtype::Bool
            && let Some(index) = data.iter().position(|byte| *byte > 1)
        {
            return Err(TensorError::Bool {
                index,
                value: data[index],
            });
        }
        Ok(Self { dtype, shape, data })
    }

    /// A one-dimensional BYTES tensor of the given elements.
    #[must_use]
    pub fn from_byte_elements<E: AsRef<[u8]>>(elements: &[E]) -> Self {
        let mut data = Vec::with_capacity(elements.iter().map(|e| 4 + e.as_ref().len()).sum());
        for element in elements {
            let len = u32::try_from(element.as_ref().len()).expect("an element is below 4 GiB");
            data.extend_from_slice(&len.to_le_bytes());
            data.extend_from_slice(element.as_ref());
        }
        let shape = Shape::from_slice(&[elements.len()]);
        Self {
            dtype: Dtype::Bytes,
            shape,
            data: data.into(),
        }
    }

    /// Type of the elements.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Extents of the axes.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Row-major, little-endian bytes.
    #[must_use]
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The same tensor with bytes of its own, where they may be a slice of something large.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self {
            data: Bytes::copy_from_slice(&self.data),
            ..self.clone()
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether an axis has no extent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{:?} ({} bytes)",
            self.dtype,
            self.shape.as_slice(),
            self.data.len()
        )
    }
}

/// Product of the extents, checked against [`RANK_MAX`] and overflow.
fn element_count(shape: &[usize]) -> Result<usize, TensorError> {
    if shape.len() > RANK_MAX {
        return Err(TensorError::Rank { rank: shape.len() });
    }
    // A zero extent empties the tensor, but the other extents may not overflow all the same.
    let nonzero = shape
        .iter()
        .filter(|extent| **extent != 0)
        .try_fold(1_usize, |product, extent| product.checked_mul(*extent))
        .ok_or(TensorError::Overflow)?;
    Ok(if shape.contains(&0) { 0 } else { nonzero })
}

/// Walks the length-prefixed elements of a BYTES tensor's data.
///
/// Yields `None` once, and then ends, where a length runs past the data.
pub fn byte_elements(data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let element = rest.split_first_chunk::<4>().and_then(|(len, tail)| {
            let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
            let (element, tail) = tail.split_at_checked(len)?;
            rest = tail;
            Some(element)
        });
        if element.is_none() {
            rest = &[];
        }
        Some(element)
    })
}

/// A tensor under the name that the model's author gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// The input's or output's name.
    pub name: String,
    /// Its value.
    pub tensor: Tensor,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: Dtype, shape: &[usize], data: &[u8]) -> Result<Tensor, TensorError> {
        Tensor::new(
            dtype,
            Shape::from_slice(shape),
            Bytes::copy_from_slice(data),
        )
    }

    #[test]
    fn bytes_must_match_dtype_and_shape() {
        assert_eq!(tensor(Dtype::Fp32, &[2, 1], &[0; 8]).unwrap().len(), 2);
        assert_eq!(tensor(Dtype::Int64, &[], &[0; 8]).unwrap().len(), 1);
        assert!(tensor(Dtype::Fp32, &[0, 7], &[]).unwrap().is_empty());
        assert!(matches!(
            tensor(Dtype::Fp32, &[2], &[0; 7]),
            Err(TensorError::Length {
                wanted: 8,
                got: 7,
                ..
            })
        ));
    }

    #[test]
    fn a_shape_that_overflows_is_refused_before_its_bytes_are_looked_at() {
        assert_eq!(
            tensor(Dtype::Uint8, &[usize::MAX, 2], &[]),
            Err(TensorError::Overflow)
        );
        assert_eq!(
            tensor(Dtype::Fp64, &[usize::MAX / 4], &[]),
            Err(TensorError::Overflow)
        );
        assert_eq!(
            tensor(Dtype::Uint8, &[usize::MAX, 2, 0], &[]),
            Err(TensorError::Overflow)
        );
        assert_eq!(
            tensor(Dtype::Uint8, &[1; 9], &[0]),
            Err(TensorError::Rank { rank: 9 })
        );
    }

    #[test]
    fn byte_strings_must_line_up_with_the_shape() {
        let two = Tensor::from_byte_elements(&["a", ""]);
        assert_eq!(&two.data()[..], b"\x01\0\0\0a\0\0\0\0");
        assert!(tensor(Dtype::Bytes, &[2], two.data()).is_ok());
        assert!(matches!(
            tensor(Dtype::Bytes, &[3], two.data()),
            Err(TensorError::Elements {
                wanted: 3,
                got: 2,
                ..
            })
        ));
        assert!(matches!(
            tensor(Dtype::Bytes, &[1], b"\xff\xff\xff\xffa"),
            Err(TensorError::Elements {
                wanted: 1,
                got: 0,
                ..
            })
        ));
        assert!(tensor(Dtype::Bytes, &[1], b"\x01\0").is_err());
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        assert!(tensor(Dtype::Bool, &[2], &[0, 1]).is_ok());
        assert_eq!(
            tensor(Dtype::Bool, &[2], &[1, 2]),
            Err(TensorError::Bool { index: 1, value: 2 })
        );
    }

    #[test]
    fn names_read_back() {
        for dtype in Dtype::ALL {
            assert_eq!(dtype.name().parse(), Ok(dtype));
        }
        assert!("fp32".parse::<Dtype>().is_err());
    }
}
