//! Tensors: described in the header, their bytes one after another in the payload.
//!
//! A description is checked on its own, before any payload is read: the bytes that dtype and shape
//! take must be those that it announces. The elements of BYTES tensors, whose lengths lie in the
//! payload, are checked when it arrives.

use bytes::Bytes;
use tidegate_inference::{Dtype, NamedTensor, RANK_MAX, Shape, Tensor, TensorError};

use crate::cbor::{Reader, Writer};
use crate::{DecodeError, EncodeError, PAYLOAD_BYTES_MAX, TENSORS_MAX};

const NAME: u64 = 0;
const DTYPE: u64 = 1;
const SHAPE: u64 = 2;
const LEN: u64 = 3;

/// Bytes before each element of a BYTES tensor.
const ELEMENT_HEAD_BYTES: usize = 4;

/// A tensor as a header describes it.
#[derive(Debug)]
struct Description {
    name: String,
    dtype: Dtype,
    shape: Shape,
    len: usize,
}

/// The tensors that a header describes, within all limits, waiting for their bytes.
#[derive(Debug, Default)]
pub(crate) struct Descriptions {
    tensors: Vec<Description>,
    payload_len: usize,
}

/// Writes the list of descriptions and gives the chunks of the payload.
pub(crate) fn write(
    writer: &mut Writer,
    what: &'static str,
    tensors: &[NamedTensor],
) -> Result<Vec<Bytes>, EncodeError> {
    writer.list(what, tensors.len(), TENSORS_MAX)?;
    let mut payload = Vec::with_capacity(tensors.len());
    let mut payload_len = 0_usize;
    for NamedTensor { name, tensor } in tensors {
        writer.map(4);
        writer.key(NAME);
        writer.name("tensor name", name)?;
        writer.key(DTYPE);
        writer.uint(number(tensor.dtype()));
        writer.key(SHAPE);
        writer.list("axes", tensor.shape().len(), RANK_MAX)?;
        for extent in tensor.shape() {
            writer.uint(*extent as u64);
        }
        writer.key(LEN);
        writer.uint(tensor.data().len() as u64);
        payload_len = payload_len.saturating_add(tensor.data().len());
        if !tensor.data().is_empty() {
            payload.push(tensor.data().clone());
        }
    }
    if payload_len > PAYLOAD_BYTES_MAX {
        return Err(EncodeError::Payload { len: payload_len });
    }
    Ok(payload)
}

impl Descriptions {
    pub(crate) fn read(reader: &mut Reader<'_>, what: &'static str) -> Result<Self, DecodeError> {
        let count = reader.list(what, TENSORS_MAX)?;
        let tensors = (0..count)
            .map(|_| Description::read(reader))
            .collect::<Result<Vec<_>, _>>()?;
        let payload_len = tensors.iter().map(|tensor| tensor.len).sum();
        if payload_len > PAYLOAD_BYTES_MAX {
            return Err(DecodeError::PayloadTooLarge { len: payload_len });
        }
        Ok(Self {
            tensors,
            payload_len,
        })
    }

    /// Bytes of all tensors together, at most [`PAYLOAD_BYTES_MAX`].
    pub(crate) fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Cuts `payload` into the tensors, without copying it.
    pub(crate) fn with_payload(self, mut payload: Bytes) -> Result<Vec<NamedTensor>, DecodeError> {
        let (wanted, got) = (self.payload_len, payload.len());
        if wanted != got {
            return Err(DecodeError::PayloadLen { wanted, got });
        }
        let join = |description: Description| {
            let Description {
                name,
                dtype,
                shape,
                len,
            } = description;
            match Tensor::new(dtype, shape, payload.split_to(len)) {
                Ok(tensor) => Ok(NamedTensor { name, tensor }),
                Err(source) => Err(malformed(name, source)),
            }
        };
        self.tensors.into_iter().map(join).collect()
    }
}

impl Description {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let description = reader.map("tensor", |reader, map| {
            reader.key(map, NAME)?;
            let name = reader.name("tensor name")?;
            reader.key(map, DTYPE)?;
            let dtype = reader.one_of("dtype", &Dtype::ALL, number)?;
            reader.key(map, SHAPE)?;
            let rank = reader.list("shape", RANK_MAX)?;
            let shape = (0..rank)
                .map(|_| read_len(reader, "extent", usize::MAX))
                .collect::<Result<Shape, _>>()?;
            reader.key(map, LEN)?;
            let len = read_len(reader, "tensor length", PAYLOAD_BYTES_MAX)?;
            Ok(Self {
                name,
                dtype,
                shape,
                len,
            })
        })?;
        match check_len(description.dtype, &description.shape, description.len) {
            Ok(()) => Ok(description),
            Err(source) => Err(malformed(description.name, source)),
        }
    }
}

fn read_len(reader: &mut Reader<'_>, what: &'static str, max: usize) -> Result<usize, DecodeError> {
    let len = reader.uint(what, max as u64)?;
    Ok(usize::try_from(len).expect("at most `max`"))
}

/// Refuses a length that dtype and shape cannot have.
fn check_len(dtype: Dtype, shape: &Shape, got: usize) -> Result<(), TensorError> {
    // An extent of zero empties the tensor, but may not hide an overflow of the others.
    let nonzero = shape.iter().filter(|extent| **extent > 0);
    let size = dtype.size().unwrap_or(ELEMENT_HEAD_BYTES);
    let least = nonzero
        .into_iter()
        .try_fold(size, |product, extent| product.checked_mul(*extent))
        .ok_or(TensorError::Overflow)?;
    let wanted = if shape.contains(&0) { 0 } else { least };
    let fits = got == wanted || (dtype == Dtype::Bytes && wanted > 0 && got > wanted);
    if fits {
        return Ok(());
    }
    let shape = shape.clone();
    Err(TensorError::Length {
        dtype,
        shape,
        wanted,
        got,
    })
}

fn malformed(name: String, source: TensorError) -> DecodeError {
    let source = Box::new(source);
    DecodeError::Tensor { name, source }
}

/// A dtype's number on the wire, which no later version may change.
fn number(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::Bool => 0,
        Dtype::Uint8 => 1,
        Dtype::Uint16 => 2,
        Dtype::Uint32 => 3,
        Dtype::Uint64 => 4,
        Dtype::Int8 => 5,
        Dtype::Int16 => 6,
        Dtype::Int32 => 7,
        Dtype::Int64 => 8,
        Dtype::Fp16 => 9,
        Dtype::Bf16 => 10,
        Dtype::Fp32 => 11,
        Dtype::Fp64 => 12,
        Dtype::Bytes => 13,
    }
}
