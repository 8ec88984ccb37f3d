//! Writes the reply to an inference request: JSON, then the binary outputs that it announces.
//!
//! Binary outputs leave as the reply's own bytes. The parameters say where the request ran and why:
//! `tidegate_placement` (`local` or `relay`), `tidegate_relay` (its name), `tidegate_reason`,
//! `tidegate_queue_us` and `tidegate_infer_us`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use tidegate_inference::{Dtype, Failure, FailureKind, NamedTensor, Placement, Reply};

use crate::budget::Charge;
use crate::coding::Coding;
use crate::data::JsonData;
use crate::infer_request::{Form, WantedOutputs};

/// Length of the JSON at the start of a body that binary tensors follow.
pub(crate) const JSON_LEN: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Bodies below this length are not worth compressing: they fit one packet as they are.
const COMPRESS_BYTES_MIN: usize = 1024;

/// The body of a reply in pieces, the JSON first.
#[derive(Debug)]
pub(crate) struct Encoded {
    pieces: Vec<Bytes>,
}

/// Writes `reply` in the forms that the caller asked for.
///
/// Fails as the caller's fault if an output was asked for that there is not, or in JSON where it
/// has no JSON form; for want of budget if the JSON does not fit `charge`, to which it stays charged.
pub(crate) fn encode(
    model: &str,
    id: Option<&str>,
    wanted: &WantedOutputs,
    reply: &Reply,
    charge: &mut Charge,
) -> Result<Encoded, Failure> {
    let outputs = select(model, wanted, &reply.outputs)?;
    let binary = outputs
        .iter()
        .filter(|(_, form)| *form == Form::Binary)
        .map(|(output, _)| output.tensor.data().clone());
    let mut pieces = vec![Bytes::new()];
    pieces.extend(binary);
    let described = outputs
        .into_iter()
        .map(|(output, form)| {
            let tensor = &output.tensor;
            let (binary, data) = match form {
                Form::Binary => (Some(tensor.data().len()), None),
                Form::Json => (None, Some(JsonData(tensor))),
            };
            OutputObject {
                name: &output.name,
                datatype: tensor.dtype(),
                shape: tensor.shape(),
                parameters: binary.map(|binary_data_size| OutputParameters { binary_data_size }),
                data,
            }
        })
        .collect();
    let response = ResponseObject {
        model_name: model,
        model_version: &reply.version,
        id,
        parameters: ResponseParameters {
            tidegate_placement: reply.placement.to_string(),
            tidegate_relay: match &reply.placement {
                Placement::Local => None,
                Placement::Relay(name) => Some(name),
            },
            tidegate_reason: reply.reason.name(),
            tidegate_queue_us: reply.timings.queue.as_micros(),
            tidegate_infer_us: reply.timings.infer.as_micros(),
        },
        outputs: described,
    };
    let mut json = charge.buffer();
    serde_json::to_writer(&mut json, &response).map_err(|error| {
        io::Error::from(error).downcast().unwrap_or_else(|error| {
            let message = format!("an output cannot be sent as JSON: {error}");
            Failure::new(FailureKind::Invalid, message)
        })
    })?;
    pieces[0] = json.finish();
    Ok(Encoded { pieces })
}

/// The outputs that the caller wants, with their forms: all in the model's order, or those named.
fn select<'a>(
    model: &str,
    wanted: &WantedOutputs,
    outputs: &'a [NamedTensor],
) -> Result<Vec<(&'a NamedTensor, Form)>, Failure> {
    if wanted.named.is_empty() {
        return Ok(outputs
            .iter()
            .map(|output| (output, wanted.default))
            .collect());
    }
    let find = |(index, (name, form)): (usize, &(String, Form))| {
        let output = outputs.iter().find(|output| output.name == *name);
        output.map(|output| (output, *form)).ok_or_else(|| {
            let message = format!("outputs[{index}].name: model {model:?} has no output {name:?}");
            Failure::new(FailureKind::Invalid, message)
        })
    };
    wanted.named.iter().enumerate().map(find).collect()
}

/// How many bytes of JSON and compressed data `encode` and `respond` would have to work through.
pub(crate) fn work_bytes(wanted: &WantedOutputs, reply: &Reply, coding: Option<Coding>) -> usize {
    let form = |name: &str| {
        let named = wanted.named.iter().find(|(named, _)| named == name);
        named.map_or(wanted.default, |(_, form)| *form)
    };
    reply
        .outputs
        .iter()
        .filter(|output| coding.is_some() || form(&output.name) == Form::Json)
        .map(|output| output.tensor.data().len())
        .sum()
}

/// Bytes of the tensors that a reply holds.
pub(crate) fn held_bytes(reply: &Reply) -> usize {
    let outputs = reply.outputs.iter();
    outputs.map(|output| output.tensor.data().len()).sum()
}

impl Encoded {
    /// Makes the response, compressed if `coding` says so and it is worth it. Its body holds `charge`,
    /// which pays for every piece, until it is written or dropped.
    pub(crate) fn into_response(
        self,
        coding: Option<Coding>,
        mut charge: Charge,
    ) -> Result<Response, Failure> {
        let json_len = (self.pieces.len() > 1).then(|| self.pieces[0].len());
        let len: usize = self.pieces.iter().map(Bytes::len).sum();
        let coding = coding.filter(|_| len >= COMPRESS_BYTES_MIN);
        let pieces = match coding {
            Some(coding) => vec![coding.compress(&self.pieces, &mut charge)?],
            None => self.pieces,
        };
        let pieces = pieces.into_iter().map(|piece| charge.attach(piece));
        let mut response = Response::new(Body::new(Pieces(pieces.collect())));
        let headers = response.headers_mut();
        let content_type = match json_len {
            Some(json_len) => {
                headers.insert(JSON_LEN, HeaderValue::from(json_len));
                "application/octet-stream"
            }
            None => "application/json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
        }
        Ok(response)
    }
}

/// A body of known length that is sent piece by piece, without joining the pieces.
struct Pieces(VecDeque<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let len: usize = self.0.iter().map(Bytes::len).sum();
        SizeHint::with_exact(len as u64)
    }
}

#[derive(Serialize)]
struct ResponseObject<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: ResponseParameters<'a>,
    outputs: Vec<OutputObject<'a>>,
}

#[derive(Serialize)]
struct ResponseParameters<'a> {
    tidegate_placement: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tidegate_relay: Option<&'a str>,
    tidegate_reason: &'static str,
    tidegate_queue_us: u128,
    tidegate_infer_us: u128,
}

#[derive(Serialize)]
struct OutputObject<'a> {
    name: &'a str,
    datatype: Dtype,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<OutputParameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<JsonData<'a>>,
}

#[derive(Serialize)]
struct OutputParameters {
    binary_data_size: usize,
}
