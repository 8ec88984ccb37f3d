//! Messages between the host and a graph that runs inside the sandbox.
//!
//! A message is the length of its header (4 bytes, little-endian), the header as JSON, and the bytes
//! that it speaks of: an ONNX file, or tensors one after another. Both sides are this code, compiled for
//! the host and for WebAssembly; the host nevertheless believes nothing of what a guest answers.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tidegate_inference::{Dtype, RANK_MAX, Shape, Tensor, TensorSpec};

/// Most tensors in a message, as many as a manifest can name.
pub const TENSORS_MAX: usize = 128;

/// Largest header: every tensor with a long name and eight extents, or an interface.
const HEADER_BYTES_MAX: usize = 256 << 10;

/// Longest reason that is passed on.
const REASON_BYTES_MAX: usize = 4096;

/// What the host asks before a graph is read. The ONNX file follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// Largest tensor that the graph may make.
    pub tensor_bytes_max: usize,
    /// Plans kept for a graph with free axes.
    pub plans_max: usize,
}

/// What a graph takes and gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its inputs, in the order in which a run wants them.
    pub inputs: Vec<TensorSpec>,
    /// The names of its outputs, in the order in which a run gives them.
    pub outputs: Vec<String>,
    /// Whether the caller chooses a shape, by a free axis or by the value of an input.
    pub has_free_axes: bool,
}

/// Whose fault it is that there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The inputs do not fit the graph.
    Inputs,
    /// A value of the inputs leads a node to one that it cannot take.
    Values,
    /// A tensor would be larger than a limit.
    TooLarge,
    /// The graph cannot be read, planned or run.
    Graph,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Whose fault it is.
    pub fault: Fault,
    /// What the engine says.
    pub reason: String,
}

