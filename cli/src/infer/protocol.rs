//! The client's side of the Open Inference Protocol, REST with the binary tensor extension.
//!
//! An agent may answer in binary or in JSON, output by output; both are read. Lengths that lie are
//! an error.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tidegate_inference::{Dtype, NamedTensor, Shape, Tensor, TensorError, TensorSpec};

use super::value::{self, ValueError};
use crate::http::Response;

/// Says how many bytes of a body are JSON; tensors follow.
const HEADER_LENGTH: &str = "Inference-Header-Content-Length";

/// Longest error text that is shown, in characters.
const ERROR_CHARS_MAX: usize = 500;

/// Why an answer is not of the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// The JSON is malformed, or lacks something.
    #[error("its JSON is not what the protocol has")]
    Json(#[from] serde_json::Error),
    /// The header length is not a number within the body.
    #[error("its {HEADER_LENGTH} does not fit its body")]
    HeaderLength,
    /// An output claims more bytes than the body has.
    #[error("output {0:?} runs past the end of the body")]
    Truncated(String),
    /// An output has neither data nor a length.
    #[error("output {0:?} has no data")]
    NoData(String),
    /// An output's JSON elements do not fit its type.
    #[error("output {name:?}")]
    Value {
        /// The output.
        name: String,
        /// What is wrong.
        source: ValueError,
    },
    /// An output's bytes do not make its tensor.
    #[error("output {name:?}")]
    Tensor {
        /// The output.
        name: String,
        /// What is wrong.
        source: TensorError,
    },
}

/// An answer, for a person.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The model that answered.
    pub(super) model: String,
    /// Its version.
    pub(super) version: Option<String>,
    /// What the agent adds: where it ran and how long it took.
    pub(crate) parameters: Map<String, Value>,
    /// The outputs, in the model's order.
    pub(super) outputs: Vec<NamedTensor>,
}

