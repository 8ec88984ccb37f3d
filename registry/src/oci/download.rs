//! A module file comes down: resumed where it was cut, checked before it is kept.
//!
//! Connections are cut, registries restart, and devices lose power in the middle of a gigabyte. What has
//! arrived lies beside the store and counts for the next attempt, today or after a restart. A connection that
//! trickles is a stall as much as one that is silent, and a body that goes on past its announced size ends
//! the download. Nothing is kept whose digest is not the one that was asked for.

use std::pin::pin;

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tidegate_inference::Digest;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::{broken, check_encoding, stalled};
use super::auth::Scope;
use super::error::TransferError;
use super::reference::Reference;
use super::transport::{Call, Transport, host_of};
use super::watch::Watch;
use crate::modules::{KeptModule, ModuleStore, Partial, PartialError};

/// Bytes that must arrive within each stall, so that a trickle ends: 2 KiB/s with the usual patience.
const WINDOW_BYTES_MIN: u64 = 64 << 10;

/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// Attempts in a row that bring less than [`PROGRESS_BYTES_MIN`] before a download is given up.
const FAILURES_MAX: u32 = 4;

/// Bytes that make an attempt one that helped: with 1 GiB, at most 4096 of them.
const PROGRESS_BYTES_MIN: u64 = 256 << 10;

/// Between two looks at a download that another process feeds, in parts of a stall.
const LOOKS_PER_STALL: u32 = 50;

/// A module that a manifest names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) digest: Digest,
    pub(crate) bytes: u64,
}

/// How one attempt ended.
enum Attempt {
    /// All bytes are there.
    Whole,
    /// Something that may pass came between.
    Cut(TransferError),
}

/// The module, from the store or else from the registry.
pub(crate) async fn fetch(
    transport: &Transport,
    reference: &Reference,
    wanted: Wanted,
    store: &ModuleStore,
    watch: &Watch,
) -> Result<KeptModule, TransferError> {
    let digest = wanted.digest;
    if let Some(module) = get(store, digest).await? {
        return Ok(module);
    }
    let bytes_max = store.module_bytes_max();
    if wanted.bytes > bytes_max {
        return Err(TransferError::TooLarge {
            what: reference.to_string(),
            bytes: wanted.bytes,
            bytes_max,
        });
    }
    let Some(mut partial) = acquire(transport, wanted, store).await? else {
        // The other download is finished.
        return match get(store, digest).await? {
            Some(module) => Ok(module),
            None => Err(TransferError::Busy(digest)),
        };
    };
    // A damaged beginning is only found at the end: then everything is fetched once more.
    let mut may_be_damaged = partial.bytes() > 0;
    loop {
        partial = complete(transport, reference, wanted, partial, watch).await?;
        let got = partial.digest();
        if got == digest {
            break;
        }
        if !may_be_damaged {
            partial.discard();
            return Err(TransferError::Digest {
                host: reference.host().to_owned(),
                wanted: digest,
                got,
            });
        }
        tracing::warn!(%digest, "what was downloaded before is damaged; fetching all of it again");
        may_be_damaged = false;
        partial
            .restart()
            .map_err(|error| write_error(error, digest))?;
    }
    let adopting = store.clone();
    blocking(move || adopting.adopt(&digest, partial)).await?;
    let kept = get(store, digest).await?;
    kept.ok_or_else(|| TransferError::Digest {
        host: "the store".to_owned(),
        wanted: digest,
        got: digest,
    })
}

/// Makes attempts until all bytes have arrived.
async fn complete(
    transport: &Transport,
    reference: &Reference,
    wanted: Wanted,
    mut partial: Partial,
    watch: &Watch,
) -> Result<Partial, TransferError> {
    let mut failures = 0;
    let mut wait = transport.patience.retry_first;
    loop {
        let before = partial.bytes();
        let (returned, attempt) = attempt(transport, reference, wanted, partial, watch).await?;
        partial = returned;
        match attempt {
            Attempt::Whole => return Ok(partial),
            Attempt::Cut(error) => {
                if partial.bytes() >= before.saturating_add(PROGRESS_BYTES_MIN) {
                    (failures, wait) = (0, transport.patience.retry_first);
                }
                failures += 1;
                if failures >= FAILURES_MAX {
                    return Err(error);
                }
                transport.pause("a download", &error, wait).await?;
                wait *= 2;
            }
        }
    }
}

