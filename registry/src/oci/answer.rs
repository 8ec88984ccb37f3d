//! What a registry answers: bodies up to a limit, failures, and pauses that it asks for.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_ENCODING, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::error::{TransferError, harmless};
use super::transport::{Call, Transport, host_of};

/// Most bytes of an error's body that are read for its message.
const ERROR_BYTES_MAX: usize = 16 << 10;

impl Transport {
    /// A whole body of at most `bytes_max` bytes, within the time of two stalls.
    pub(crate) async fn body(
        &self,
        mut response: Response,
        bytes_max: usize,
        what: &str,
    ) -> Result<Bytes, TransferError> {
        let too_large = |bytes| TransferError::TooLarge {
            what: what.to_owned(),
            bytes,
            bytes_max: bytes_max as u64,
        };
        let host = host_of(response.url());
        check_encoding(&response, what)?;
        if let Some(announced) = response
            .content_length()
            .filter(|length| *length > bytes_max as u64)
        {
            return Err(too_large(announced));
        }
        let stall = self.patience.stall;
        let end = Instant::now() + 2 * stall;
        let mut whole = BytesMut::new();
        loop {
            let chunk = timeout_at(end, response.chunk()).await;
            let chunk = chunk.map_err(|_| stalled(&host, 2 * stall))?;
            let Some(chunk) = chunk.map_err(|error| broken(&host, stall, error))? else {
                return Ok(whole.freeze());
            };
            if whole.len() + chunk.len() > bytes_max {
                return Err(too_large((whole.len() + chunk.len()) as u64));
            }
            whole.extend_from_slice(&chunk);
        }
    }

    /// What an answer without success means.
    pub(crate) async fn failure(&self, call: &Call, response: Response) -> TransferError {
        let host = host_of(response.url());
        let what = call.what.clone();
        match response.status() {
            StatusCode::NOT_FOUND => TransferError::NotFound { host, what },
            StatusCode::UNAUTHORIZED => {
                let found = self.found(call).await;
                TransferError::Unauthorized { host, what, found }
            }
            status => TransferError::Status {
                host,
                status: status.as_u16(),
                what,
                wait: retry_after(response.headers()),
                message: self.message(response).await,
            },
        }
    }

    /// What a registry says to an error, if it says something.
    async fn message(&self, response: Response) -> String {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let body = self.body(response, ERROR_BYTES_MAX, "an error").await;
        let errors = body
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok());
        let first = errors.and_then(|Errors { errors }| errors.into_iter().next());
        first.map_or_else(String::new, |entry| {
            harmless(format!("{} {}", entry.code, entry.message).trim())
        })
    }
}

pub(crate) fn stalled(host: &str, waited: Duration) -> TransferError {
    let host = host.to_owned();
    TransferError::Stalled { host, waited }
}

/// A connection that failed, or whose patience ended.
pub(crate) fn broken(host: &str, stall: Duration, error: reqwest::Error) -> TransferError {
    if error.is_timeout() && !error.is_connect() {
        return stalled(host, stall);
    }
    let (host, source) = (host.to_owned(), error.without_url());
    TransferError::Connect { host, source }
}

/// Refuses bodies that are compressed: none was asked for, and what it unpacks to has no limit.
pub(crate) fn check_encoding(response: &Response, what: &str) -> Result<(), TransferError> {
    let encoding = response.headers().get(CONTENT_ENCODING);
    match encoding.map(HeaderValue::as_bytes) {
        None | Some(b"identity" | b"") => Ok(()),
        Some(_) => Err(TransferError::Answer {
            host: host_of(response.url()),
            what: what.to_owned(),
            reason: "a compressed body that nobody asked for".to_owned(),
        }),
    }
}

/// How long a registry asks to wait: seconds, or the time of day that HTTP writes.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = httpdate::parse_http_date(text).ok()?;
    Some(time.duration_since(SystemTime::now()).unwrap_or_default())
}