/// The model's path, its name percent-encoded.
pub(super) fn model_path(model: &str) -> String {
    let mut path = "/v2/models/".to_owned();
    for byte in model.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                path.push(char::from(byte));
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// The inputs in a model's metadata.
pub(super) fn read_metadata(body: &[u8]) -> Result<Vec<TensorSpec>, ProtocolError> {
    #[derive(Deserialize)]
    struct Metadata {
        inputs: Vec<Input>,
    }
    // Other servers may say more of an input.
    #[derive(Deserialize)]
    struct Input {
        name: String,
        datatype: Dtype,
        shape: Vec<i64>,
    }
    let Metadata { inputs } = serde_json::from_slice(body)?;
    let spec = |Input {
                    name,
                    datatype,
                    shape,
                }| TensorSpec {
        name,
        dtype: datatype,
        shape,
    };
    Ok(inputs.into_iter().map(spec).collect())
}

/// The `error` of a refusal, or the start of whatever else came.
pub(super) fn read_error(body: &[u8]) -> String {
    let text = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|json| json.get("error")?.as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    text.trim()
        .chars()
        .filter(|character| !character.is_control())
        .take(ERROR_CHARS_MAX)
        .collect()
}

/// Headers and body of a request: JSON, then the tensors' bytes.
pub(crate) fn write_request(inputs: &[NamedTensor]) -> (Vec<(&'static str, String)>, Bytes) {
    let describe = |input: &NamedTensor| {
        json!({
            "name": input.name,
            "datatype": input.tensor.dtype(),
            "shape": input.tensor.shape(),
            "parameters": {"binary_data_size": input.tensor.data().len()},
        })
    };
    let header = json!({
        "inputs": inputs.iter().map(describe).collect::<Vec<_>>(),
        "parameters": {"binary_data_output": true},
    });
    let mut body = header.to_string().into_bytes();
    let headers = vec![
        ("Content-Type", "application/octet-stream".to_owned()),
        (HEADER_LENGTH, body.len().to_string()),
    ];
    inputs
        .iter()
        .for_each(|input| body.extend_from_slice(input.tensor.data()));
    (headers, body.into())
}

/// Reads a reply, with its tensors in binary or in JSON.
pub(crate) fn read_reply(response: &Response) -> Result<Answer, ProtocolError> {
    #[derive(Deserialize)]
    struct Header {
        model_name: String,
        model_version: Option<String>,
        #[serde(default)]
        parameters: Map<String, Value>,
        outputs: Vec<Output>,
    }
    let mut body = response.body.clone();
    let header = match response.headers.get(HEADER_LENGTH) {
        None => std::mem::take(&mut body),
        Some(length) => {
            let length = length.to_str().ok().and_then(|text| text.parse().ok());
            let fits = length.filter(|length| *length <= body.len());
            body.split_to(fits.ok_or(ProtocolError::HeaderLength)?)
        }
    };
    let header: Header = serde_json::from_slice(&header)?;
    let outputs = header
        .outputs
        .into_iter()
        .map(|output| output.read(&mut body));
    Ok(Answer {
        outputs: outputs.collect::<Result<_, _>>()?,
        model: header.model_name,
        version: header.model_version,
        parameters: header.parameters,
    })
}

/// One output, as the JSON describes it.
#[derive(Deserialize)]
struct Output {
    name: String,
    datatype: Dtype,
    shape: Vec<usize>,
    #[serde(default)]
    parameters: OutputParameters,
    data: Option<Value>,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    binary_data_size: Option<usize>,
}

impl Output {
    /// The tensor, whose bytes, if any, are next in `body`.
    fn read(self, body: &mut Bytes) -> Result<NamedTensor, ProtocolError> {
        let Self {
            name,
            datatype,
            shape,
            parameters,
            data,
        } = self;
        let data = match (parameters.binary_data_size, data) {
            (Some(length), _) if length <= body.len() => body.split_to(length),
            (Some(_), _) => return Err(ProtocolError::Truncated(name)),
            // The protocol lets JSON be nested or flat; the shape says which tensor it is.
            (None, Some(json)) => match value::encode(datatype, &json) {
                Ok((_, data)) => data.into(),
                Err(source) => return Err(ProtocolError::Value { name, source }),
            },
            (None, None) => return Err(ProtocolError::NoData(name)),
        };
        match Tensor::new(datatype, Shape::from_vec(shape), data) {
            Ok(tensor) => Ok(NamedTensor { name, tensor }),
            Err(source) => Err(ProtocolError::Tensor { name, source }),
        }
    }
}

impl Serialize for Answer {
    /// The protocol's JSON form, with all elements flat.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let output = |output: &NamedTensor| {
            json!({
                "name": output.name,
                "datatype": output.tensor.dtype(),
                "shape": output.tensor.shape(),
                "data": value::decode(&output.tensor, usize::MAX),
            })
        };
        json!({
            "model_name": self.model,
            "model_version": self.version,
            "parameters": self.parameters,
            "outputs": self.outputs.iter().map(output).collect::<Vec<_>>(),
        })
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, StatusCode};

    use super::*;

    fn reply(header_length: Option<&str>, body: &[u8]) -> Result<Answer, ProtocolError> {
        let mut headers = HeaderMap::new();
        if let Some(length) = header_length {
            headers.insert(HEADER_LENGTH, length.parse().unwrap());
        }
        let body = Bytes::copy_from_slice(body);
        read_reply(&Response {
            status: StatusCode::OK,
            headers,
            body,
        })
    }

    /// A reply with the given outputs, and the bytes behind its JSON.
    fn outputs(outputs: &Value, tail: &[u8]) -> Result<Answer, ProtocolError> {
        let mut body = json!({"model_name": "m", "outputs": outputs})
            .to_string()
            .into_bytes();
        let length = body.len().to_string();
        body.extend_from_slice(tail);
        reply(Some(&length), &body)
    }

    #[test]
    fn names_cannot_leave_their_place_in_the_path() {
        assert_eq!(model_path("face-1.0_b"), "/v2/models/face-1.0_b");
        assert_eq!(model_path("../a b?ü"), "/v2/models/..%2Fa%20b%3F%C3%BC");
    }

    #[test]
    fn outputs_come_in_binary_or_in_json() {
        let described = json!([
            {"name": "a", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}},
            {"name": "b", "datatype": "INT8", "shape": [2, 1], "data": [-1, 2]},
            {"name": "c", "datatype": "UINT8", "shape": [1], "parameters": {"binary_data_size": 1}},
        ]);
        let answer = outputs(&described, &[1, 2, 3]).unwrap();
        let data: Vec<&[u8]> = answer
            .outputs
            .iter()
            .map(|output| &output.tensor.data()[..])
            .collect();
        assert_eq!(data, [&[1, 2][..], &[255, 2], &[3]]);
        let written = serde_json::to_value(&answer).unwrap();
        assert_eq!(written["outputs"][1]["data"], json!([-1, 2]));
        assert_eq!(written["outputs"][1]["shape"], json!([2, 1]));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let output = |shape: Value, size: usize| {
            let parameters = json!({"binary_data_size": size});
            json!([{"name": "a", "datatype": "UINT8", "shape": shape, "parameters": parameters}])
        };
        let refused = |outcome: Result<Answer, ProtocolError>| outcome.unwrap_err();
        use ProtocolError as E;
        assert!(matches!(
            refused(outputs(&output(json!([3]), 3), &[1, 2])),
            E::Truncated(_)
        ));
        assert!(matches!(
            refused(outputs(&output(json!([3]), 2), &[1, 2])),
            E::Tensor { .. }
        ));
        assert!(matches!(
            refused(outputs(&output(json!([-1]), 2), &[1, 2])),
            E::Json(_)
        ));
        assert!(matches!(refused(reply(Some("3"), b"{}")), E::HeaderLength));
        assert!(matches!(refused(reply(Some("-1"), b"{}")), E::HeaderLength));
        assert!(matches!(refused(reply(None, b"<html>")), E::Json(_)));
        let bare = json!([{"name": "a", "datatype": "UINT8", "shape": [1]}]);
        assert!(matches!(refused(outputs(&bare, &[])), E::NoData(_)));
    }

    #[test]
    fn an_error_is_its_text_without_control_characters() {
        assert_eq!(
            read_error(br#"{"error": "no such model"}"#),
            "no such model"
        );
        assert_eq!(read_error(b"plain\x1b[2J text\n"), "plain[2J text");
        assert_eq!(read_error(&[b'a'; 9999]).len(), ERROR_CHARS_MAX);
    }
}
