//! Parses an inference request: JSON, the binary tensors after it, or one raw tensor alone.
//!
//! The JSON is read by seeds that write tensor data straight to bytes. That needs `datatype` and
//! `shape` before `data`, which every known client sends; where `data` comes first it is skipped
//! and read by a second pass that knows them. Unknown fields and parameters are ignored, as the
//! protocol says. Parameters of Triton extensions that would change what a reply means, and that
//! are not served (classification, shared memory), are refused rather than ignored.
//!
//! `priority` follows Triton's schedule policy: 0 is the default and 1 the most urgent. There are
//! three levels here: 1 is high, 0 and 2 are normal, 3 and above are low. `timeout` counts
//! microseconds; 0 is the default.

mod fields;
mod json;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_inference::{
    Dtype, Failure, FailureKind, ModelMetadata, NamedTensor, Priority, Request, Shape, Tensor,
};

use self::json::{Data, Draft, InputDraft};

/// Most inputs, or requested outputs, of one request.
pub const TENSORS_MAX: usize = 1024;

/// Longest `id` of a request, in bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 256;

/// Which model a path names.
#[derive(Clone, Debug, serde::Deserialize)]
pub(crate) struct Target {
    pub(crate) model: String,
    #[serde(default)]
    pub(crate) version: Option<String>,
}

/// A parsed request and how its caller wants the outputs.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) request: Request,
    pub(crate) wanted: WantedOutputs,
}

/// Which outputs the caller asked for, and in which form.
#[derive(Clone, Debug)]
pub(crate) struct WantedOutputs {
    /// The form of outputs that do not name theirs.
    pub(crate) default: Form,
    /// All outputs if empty.
    pub(crate) named: Vec<(String, Form)>,
}

/// How a tensor travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Json,
    Binary,
}

/// Parses `body`, whose first `json_len` bytes are JSON and whose rest is binary tensor data.
pub(crate) fn parse(
    target: Target,
    body: &Bytes,
    json_len: usize,
    now: Instant,
) -> Result<Parsed, Failure> {
    let (json, tail) = (&body[..json_len], body.slice(json_len..));
    let draft = json::read(json)?;
    let Draft {
        id,
        parameters,
        inputs,
        outputs,
    } = draft;
    let form = |binary| match binary {
        true => Form::Binary,
        false => Form::Json,
    };
    let default = form(parameters.binary_data_output.unwrap_or(false));
    let mut named: Vec<(String, Form)> = Vec::with_capacity(outputs.len());
    for (index, output) in outputs.into_iter().enumerate() {
        if named.iter().any(|(earlier, _)| *earlier == output.name) {
            let name = output.name;
            return Err(invalid(format!(
                "outputs[{index}]: output {name:?} is asked for twice"
            )));
        }
        let own = output.parameters.and_then(|own| own.binary_data);
        named.push((output.name, own.map_or(default, form)));
    }
    let request = Request {
        id,
        model: target.model,
        version: target.version,
        inputs: assemble(inputs, tail)?,
        outputs: named.iter().map(|(name, _)| name.clone()).collect(),
        priority: match parameters.priority.unwrap_or(0) {
            1 => Priority::High,
            0 | 2 => Priority::Normal,
            _ => Priority::Low,
        },
        deadline: parameters
            .timeout
            .filter(|timeout| *timeout > 0)
            .and_then(|timeout| now.checked_add(Duration::from_micros(timeout))),
    };
    let wanted = WantedOutputs { default, named };
    Ok(Parsed { request, wanted })
}

/// A request whose body is nothing but the data of the model's one input, as Triton's raw binary
/// requests are. A BYTES input takes the body as its one element; the shape of any other follows
/// from the length of the body, as long as at most one axis is free. Outputs come back in binary.
pub(crate) fn parse_raw(
    target: Target,
    metadata: ModelMetadata,
    body: Bytes,
) -> Result<Parsed, Failure> {
    let inputs = metadata.inputs.len();
    let Ok([spec]) = <[_; 1]>::try_from(metadata.inputs) else {
        return Err(invalid(format!(
            "a raw binary request fits a model with one input, this one has {inputs}"
        )));
    };
    let tensor = match spec.dtype.size() {
        None => {
            let element = Tensor::from_byte_elements(&[&body]);
            let shape = spec.shape.iter().map(|_| 1).collect();
            Tensor::new(Dtype::Bytes, shape, element.data().clone())
        }
        Some(size) => {
            let shape = deduced_shape(&spec.shape, size, body.len())?;
            Tensor::new(spec.dtype, shape, body)
        }
    };
    let tensor = tensor.map_err(|error| invalid(format!("input {:?}: {error}", spec.name)))?;
    let request = Request {
        id: None,
        model: target.model,
        version: target.version,
        inputs: vec![NamedTensor {
            name: spec.name,
            tensor,
        }],
        outputs: Vec::new(),
        priority: Priority::default(),
        deadline: None,
    };
    let wanted = WantedOutputs {
        default: Form::Binary,
        named: Vec::new(),
    };
    Ok(Parsed { request, wanted })
}

/// `shape` with its one free axis, if any, set so that the tensor takes `len` bytes where it can.
fn deduced_shape(shape: &[i64], size: usize, len: usize) -> Result<Shape, Failure> {
    let fixed = shape
        .iter()
        .filter_map(|extent| usize::try_from(*extent).ok());
    let row = fixed
        .fold(size, |product, extent| product.saturating_mul(extent))
        .max(1);
    if shape.iter().filter(|extent| **extent < 0).count() > 1 {
        let message = "a raw binary request fits a model with at most one free axis";
        return Err(invalid(message));
    }
    let shape = shape.iter();
    Ok(shape
        .map(|extent| usize::try_from(*extent).unwrap_or(len / row))
        .collect())
}

fn assemble(drafts: Vec<InputDraft>, mut tail: Bytes) -> Result<Vec<NamedTensor>, Failure> {
    let mut inputs: Vec<NamedTensor> = Vec::with_capacity(drafts.len());
    for (index, draft) in drafts.into_iter().enumerate() {
        let at = |message| invalid(format!("inputs[{index}]{message}"));
        if inputs.iter().any(|earlier| earlier.name == draft.name) {
            return Err(at(format!(": input {:?} is given twice", draft.name)));
        }
        let data = match (draft.data, draft.binary_data_size) {
            (Data::Bytes(data), None) => Bytes::from(data),
            (Data::Absent, Some(size)) if size <= tail.len() => tail.split_to(size),
            (Data::Absent, Some(size)) => {
                let left = tail.len();
                return Err(at(format!(
                    ".parameters.binary_data_size: {size} bytes announced, {left} left in the \
                     body after the JSON of Inference-Header-Content-Length bytes"
                )));
            }
            (Data::Absent, None) => {
                return Err(at(": neither data nor binary_data_size is given".into()));
            }
            (Data::Bytes(_), Some(_)) => {
                return Err(at(": both data and binary_data_size are given".into()));
            }
        };
        let tensor = Tensor::new(draft.dtype, draft.shape, data)
            .map_err(|error| at(format!(".data: {error}")))?;
        inputs.push(NamedTensor {
            name: draft.name,
            tensor,
        });
    }
    match tail.len() {
        0 => Ok(inputs),
        rest => Err(invalid(format!(
            "{rest} bytes follow the last binary tensor in the body"
        ))),
    }
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, message)
}
