//! Serves HTTP/1.1 on a port and a Unix socket, within bounds that no client can stretch.
//!
//! A connection costs a task and some buffers, so their number is bounded: further clients wait in the
//! kernel's backlog. Requests on one connection are answered in order, and the next is not read before
//! the last is answered, so pipelining gains nothing. A client that sends its head too slowly, or does
//! not take its reply ([`stalled`]), is disconnected; slow bodies are the front's business. A client
//! that goes away has its request dropped, which cancels it.
//!
//! A drain stops accepting, closes idle connections, and lets the requests in flight finish.

mod stalled;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tidegate_open_inference::Limits;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use self::stalled::Stalled;
use crate::dispatch::Service;
use crate::metrics;

/// Longest wait for the head of the next request, so also how long a connection may idle.
/// Ten seconds, so that silent connections that fill every place are gone before a caller gives up.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);

/// Longest wait until a client takes some more of its reply.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Largest head of a request: names, a URL and some headers fit many times.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Mode of the Unix socket: its owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Everything that the agent serves.
pub(crate) fn router(service: Arc<Service>, limits: Limits) -> Router {
    let shown = Arc::clone(&service);
    let page = move || async move {
        let text = shown.metrics.encode(shown.slots.load());
        ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
    };
    tidegate_open_inference::router(service, limits).route("/metrics", get(page))
}

/// Accepts and serves until `stop`, then until every connection has ended. Dropping the future closes
/// every connection at once.
pub(crate) async fn serve<L: Listener>(
    mut listener: L,
    router: Router,
    connections_max: usize,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await.0)
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (place, stream) = accepted => {
                let connection = connection(stream, router.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection to its end, or after `stop` to the end of the request in flight.
async fn connection<S>(stream: S, router: Router, stop: CancellationToken)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        router.clone().oneshot(request.map(Body::new))
    });
    let io = TokioIo::new(Stalled::new(stream, WRITE_WAIT_MAX));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service);
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
}

/// A Unix socket's file, removed on drop.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Somebody else may have removed it; there is nothing left to do then.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listens on a Unix socket at `path`. A socket that a process left behind when it died is replaced;
/// one that is listened on, and any other file, is not.
pub(crate) fn listen_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let is_socket = |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
    };
    if is_socket(path)
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    let file = SocketFile(path.to_owned());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok((listener, file))
}
