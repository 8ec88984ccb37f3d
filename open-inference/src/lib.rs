//! The Open Inference Protocol v2 front over anything that infers. Makes no decisions.
//!
//! REST as Triton's and KServe's clients speak it: health, metadata, repository index, infer with
//! JSON and with the binary tensor extension, gzip and deflate both ways. What runs a request is an
//! [`Infer`]; what this crate adds is parsing at the border and one translation of each
//! [`Failure`] into a status code and `{"error": "..."}`.
//!
//! Binary tensors are slices of the request's body, and binary outputs are sent from the reply's
//! own bytes: neither is copied here. JSON data goes from text to tensor bytes in one pass. A body
//! large enough to hold up an executor thread is parsed and compressed on the blocking pool.
//!
//! Everything that a caller can make large is bounded by [`Limits`] and the constants of this
//! crate: one body, all bodies together, the time that a body may take, names, ranks, counts.

mod body;
mod budget;
mod coding;
mod data;
mod error;
mod infer_request;
mod infer_response;
mod json_body;
mod routes;
mod trail;

use std::time::Duration;

use tidegate_inference::{Failure, ModelMetadata, Reply, Request};

pub use infer_request::{ID_BYTES_MAX, TENSORS_MAX};
pub use routes::router;

/// What the front serves. The agent implements it.
pub trait Infer: Send + Sync + 'static {
    /// Runs one request, whose model may be unknown and whose inputs may not fit it: both are
    /// failures of kind `NotFound` and `Invalid`. Dropping the future cancels the request.
    fn infer(&self, request: Request) -> impl Future<Output = Result<Reply, Failure>> + Send;

    /// Metadata of a model, `NotFound` if there is none of this name and version.
    fn model(&self, name: &str, version: Option<&str>) -> Result<ModelMetadata, Failure>;

    /// Every version of a model that answers requests which name it, the one for all others first;
    /// empty if there is no such model.
    fn model_versions(&self, name: &str) -> Vec<String>;

    /// Names of all models.
    fn model_names(&self) -> Vec<String>;

    /// Whether the server takes requests for the models that it has: false while it drains.
    fn takes_requests(&self) -> bool;

    /// Whether it takes requests, and for every model that it should have.
    fn is_ready(&self) -> bool;
}

/// Limits of the front.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes of a request body, after decompression too.
    pub body_bytes_max: usize,
    /// Most bytes that all requests and replies under way may hold together, parsed tensors included;
    /// a reply counts until its caller has taken it. A request that would pass it now, by itself or by
    /// its reply, is refused as overloaded, one that would pass it alone as too large. JSON may grow
    /// fourfold while it is parsed, so this is best at least five times `body_bytes_max`.
    /// At most `u32::MAX`.
    pub bodies_bytes_max: usize,
    /// Longest wait for the whole of a request body. A connection that sends its body more slowly
    /// is answered with 408.
    pub body_wait_max: Duration,
}

impl Default for Limits {
    /// A 4K RGB frame as FP32 is 95 MiB and better sent as an encoded image, so 64 MiB a body; eight
    /// of them together fit a small device; and 64 MiB takes 27 s at 20 Mb/s.
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            bodies_bytes_max: 512 << 20,
            body_wait_max: Duration::from_secs(60),
        }
    }
}