impl Refusal {
    /// A refusal, its reason cut to a sensible length.
    #[must_use]
    pub fn new(fault: Fault, reason: impl ToString) -> Self {
        let mut reason = reason.to_string();
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        Self { fault, reason }
    }
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum ReadMessageError {
    /// It ends before its header or its tensors do, or goes on behind them.
    #[error("the message has {got} bytes where {wanted} are announced")]
    Length {
        /// Bytes that are there.
        got: usize,
        /// Bytes that it says there are.
        wanted: usize,
    },
    /// Above a limit.
    #[error("the message has {got} {what}, at most {limit} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// The header is not what it must be.
    #[error("the header of the message is malformed")]
    Header(#[from] serde_json::Error),
    /// The description of a tensor does not fit its bytes.
    #[error("tensor {index} of the message is malformed")]
    Tensor {
        /// Its position.
        index: usize,
        /// What does not fit.
        source: tidegate_inference::TensorError,
    },
}

/// How a message describes a tensor.
#[derive(Debug, Serialize, Deserialize)]
struct TensorHeader {
    datatype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
}

/// A message of a header and the bytes behind it.
#[must_use]
pub fn write<H: Serialize>(header: &H, body: &[&[u8]]) -> Vec<u8> {
    let header = serde_json::to_vec(header).expect("headers are structs, numbers and strings");
    let len = u32::try_from(header.len()).expect("a header is far below 4 GiB");
    let body_len: usize = body.iter().map(|part| part.len()).sum();
    let mut message = Vec::with_capacity(4 + header.len() + body_len);
    message.extend_from_slice(&len.to_le_bytes());
    message.extend_from_slice(&header);
    body.iter().for_each(|part| message.extend_from_slice(part));
    message
}

/// The header of a message, and where the bytes behind it begin.
pub fn read<H: DeserializeOwned>(message: &[u8]) -> Result<(H, usize), ReadMessageError> {
    let got = message.len();
    let (len, rest) = message
        .split_first_chunk::<4>()
        .ok_or(ReadMessageError::Length { got, wanted: 4 })?;
    let len = usize::try_from(u32::from_le_bytes(*len)).unwrap_or(usize::MAX);
    at_most("bytes of header", len, HEADER_BYTES_MAX)?;
    let wanted = 4 + len;
    let header = rest
        .get(..len)
        .ok_or(ReadMessageError::Length { got, wanted })?;
    Ok((serde_json::from_slice(header)?, wanted))
}

/// A message of tensors.
#[must_use]
pub fn write_tensors(tensors: &[Tensor]) -> Vec<u8> {
    let header = tensors.iter().map(|tensor| TensorHeader {
        datatype: tensor.dtype(),
        shape: tensor.shape().to_vec(),
        bytes: tensor.data().len(),
    });
    let header: Vec<TensorHeader> = header.collect();
    let body: Vec<&[u8]> = tensors.iter().map(|tensor| &tensor.data()[..]).collect();
    write(&Ok::<_, Refusal>(header), &body)
}

/// The tensors of a message, as slices of it, or why the other side gives none.
pub fn read_tensors(message: &Bytes) -> Result<Result<Vec<Tensor>, Refusal>, ReadMessageError> {
    let (header, mut at) = read::<Result<Vec<TensorHeader>, Refusal>>(message)?;
    let headers = match header {
        Ok(headers) => headers,
        Err(refusal) => return Ok(Err(refusal)),
    };
    at_most("tensors", headers.len(), TENSORS_MAX)?;
    let mut tensors = Vec::with_capacity(headers.len());
    for (index, header) in headers.into_iter().enumerate() {
        at_most("axes", header.shape.len(), RANK_MAX)?;
        let got = message.len();
        let wanted = at.saturating_add(header.bytes);
        if wanted > got {
            return Err(ReadMessageError::Length { got, wanted });
        }
        let tensor = Tensor::new(
            header.datatype,
            Shape::from_slice(&header.shape),
            message.slice(at..wanted),
        )
        .map_err(|source| ReadMessageError::Tensor { index, source })?;
        tensors.push(tensor);
        at = wanted;
    }
    if at != message.len() {
        let (got, wanted) = (message.len(), at);
        return Err(ReadMessageError::Length { got, wanted });
    }
    Ok(Ok(tensors))
}

fn at_most(what: &'static str, got: usize, limit: usize) -> Result<(), ReadMessageError> {
    if got > limit {
        return Err(ReadMessageError::TooMany { what, got, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: Dtype, shape: &[usize], data: &'static [u8]) -> Tensor {
        Tensor::new(dtype, Shape::from_slice(shape), Bytes::from_static(data)).unwrap()
    }

    fn message() -> Bytes {
        let tensors = [
            tensor(Dtype::Fp32, &[2], &[0, 0, 128, 63, 0, 0, 0, 64]),
            tensor(Dtype::Bytes, &[1], &[1, 0, 0, 0, b'a']),
            tensor(Dtype::Int64, &[0], &[]),
        ];
        write_tensors(&tensors).into()
    }

    #[test]
    fn tensors_arrive_as_they_were_sent() {
        let tensors = read_tensors(&message()).unwrap().unwrap();
        assert_eq!(tensors.len(), 3);
        assert_eq!(tensors[0].shape(), [2]);
        assert_eq!(&tensors[1].data()[..], [1, 0, 0, 0, b'a']);
        assert_eq!(write_tensors(&tensors), message());
    }

    #[test]
    fn a_refusal_arrives_with_its_fault() {
        let refusal = Refusal::new(Fault::TooLarge, "é".repeat(REASON_BYTES_MAX));
        let message = write(&Err::<Vec<TensorHeader>, _>(&refusal), &[]);
        assert_eq!(read_tensors(&message.into()).unwrap(), Err(refusal));
    }

    #[test]
    fn every_cut_and_every_addition_is_noticed() {
        let message = message();
        for len in 0..message.len() {
            assert!(read_tensors(&message.slice(..len)).is_err(), "{len}");
        }
        let longer = [&message[..], &[0]].concat();
        assert!(read_tensors(&longer.into()).is_err());
    }

    #[test]
    fn a_changed_byte_never_panics() {
        let message = message();
        for at in 0..message.len() {
            for bit in 0..8 {
                let mut changed = message.to_vec();
                changed[at] ^= 1 << bit;
                let _ = read_tensors(&changed.into());
            }
        }
    }
}
