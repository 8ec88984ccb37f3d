//! Samples as bytes: the contents of the section `tidegate:samples`.
//!
//! ```text
//! samples = version:u8 (1)  count  sample*
//! sample  = tensors (inputs)  tensors (outputs)
//! tensors = count  tensor*
//! tensor  = name-length  name  dtype:u8  rank:u8  extent*  data-length  data
//! ```
//!
//! Numbers without a width are unsigned LEB128. `dtype` is a place in [`Dtype::ALL`], counted from 0. `data` is
//! what a tensor's bytes are everywhere: row-major, little-endian, strings each behind a 32-bit length.

use bytes::Bytes;
use tidegate_inference::{
    Dtype, NAME_BYTES_MAX, NamedTensor, RANK_MAX, Shape, Tensor, TensorError,
};

use super::{SAMPLES_BYTES_MAX, SAMPLES_MAX, Sample};
use crate::module::TENSORS_MAX;

const VERSION: u8 = 1;

/// Why bytes are not samples, or samples cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplesError {
    /// The bytes end within a field.
    #[error("the samples are cut off")]
    CutOff,
    /// The bytes go on behind the last sample.
    #[error("the samples have trailing bytes")]
    Trailing,
    /// Another version than this code reads.
    #[error("the samples have version {got}, this version reads {VERSION}")]
    Version {
        /// The version given.
        got: u8,
    },
    /// More of something than a limit allows.
    #[error("the samples have more than {limit} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A number has more than 64 bits, or does not fit the address space.
    #[error("a number in the samples is too large")]
    Number,
    /// A name that is not UTF-8.
    #[error("a name in the samples is not text")]
    Name,
    /// A dtype that does not exist.
    #[error("tensor {name:?} of the samples has the unknown datatype {code}")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its dtype.
        code: u8,
    },
    /// Bytes, dtype and shape that do not make a tensor.
    #[error("tensor {name:?} of the samples: {source}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong with it.
        source: TensorError,
    },
    /// A sample of another model.
    #[error("sample {index}: {reason}")]
    Fit {
        /// The sample, counted from 0.
        index: usize,
        /// How it does not fit the manifest.
        reason: String,
    },
}

/// The samples as bytes.
pub fn encode(samples: &[Sample]) -> Result<Vec<u8>, SamplesError> {
    within(samples.len(), SAMPLES_MAX, "samples")?;
    let tensors = |sample: &Sample| {
        let all = sample.inputs.iter().chain(&sample.outputs);
        all.map(|named| named.tensor.data().len()).sum::<usize>()
    };
    within(
        samples.iter().map(tensors).sum(),
        SAMPLES_BYTES_MAX,
        "bytes",
    )?;
    let mut bytes = vec![VERSION];
    put_number(&mut bytes, samples.len());
    for Sample { inputs, outputs } in samples {
        put_tensors(&mut bytes, inputs)?;
        put_tensors(&mut bytes, outputs)?;
    }
    within(bytes.len(), SAMPLES_BYTES_MAX, "bytes")?;
    Ok(bytes)
}

/// The samples that are in some bytes. Their data are slices of `bytes`.
pub fn decode(bytes: &Bytes) -> Result<Vec<Sample>, SamplesError> {
    within(bytes.len(), SAMPLES_BYTES_MAX, "bytes")?;
    let mut reader = Reader {
        rest: bytes.clone(),
    };
    let got = reader.byte()?;
    if got != VERSION {
        return Err(SamplesError::Version { got });
    }
    let count = reader.count("samples", SAMPLES_MAX)?;
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        let inputs = reader.tensors()?;
        let outputs = reader.tensors()?;
        samples.push(Sample { inputs, outputs });
    }
    if reader.rest.is_empty() {
        Ok(samples)
    } else {
        Err(SamplesError::Trailing)
    }
}

fn within(count: usize, limit: usize, what: &'static str) -> Result<(), SamplesError> {
    if count > limit {
        return Err(SamplesError::TooMany { what, limit });
    }
    Ok(())
}

fn put_tensors(to: &mut Vec<u8>, tensors: &[NamedTensor]) -> Result<(), SamplesError> {
    within(tensors.len(), TENSORS_MAX, "tensors in a list")?;
    put_number(to, tensors.len());
    for NamedTensor { name, tensor } in tensors {
        within(name.len(), NAME_BYTES_MAX, "bytes in a name")?;
        put_number(to, name.len());
        to.extend(name.as_bytes());
        let code = Dtype::ALL.iter().position(|dtype| *dtype == tensor.dtype());
        let code = code.expect("every dtype is in the list of all");
        to.push(u8::try_from(code).expect("there are few dtypes"));
        to.push(u8::try_from(tensor.shape().len()).expect("a tensor has a small rank"));
        for extent in tensor.shape() {
            put_number(to, *extent);
        }
        put_number(to, tensor.data().len());
        to.extend(&tensor.data()[..]);
    }
    Ok(())
}

fn put_number(to: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = number.to_le_bytes()[0] & 0x7f;
        number >>= 7;
        if number == 0 {
            return to.push(low);
        }
        to.push(low | 0x80);
    }
}

struct Reader {
    rest: Bytes,
}

