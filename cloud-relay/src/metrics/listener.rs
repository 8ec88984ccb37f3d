//! `GET /metrics` over plain HTTP/1.1, for a scraper on the same machine or network.
//!
//! One request a connection, a few connections at a time, each within a few seconds: a scraper that
//! dawdles cannot keep another out for long.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::service::Service;

/// Media type of the page.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Connections at a time; a relay has one or two scrapers.
const CONNECTIONS_MAX: usize = 8;

/// How long one connection may last.
const CONNECTION_MAX: Duration = Duration::from_secs(5);

/// How long to wait after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let service = Arc::clone(&service);
                    connections.spawn(async move {
                        let answer = service_fn(|request| {
                            std::future::ready(Ok::<_, Infallible>(answer(&request, &service)))
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .keep_alive(false)
                            .serve_connection(TokioIo::new(stream), answer);
                        // A scraper that went away, or was too slow, comes again.
                        let _ = timeout(CONNECTION_MAX, connection).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a scraper");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
            },
        }
    }
}

fn answer<B>(request: &Request<B>, service: &Service) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if request.method() != Method::GET {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET"));
    } else {
        let page = service
            .metrics
            .encode(&service.load(), service.store.bytes());
        response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
        *response.body_mut() = Full::new(page.into());
    }
    response
}