/// One request for what is missing.
async fn attempt(
    transport: &Transport,
    reference: &Reference,
    wanted: Wanted,
    mut partial: Partial,
    watch: &Watch,
) -> Result<(Partial, Attempt), TransferError> {
    let digest = wanted.digest;
    if partial.bytes() > wanted.bytes {
        partial
            .restart()
            .map_err(|error| write_error(error, digest))?;
    }
    if partial.bytes() == wanted.bytes {
        return Ok((partial, Attempt::Whole));
    }
    let mut call = blob(transport, reference, Method::GET, &digest)?;
    if partial.bytes() > 0 {
        let range = HeaderValue::from_str(&format!("bytes={}-", partial.bytes()));
        call.headers
            .insert(RANGE, range.expect("digits are a header"));
    }
    let response = match transport
        .once(&call, &[StatusCode::RANGE_NOT_SATISFIABLE])
        .await
    {
        Ok(response) => response,
        Err(error) if error.is_temporary() => return Ok((partial, Attempt::Cut(error))),
        Err(error) => return Err(error),
    };
    check_encoding(&response, &call.what)?;
    let answer_error = |reason: String| TransferError::Answer {
        host: host_of(response.url()),
        what: call.what.clone(),
        reason,
    };
    let begins = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE);
            let range = range.and_then(|value| value.to_str().ok());
            let (first, whole) = range
                .and_then(content_range)
                .ok_or_else(|| answer_error("a part that does not say which".to_owned()))?;
            if whole.is_some_and(|whole| whole != wanted.bytes) {
                return Err(answer_error(format!(
                    "another size than the {} announced",
                    wanted.bytes
                )));
            }
            first
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let error = answer_error("no such part".to_owned());
            partial
                .restart()
                .map_err(|error| write_error(error, digest))?;
            return Ok((partial, Attempt::Cut(error)));
        }
        _ => 0,
    };
    if begins != partial.bytes() {
        partial
            .restart()
            .map_err(|error| write_error(error, digest))?;
        if begins != 0 {
            let error = answer_error("another part than was asked for".to_owned());
            return Ok((partial, Attempt::Cut(error)));
        }
    }
    let missing = wanted.bytes - partial.bytes();
    if let Some(length) = response
        .content_length()
        .filter(|length| *length != missing)
    {
        let reason = format!("{length} bytes where {missing} are announced");
        return Err(answer_error(reason));
    }
    receive(transport, wanted, partial, response, watch).await
}

/// Takes a body into the partial file.
async fn receive(
    transport: &Transport,
    wanted: Wanted,
    mut partial: Partial,
    mut response: Response,
    watch: &Watch,
) -> Result<(Partial, Attempt), TransferError> {
    let host = host_of(response.url());
    let stall = transport.patience.stall;
    let mut buffer = BytesMut::with_capacity(WRITE_BYTES);
    let mut arrived = partial.bytes();
    let mut window = (Instant::now() + stall, arrived + WINDOW_BYTES_MIN);
    let cut = loop {
        match timeout_at(window.0, response.chunk()).await {
            Err(_) => break Some(stalled(&host, stall)),
            Ok(Err(error)) => break Some(broken(&host, stall, error)),
            Ok(Ok(None)) => break None,
            Ok(Ok(Some(chunk))) => {
                arrived += chunk.len() as u64;
                if arrived > wanted.bytes {
                    partial.discard();
                    return Err(TransferError::Answer {
                        host,
                        what: format!("blob {}", wanted.digest),
                        reason: format!("more than the {} bytes announced", wanted.bytes),
                    });
                }
                buffer.extend_from_slice(&chunk);
                watch.report(arrived, wanted.bytes);
            }
        }
        if arrived >= window.1 {
            window = (Instant::now() + stall, arrived + WINDOW_BYTES_MIN);
        }
        if buffer.len() >= WRITE_BYTES {
            let bytes = buffer.split().freeze();
            partial = append(partial, bytes, wanted.digest).await?;
        }
    };
    partial = append(partial, buffer.freeze(), wanted.digest).await?;
    let attempt = match cut {
        None if partial.bytes() == wanted.bytes => Attempt::Whole,
        None => Attempt::Cut(TransferError::Answer {
            host,
            what: format!("blob {}", wanted.digest),
            reason: format!("fewer than the {} bytes announced", wanted.bytes),
        }),
        Some(error) => Attempt::Cut(error),
    };
    Ok((partial, attempt))
}

