//! Translates every refusal into a status code and `{"error": "..."}`, here and nowhere else.
//!
//! Most refusals are a [`Failure`], whose kind fixes the status. The few that only HTTP knows (no
//! such path, wrong method, unknown content coding, a body that never ends) are made by name.
//! Messages may quote what the caller sent, so they are cut at [`MESSAGE_BYTES_MAX`].

use std::time::Duration;

use axum::http::header::{ACCEPT_ENCODING, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tidegate_inference::{Failure, FailureKind};

use crate::json_body::JsonBody;

/// Longest error message that is sent. A path, a name and a reason fit several times.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The answer to a request that got no result.
#[derive(Debug)]
pub(crate) struct ErrorReply {
    status: StatusCode,
    message: String,
    retry_after: Option<Duration>,
}

impl ErrorReply {
    fn new(status: StatusCode, message: String) -> Self {
        Self {
            status,
            message,
            retry_after: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Failure::new(FailureKind::Invalid, message).into()
    }

    pub(crate) fn no_such_path(uri: &Uri) -> Self {
        let message = format!("there is nothing at {}", uri.path());
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn method_not_allowed(method: &Method, uri: &Uri) -> Self {
        let message = format!("{method} is not served at {}", uri.path());
        Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    pub(crate) fn unsupported_coding(coding: &str) -> Self {
        let message = format!("Content-Encoding {coding:?} is not understood: use gzip or deflate");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub(crate) fn body_too_slow(waited: Duration) -> Self {
        let message = format!("the request body did not end within {waited:?}");
        Self::new(StatusCode::REQUEST_TIMEOUT, message)
    }
}

impl From<Failure> for ErrorReply {
    fn from(failure: Failure) -> Self {
        let status = match failure.kind {
            FailureKind::Invalid => StatusCode::BAD_REQUEST,
            FailureKind::NotFound => StatusCode::NOT_FOUND,
            FailureKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            FailureKind::Overloaded | FailureKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            FailureKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            FailureKind::Cancelled => {
                StatusCode::from_u16(499).expect("499 is within the range of status codes")
            }
            FailureKind::Module | FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self {
            status,
            message: failure.message,
            retry_after: failure.retry_after,
        }
    }
}

impl IntoResponse for ErrorReply {
    fn into_response(mut self) -> Response {
        let cut = self.message.floor_char_boundary(MESSAGE_BYTES_MAX);
        self.message.truncate(cut);
        let body = JsonBody(serde_json::json!({ "error": self.message }));
        let mut response = (self.status, body).into_response();
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => {
                // The header counts whole seconds, and 0 would invite an immediate stampede.
                let wait = self.retry_after.unwrap_or_default();
                let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
                let headers = response.headers_mut();
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                let understood = HeaderValue::from_static("gzip, deflate");
                response.headers_mut().insert(ACCEPT_ENCODING, understood);
            }
            _ => {}
        }
        response
    }
}
