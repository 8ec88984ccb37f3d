//! A small HTTP client: one connection a request, so that no test inherits another's.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::wait::PATIENCE;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Http {
    /// On a port.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Http {
    /// Gets `path`.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Request::get(path).body(Full::default())?).await
    }

    /// Sends `body` to `model` as JSON.
    pub async fn infer(&self, model: &str, body: &Value) -> Result<Answer> {
        self.post(&format!("/v2/models/{model}/infer"), body.to_string())
            .await
    }

    /// Sends `json` to `model`, and tensor data after it.
    pub async fn infer_binary(&self, model: &str, json: &Value, data: &[u8]) -> Result<Answer> {
        let json = json.to_string();
        let body = [json.as_bytes(), data].concat();
        let request = Request::post(format!("/v2/models/{model}/infer"))
            .header("inference-header-content-length", json.len())
            .body(Full::from(body))?;
        self.send(request).await
    }

    /// Posts `body` to `path`.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Result<Answer> {
        self.send(Request::post(path).body(Full::new(body.into()))?)
            .await
    }

    /// Sends any request, and waits at most [`PATIENCE`] for the whole response.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer> {
        let exchange = async {
            match self {
                Self::Tcp(address) => exchange(TcpStream::connect(address).await?, request).await,
                Self::Unix(path) => exchange(UnixStream::connect(path).await?, request).await,
            }
        };
        let done = tokio::time::timeout(PATIENCE, exchange).await;
        done.with_context(|| format!("no response within {PATIENCE:?}"))?
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mut request: Request<Full<Bytes>>,
) -> Result<Answer> {
    let host = hyper::header::HeaderValue::from_static("tidegate");
    request.headers_mut().entry("host").or_insert(host);
    let (mut client, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the response, or when the client is dropped.
    let connection = tokio::spawn(connection);
    let response = client.send_request(request).await?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    connection.abort();
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
    })
}

impl Answer {
    /// The body as JSON, or the JSON that binary tensors follow.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        let len = self.header("inference-header-content-length");
        let len = len.map_or(self.body.len(), |len| len.parse().expect("a length"));
        serde_json::from_slice(&self.body[..len]).unwrap_or_else(|error| {
            panic!(
                "{error}: {} {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            )
        })
    }

    /// The binary tensors after the JSON.
    #[must_use]
    #[track_caller]
    pub fn data(&self) -> &[u8] {
        let len = self.header("inference-header-content-length");
        let len: usize = len.expect("binary tensors").parse().expect("a length");
        &self.body[len..]
    }

    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The message of a refusal with this status, which must be one.
    #[must_use]
    #[track_caller]
    pub fn error(&self, status: u16) -> String {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{body}");
        let json = self.json();
        json["error"]
            .as_str()
            .unwrap_or_else(|| panic!("no error in {body}"))
            .to_owned()
    }

    /// The outputs of a success.
    #[must_use]
    #[track_caller]
    pub fn outputs(&self) -> Value {
        let body = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, StatusCode::OK, "{body}");
        self.json()["outputs"].take()
    }
}
