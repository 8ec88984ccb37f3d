//! A plain HTTP/1.1 client on one connection.

use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::power;

/// One connection. Dropping it closes it.
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<()>,
}

/// A reply that was read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap<HeaderValue>,
    pub(super) body: Bytes,
}

impl Client {
    pub(super) async fn tcp(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(super) async fn unix(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap()).await
    }

    async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        Self { sender, connection }
    }

    pub(super) async fn get(&mut self, path: &str) -> Answer {
        let request = Request::get(path).header("host", "agent");
        self.send(request.body(Full::default()).unwrap())
            .await
            .unwrap()
    }

    pub(super) async fn post(&mut self, path: &str, body: &str) -> Answer {
        let request = Request::post(path).header("host", "agent");
        self.send(request.body(body.to_owned().into()).unwrap())
            .await
            .unwrap()
    }

    /// Asks for `power` of so many rows, binary both ways, with these request parameters.
    pub(super) async fn power(&mut self, rows: usize, parameters: &str) -> hyper::Result<Answer> {
        let data = power::input(rows).tensor.data().clone();
        let head = format!(
            r#"{{"parameters":{{{parameters}}},"inputs":[{{"name":"x","shape":[{rows},{rows}],
            "datatype":"FP32","parameters":{{"binary_data_size":{}}}}}],
            "outputs":[{{"name":"y","parameters":{{"binary_data":true}}}}]}}"#,
            data.len()
        );
        let request = Request::post("/v2/models/power/infer")
            .header("host", "agent")
            .header("inference-header-content-length", head.len());
        let body = Bytes::from([head.as_bytes(), &data].concat());
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        self.sender.ready().await?;
        let (parts, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Answer {
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The JSON part of a reply with binary outputs.
    pub(super) fn json_text(&self) -> &str {
        let len: usize = self.headers["inference-header-content-length"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        std::str::from_utf8(&self.body[..len]).unwrap()
    }

    /// The elements of the one binary FP32 output.
    pub(super) fn floats(&self) -> Vec<f32> {
        let data = &self.body[self.json_text().len()..];
        let (cells, rest) = data.as_chunks::<4>();
        assert!(rest.is_empty());
        cells.iter().map(|cell| f32::from_le_bytes(*cell)).collect()
    }
}