impl Reader {
    fn take(&mut self, len: usize) -> Result<Bytes, SamplesError> {
        if len > self.rest.len() {
            return Err(SamplesError::CutOff);
        }
        Ok(self.rest.split_to(len))
    }

    fn byte(&mut self) -> Result<u8, SamplesError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<usize, SamplesError> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte()?;
            let low = u64::from(byte & 0x7f);
            if low << shift >> shift != low {
                return Err(SamplesError::Number);
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(number).map_err(|_| SamplesError::Number);
            }
        }
        Err(SamplesError::Number)
    }

    fn count(&mut self, what: &'static str, limit: usize) -> Result<usize, SamplesError> {
        let count = self.number()?;
        within(count, limit, what)?;
        Ok(count)
    }

    fn tensors(&mut self) -> Result<Vec<NamedTensor>, SamplesError> {
        let count = self.count("tensors in a list", TENSORS_MAX)?;
        (0..count).map(|_| self.tensor()).collect()
    }

    fn tensor(&mut self) -> Result<NamedTensor, SamplesError> {
        let len = self.count("bytes in a name", NAME_BYTES_MAX)?;
        let name = self.take(len)?;
        let name = std::str::from_utf8(&name).map_err(|_| SamplesError::Name)?;
        let name = name.to_owned();
        let code = self.byte()?;
        let Some(dtype) = Dtype::ALL.get(usize::from(code)) else {
            return Err(SamplesError::Dtype { name, code });
        };
        let rank = usize::from(self.byte()?);
        within(rank, RANK_MAX, "axes of a tensor")?;
        let mut shape = Shape::new();
        for _ in 0..rank {
            shape.push(self.number()?);
        }
        let len = self.number()?;
        let data = self.take(len)?;
        match Tensor::new(*dtype, shape, data) {
            Ok(tensor) => Ok(NamedTensor { name, tensor }),
            Err(source) => Err(SamplesError::Tensor { name, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str, tensor: Tensor) -> NamedTensor {
        NamedTensor {
            name: name.to_owned(),
            tensor,
        }
    }

    fn samples() -> Vec<Sample> {
        let floats = Tensor::new(
            Dtype::Fp32,
            Shape::from_slice(&[2, 1]),
            Bytes::from(vec![1; 8]),
        );
        let scalar = Tensor::new(Dtype::Bool, Shape::new(), Bytes::from_static(&[1]));
        vec![
            Sample {
                inputs: vec![named("x", floats.unwrap())],
                outputs: vec![
                    named("größe", Tensor::from_byte_elements(&["a", ""])),
                    named("flag", scalar.unwrap()),
                ],
            },
            Sample {
                inputs: vec![],
                outputs: vec![],
            },
        ]
    }

    #[test]
    fn samples_read_back_without_a_copy() {
        let bytes = Bytes::from(encode(&samples()).unwrap());
        let again = decode(&bytes).unwrap();
        assert_eq!(again, samples());
        let data = again[0].inputs[0].tensor.data();
        assert!(bytes.as_ptr_range().contains(&data.as_ptr()));
        assert_eq!(decode(&Bytes::from(encode(&[]).unwrap())), Ok(vec![]));
    }

    #[test]
    fn cut_or_longer_samples_are_refused() {
        let bytes = Bytes::from(encode(&samples()).unwrap());
        for len in 0..bytes.len() {
            assert!(decode(&bytes.slice(..len)).is_err(), "{len}");
        }
        let longer = Bytes::from([&bytes[..], b"\0"].concat());
        assert_eq!(decode(&longer), Err(SamplesError::Trailing));
    }

    #[test]
    fn numbers_above_a_limit_are_refused_before_anything_is_allocated() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let check = |parts: &[&[u8]], words: &str| {
            let error = decode(&Bytes::from(parts.concat())).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        };
        check(&[&[2, 0]], "version 2");
        check(&[&[1], &huge], "64 samples");
        check(&[&[1, 1], &huge], "128 tensors");
        check(&[&[1, 1, 1], &huge], "128 bytes in a name");
        check(&[&[1, 1, 1, 1, 0xff]], "not text");
        check(&[&[1, 1, 1, 1, b'x', 14]], "datatype 14");
        check(&[&[1, 1, 1, 1, b'x', 0, 9]], "8 axes");
        check(
            &[&[1, 1, 1, 1, b'x', 0, 2], &huge, &huge, &[0]],
            "can be addressed",
        );
        check(&[&[1, 1, 1, 1, b'x', 0, 0], &huge], "cut off");
        check(&[&[1, 1, 1, 1, b'x', 0, 0], &[0xff; 10]], "too large");
        check(&[&[1, 1, 1, 1, b'x', 0, 0, 1, 2]], "BOOL");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let bytes = Bytes::from([&[VERSION], &bytes[..]].concat());
            if let Ok(samples) = decode(&bytes) {
                let again = Bytes::from(encode(&samples).unwrap());
                prop_assert_eq!(decode(&again), Ok(samples));
            }
        }

        #[test]
        fn numbers_read_back(number: usize) {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut reader = Reader { rest: bytes.into() };
            prop_assert_eq!(reader.number(), Ok(number));
        }
    }
}
