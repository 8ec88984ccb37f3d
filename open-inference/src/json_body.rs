//! A response whose body is a JSON document.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Sends `T`, which must be a plain tree of maps with string keys, lists and values.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for JsonBody<T> {
    fn into_response(self) -> Response {
        let json = serde_json::to_vec(&self.0).expect("string keys and plain values serialise");
        let content_type = HeaderValue::from_static("application/json");
        ([(CONTENT_TYPE, content_type)], json).into_response()
    }
}
