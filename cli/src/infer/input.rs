//! Values from the command line, and the tensors that they mean to a model.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tidegate_inference::{Dtype, NamedTensor, Shape, Tensor, TensorError, TensorSpec};

use super::value::{self, ValueError};

/// Longest file that is sent: above what an agent takes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// One `--input`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Input {
    name: String,
    value: Value,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    File(PathBuf),
    Json(serde_json::Value),
}

/// Text that is not an input.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseInputError {
    /// There is no equals sign, or no name before it.
    #[error("expected NAME=@FILE or NAME=JSON")]
    Shape,
    /// What follows the name is not JSON.
    #[error("the value is neither @FILE nor JSON")]
    Json(#[source] serde_json::Error),
}

impl FromStr for Input {
    type Err = ParseInputError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or(ParseInputError::Shape)?;
        if name.is_empty() || value == "@" {
            return Err(ParseInputError::Shape);
        }
        let value = match value.strip_prefix('@') {
            Some(path) => Value::File(path.into()),
            None => Value::Json(serde_json::from_str(value).map_err(ParseInputError::Json)?),
        };
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

/// Why a value is not a tensor of its input.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// The model has no such input.
    #[error("the model has no input {name:?}; its inputs are {known}")]
    Unknown {
        /// The name given.
        name: String,
        /// The inputs there are, with their types.
        known: String,
    },
    /// An input has no value, or several.
    #[error("input {name:?} is given {times} times; the inputs are {known}")]
    Times {
        /// The input.
        name: String,
        /// How often it is given.
        times: usize,
        /// The inputs there are, with their types.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is too long to send.
    #[error("{} is longer than {FILE_BYTES_MAX} bytes", path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
    /// The file's length does not fit the shape.
    #[error("{} holds {len} bytes, which is no {dtype} tensor of shape {shape:?}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: usize,
        /// The input's element type.
        dtype: Dtype,
        /// The input's shape.
        shape: Vec<i64>,
    },
    /// The JSON does not fit the element type.
    #[error("the value of input {name:?} does not fit")]
    Value {
        /// The input.
        name: String,
        /// What is wrong with it.
        source: ValueError,
    },
    /// The elements do not make a tensor.
    #[error("input {name:?}")]
    Tensor {
        /// The input.
        name: String,
        /// Why not.
        source: TensorError,
    },
}

/// One tensor for each of the model's inputs, in the model's order.
pub(super) fn tensors(
    inputs: &[Input],
    specs: &[TensorSpec],
) -> Result<Vec<NamedTensor>, InputError> {
    let known = || {
        let known: Vec<String> = specs
            .iter()
            .map(|spec| format!("{} ({} of shape {:?})", spec.name, spec.dtype, spec.shape))
            .collect();
        known.join(", ")
    };
    if let Some(input) = inputs
        .iter()
        .find(|input| specs.iter().all(|spec| spec.name != input.name))
    {
        return Err(InputError::Unknown {
            name: input.name.clone(),
            known: known(),
        });
    }
    let tensor = |spec: &TensorSpec| {
        let mut given = inputs.iter().filter(|input| input.name == spec.name);
        match (given.next(), given.count()) {
            (Some(input), 0) => Ok(NamedTensor {
                name: spec.name.clone(),
                tensor: match &input.value {
                    Value::File(path) => from_file(spec, path)?,
                    Value::Json(json) => from_json(spec, json)?,
                },
            }),
            (first, more) => Err(InputError::Times {
                name: spec.name.clone(),
                times: usize::from(first.is_some()) + more,
                known: known(),
            }),
        }
    };
    specs.iter().map(tensor).collect()
}

/// The whole file as one byte string, or its bytes as the elements.
fn from_file(spec: &TensorSpec, path: &Path) -> Result<Tensor, InputError> {
    let read = |source| InputError::Read {
        path: path.to_owned(),
        source,
    };
    let mut data = Vec::new();
    let file = File::open(path).map_err(read)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut data)
        .map_err(read)?;
    if data.len() as u64 > FILE_BYTES_MAX {
        return Err(InputError::Long {
            path: path.to_owned(),
        });
    }
    let len = data.len();
    let (size, data) = match spec.dtype.size() {
        Some(size) => (size, data),
        // One element, however long: its tensor's data is a length and the bytes.
        None => (4 + len, Tensor::from_byte_elements(&[data]).data().to_vec()),
    };
    let wrong = || InputError::Length {
        path: path.to_owned(),
        len,
        dtype: spec.dtype,
        shape: spec.shape.clone(),
    };
    let shape = fit_shape(&spec.shape, data.len() / size).ok_or_else(wrong)?;
    Tensor::new(spec.dtype, shape, data.into()).map_err(|_| wrong())
}

