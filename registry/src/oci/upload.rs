//! What goes up to a registry: bodies that are watched while they are sent, and blobs.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode, Url};
use tidegate_inference::Digest;
use tokio::time::timeout;

use super::answer::{broken, stalled};
use super::auth::Scope;
use super::error::TransferError;
use super::reference::Reference;
use super::transport::{Call, Transport, host_of};
use super::watch::Watch;
use crate::modules::sha256;

/// Bytes that are handed to the connection at once.
const PART_BYTES: usize = 128 << 10;

/// Stalls that a registry may take to store a body that it has: it copies and hashes some GiB.
const COMMIT_STALLS: u32 = 4;

/// Times that a blob is sent before the registry is given up.
const ATTEMPTS_MAX: u32 = 3;

/// A body, and who follows its way.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    pub(crate) bytes: Bytes,
    pub(crate) watch: Watch,
}

/// Sends a request with a body. It fails when a stall passes in which no part of the body went out.
pub(crate) async fn send(
    request: RequestBuilder,
    upload: &Upload,
    host: &str,
    stall: Duration,
) -> Result<Response, TransferError> {
    let whole = upload.bytes.len();
    let out = Arc::new(AtomicUsize::new(0));
    let (counter, watch) = (Arc::clone(&out), upload.watch.clone());
    let parts = stream::unfold(upload.bytes.clone(), move |mut rest| {
        let part = rest.split_to(rest.len().min(PART_BYTES));
        if !part.is_empty() {
            counter.store(whole - rest.len(), Ordering::Relaxed);
            watch.report((whole - rest.len()) as u64, whole as u64);
        }
        let next = (!part.is_empty()).then_some((Ok::<_, std::io::Error>(part), rest));
        std::future::ready(next)
    });
    let request = request
        .header(CONTENT_LENGTH, whole)
        .body(Body::wrap_stream(parts));
    let mut answer = pin!(request.send());
    let (mut seen, mut idle) = (0, 0);
    loop {
        if let Ok(answered) = timeout(stall, &mut answer).await {
            return answered.map_err(|error| broken(host, stall, error));
        }
        let now = out.load(Ordering::Relaxed);
        idle = if now == seen { idle + 1 } else { 0 };
        seen = now;
        let idle_max = if now == whole { COMMIT_STALLS } else { 1 };
        if idle >= idle_max {
            return Err(stalled(host, stall * idle_max));
        }
    }
}

impl Transport {
    /// Puts a blob into a reference's repository, unless it is there.
    pub(crate) async fn put_blob(
        &self,
        reference: &Reference,
        bytes: &Bytes,
        watch: &Watch,
    ) -> Result<Digest, TransferError> {
        let digest = sha256(bytes);
        let scope = Scope::Push(reference.repository().to_owned());
        let what = format!("blob {digest} of {reference}");
        let url = self.url(reference, &format!("blobs/{digest}"))?;
        let head = Call::new(Method::HEAD, url, scope.clone(), what.clone());
        let there = self.call(&head, &[StatusCode::NOT_FOUND]).await?;
        if there.status().is_success() {
            tracing::debug!(%digest, "the registry has this blob");
            return Ok(digest);
        }
        let begin = self.url(reference, "blobs/uploads/")?;
        let mut begin = Call::new(Method::POST, begin, scope.clone(), what.clone());
        begin
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        for left in (0..ATTEMPTS_MAX).rev() {
            let session = self.call(&begin, &[]).await?;
            let url = self.upload_url(&begin.url, &session, &digest, &what)?;
            let mut put = Call::new(Method::PUT, url, scope.clone(), what.clone());
            let kind = HeaderValue::from_static("application/octet-stream");
            put.headers.insert(CONTENT_TYPE, kind);
            let (bytes, watch) = (bytes.clone(), watch.clone());
            put.body = Some(Upload { bytes, watch });
            // A session that was cut cannot be sent to again from its beginning, so each attempt has its own.
            match self.once(&put, &[]).await {
                Ok(stored) => return self.stored(&stored, &digest, &what).map(|()| digest),
                Err(error) if left == 0 || !error.is_temporary() => return Err(error),
                Err(error) => tracing::debug!(%digest, %error, "sending a blob again"),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Where an upload's body goes.
    fn upload_url(
        &self,
        begun: &Url,
        session: &Response,
        digest: &Digest,
        what: &str,
    ) -> Result<Url, TransferError> {
        let location = session
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        let url = location.and_then(|text| begun.join(text).ok());
        let mut url = url.ok_or_else(|| TransferError::Answer {
            host: host_of(begun),
            what: what.to_owned(),
            reason: "no address to send it to".to_owned(),
        })?;
        if begun.scheme() == "https" && url.scheme() != "https" {
            let host = host_of(begun);
            let reason = "an upload to an address without TLS";
            return Err(TransferError::Redirect { host, reason });
        }
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        Ok(url)
    }

    /// Whether what the registry stored is what it was sent, by its own account.
    pub(crate) fn stored(
        &self,
        response: &Response,
        digest: &Digest,
        what: &str,
    ) -> Result<(), TransferError> {
        let Some(value) = response.headers().get("docker-content-digest") else {
            return Ok(());
        };
        if value.as_bytes() == digest.to_string().as_bytes() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(value.as_bytes());
        Err(TransferError::Answer {
            host: host_of(response.url()),
            what: what.to_owned(),
            reason: format!(
                "another digest than {digest}{}",
                super::error::harmless(&text)
            ),
        })
    }
}