/// The size of a blob that no manifest announces.
pub(crate) async fn size(
    transport: &Transport,
    reference: &Reference,
    digest: &Digest,
) -> Result<u64, TransferError> {
    let call = blob(transport, reference, Method::HEAD, digest)?;
    let response = transport.once(&call, &[]).await?;
    let length = response.headers().get(reqwest::header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    length.ok_or_else(|| TransferError::Answer {
        host: host_of(response.url()),
        what: call.what.clone(),
        reason: "no size".to_owned(),
    })
}

fn blob(
    transport: &Transport,
    reference: &Reference,
    method: Method,
    digest: &Digest,
) -> Result<Call, TransferError> {
    let url = transport.url(reference, &format!("blobs/{digest}"))?;
    let scope = Scope::Pull(reference.repository().to_owned());
    let what = format!("blob {digest} of {}", reference.repository());
    Ok(Call::new(method, url, scope, what))
}

/// The partial file for this task alone; `None` once another's download is finished. One that stands still
/// for a stall is an error.
async fn acquire(
    transport: &Transport,
    wanted: Wanted,
    store: &ModuleStore,
) -> Result<Option<Partial>, TransferError> {
    let digest = wanted.digest;
    let stall = transport.patience.stall;
    let mut last = (0, Instant::now());
    loop {
        let opening = store.clone();
        match blocking(move || opening.partial(&digest)).await {
            // A file that another's download became is not there any more, and this one a new one.
            Ok(partial) if store.contains(&digest)? => {
                partial.discard();
                return Ok(None);
            }
            Ok(partial) => return Ok(Some(partial)),
            Err(error @ PartialError::Write { .. }) => return Err(write_error(error, digest)),
            Err(PartialError::Busy) => {}
        }
        if store.contains(&digest)? {
            return Ok(None);
        }
        let bytes = store.partial_bytes(&digest);
        if bytes != last.0 {
            last = (bytes, Instant::now());
        }
        if last.1.elapsed() > stall {
            return Err(TransferError::Busy(digest));
        }
        sleep(stall / LOOKS_PER_STALL).await;
    }
}

async fn get(store: &ModuleStore, digest: Digest) -> Result<Option<KeptModule>, TransferError> {
    let store = store.clone();
    Ok(blocking(move || store.get(&digest)).await?)
}

async fn append(
    mut partial: Partial,
    bytes: Bytes,
    digest: Digest,
) -> Result<Partial, TransferError> {
    let written = blocking(move || partial.append(&bytes).map(|()| partial)).await;
    written.map_err(|error| write_error(error, digest))
}

/// Runs what waits for a disk where it delays nobody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = pin!(tokio::task::spawn_blocking(work)).await;
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn write_error(error: PartialError, digest: Digest) -> TransferError {
    match error {
        PartialError::Busy => TransferError::Busy(digest),
        PartialError::Write { path, source } => TransferError::Write { path, source },
    }
}

/// The first byte and the whole size in a `Content-Range`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (part, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = part.split_once('-')?;
    let whole = match whole {
        "*" => None,
        digits => Some(digits.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, range) in [
            ("bytes 5-9/10", Some((5, Some(10)))),
            ("bytes 0-9/*", Some((0, None))),
            ("bytes */10", None),
            ("bytes 5-9", None),
            ("lines 5-9/10", None),
            ("bytes -5-9/10", None),
            ("", None),
        ] {
            assert_eq!(content_range(text), range, "{text}");
        }
    }
}