/// Nested arrays are the shape; without arrays around it, a value takes the input's shape of one
/// element.
fn from_json(spec: &TensorSpec, json: &serde_json::Value) -> Result<Tensor, InputError> {
    let name = || spec.name.clone();
    let (shape, data) = value::encode(spec.dtype, json).map_err(|source| InputError::Value {
        name: name(),
        source,
    })?;
    let shape = match json {
        serde_json::Value::Array(_) => shape,
        _ => fit_shape(&spec.shape, 1).unwrap_or(shape),
    };
    Tensor::new(spec.dtype, shape, data.into()).map_err(|source| InputError::Tensor {
        name: name(),
        source,
    })
}

/// The input's shape for `elements` elements: the first free axis takes what the others leave, each
/// further one is 1. `None` if no extent fits.
fn fit_shape(shape: &[i64], elements: usize) -> Option<Shape> {
    let extents = shape.iter().map(|extent| usize::try_from(*extent).ok());
    let fixed = extents
        .clone()
        .flatten()
        .try_fold(1_usize, usize::checked_mul)?;
    let mut free = elements.checked_div(fixed).unwrap_or(0);
    let whole = fixed.checked_mul(free) == Some(elements);
    if !whole || (free != 1 && !shape.contains(&-1)) {
        return None;
    }
    Some(
        extents
            .map(|extent| extent.unwrap_or_else(|| std::mem::replace(&mut free, 1)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(dtype: Dtype, shape: &[i64]) -> TensorSpec {
        TensorSpec {
            name: "x".to_owned(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    fn tensor(spec: &TensorSpec, input: &str) -> Result<Tensor, InputError> {
        let input = format!("x={input}").parse().unwrap();
        Ok(tensors(&[input], std::slice::from_ref(spec))?
            .remove(0)
            .tensor)
    }

    #[test]
    fn an_input_is_a_name_and_a_file_or_json() {
        for good in ["a=@b", "a=1", "a==\"=\"", "a=[[1],[2]]", "a=\"@b\""] {
            assert_eq!(
                good.parse::<Input>().is_ok(),
                !good.starts_with("a=="),
                "{good}"
            );
        }
        for bad in ["", "a", "=1", "a=", "a=@", "a=b", "a=[1"] {
            assert!(bad.parse::<Input>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_one_byte_string_or_raw_elements() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [1, 0, 2, 0, 3, 0]).unwrap();
        let input = format!("@{}", file.path().display());
        for (dtype, shape, wanted) in [
            (Dtype::Bytes, &[1][..], Some(&[1][..])),
            (Dtype::Bytes, &[-1, 1], Some(&[1, 1])),
            (Dtype::Bytes, &[], Some(&[])),
            (Dtype::Bytes, &[2], None),
            (Dtype::Uint16, &[3], Some(&[3])),
            (Dtype::Uint16, &[-1], Some(&[3])),
            (Dtype::Uint16, &[-1, 3, -1], Some(&[1, 3, 1])),
            (Dtype::Uint16, &[2], None),
            (Dtype::Uint16, &[0], None),
            (Dtype::Uint16, &[], None),
            (Dtype::Uint32, &[-1], None),
            (Dtype::Uint8, &[i64::MAX, i64::MAX, -1], None),
        ] {
            let tensor = tensor(&spec(dtype, shape), &input);
            assert_eq!(
                tensor.as_ref().ok().map(Tensor::shape),
                wanted,
                "{dtype} {shape:?}"
            );
        }
        let bytes = tensor(&spec(Dtype::Bytes, &[1]), &input).unwrap();
        assert_eq!(&bytes.data()[..], [6, 0, 0, 0, 1, 0, 2, 0, 3, 0]);
    }

    #[test]
    fn json_brings_its_shape_and_a_lone_value_takes_the_inputs() {
        for (shape, json, wanted) in [
            (&[-1, 2][..], "[[1,2],[3,4]]", &[2, 2][..]),
            (&[1, 1], "7", &[1, 1]),
            (&[-1], "7", &[1]),
            (&[], "7", &[]),
        ] {
            let tensor = tensor(&spec(Dtype::Int64, shape), json).unwrap();
            assert_eq!(tensor.shape(), wanted, "{json}");
        }
    }

    #[test]
    fn each_input_is_given_once_and_is_known() {
        let specs = [spec(Dtype::Int64, &[1])];
        let input = |text: &str| text.parse::<Input>().unwrap();
        for inputs in [
            vec![],
            vec![input("x=1"), input("x=2")],
            vec![input("x=1"), input("y=1")],
        ] {
            let error = tensors(&inputs, &specs).unwrap_err().to_string();
            assert!(error.contains("x (INT64 of shape [1])"), "{error}");
        }
    }
}
