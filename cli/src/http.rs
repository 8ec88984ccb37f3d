//! A bounded HTTP client, just enough to talk to an agent.
//!
//! Every call has a time limit and a body limit, so that a server that stalls or floods costs the
//! caller neither. Plain HTTP only: agents listen on loopback.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// Where a server is: `http://HOST:PORT`, without a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl(Authority);

/// Text that is not a server's address.
#[derive(Debug, thiserror::Error)]
#[error("expected http://HOST:PORT, got {0:?}")]
pub(crate) struct ParseServerUrlError(String);

impl FromStr for ServerUrl {
    type Err = ParseServerUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseServerUrlError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| error())?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        match uri.into_parts().authority {
            Some(authority) if plain && !authority.host().is_empty() => Ok(Self(authority)),
            Some(_) | None => Err(error()),
        }
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// Why a call got no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The path and the headers do not make a request.
    #[error("cannot ask {url} for {path:?}")]
    Build {
        /// The server.
        url: ServerUrl,
        /// The path asked for.
        path: String,
        /// What is wrong with it.
        source: hyper::http::Error,
    },
    /// No connection, or it broke before the response began.
    #[error("no response from {url}")]
    Send {
        /// The server.
        url: ServerUrl,
        /// What the connection met.
        source: hyper_util::client::legacy::Error,
    },
    /// The body broke off, or is longer than the limit.
    #[error("cannot read the response of {url} (at most {body_bytes_max} bytes)")]
    Body {
        /// The server.
        url: ServerUrl,
        /// The limit.
        body_bytes_max: usize,
        /// What reading met.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The time limit passed.
    #[error("{url} did not answer within {waited:?}")]
    Timeout {
        /// The server.
        url: ServerUrl,
        /// The limit.
        waited: Duration,
    },
}

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Response {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body.
    pub(crate) body: Bytes,
}

/// Calls one server, over connections that it keeps.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    url: ServerUrl,
    timeout: Duration,
    body_bytes_max: usize,
    pool: Pool<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// A client that gives a call `timeout` from start to end, and its body `body_bytes_max`.
    pub(crate) fn new(url: ServerUrl, timeout: Duration, body_bytes_max: usize) -> Self {
        let pool = Pool::builder(TokioExecutor::new())
            .pool_max_idle_per_host(1)
            .build_http();
        Self {
            url,
            timeout,
            body_bytes_max,
            pool,
        }
    }

    /// The server called.
    pub(crate) fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Fetches `path`, which begins with a slash.
    pub(crate) async fn get(&self, path: &str) -> Result<Response, CallError> {
        let request = Request::get(format!("{}{path}", self.url)).body(Full::default());
        self.call(path, request).await
    }

    /// Sends `body` to `path`, which begins with a slash.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, String)],
        body: Bytes,
    ) -> Result<Response, CallError> {
        let request = headers
            .iter()
            .fold(
                Request::post(format!("{}{path}", self.url)),
                |request, (name, value)| request.header(*name, value),
            )
            .body(Full::new(body));
        self.call(path, request).await
    }

    async fn call(
        &self,
        path: &str,
        request: Result<Request<Full<Bytes>>, hyper::http::Error>,
    ) -> Result<Response, CallError> {
        let url = || self.url.clone();
        let request = request.map_err(|source| CallError::Build {
            url: url(),
            path: path.to_owned(),
            source,
        })?;
        let exchange = async {
            let response = self.pool.request(request).await;
            let response = response.map_err(|source| CallError::Send { url: url(), source })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, self.body_bytes_max).collect().await;
            let body = body.map_err(|source| CallError::Body {
                url: url(),
                body_bytes_max: self.body_bytes_max,
                source,
            })?;
            Ok(Response {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(CallError::Timeout {
                    url: url(),
                    waited: self.timeout,
                })
            })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_server_is_scheme_host_and_port() {
        for good in ["http://127.0.0.1:8080", "http://edge/", "http://[::1]:1"] {
            let url: ServerUrl = good.parse().unwrap();
            assert_eq!(url.to_string(), good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "https://a",
            "http://a/v2",
            "http://a/?b",
            "http://",
        ] {
            assert!(bad.parse::<ServerUrl>().is_err(), "{bad}");
        }
    }

    /// Answers one connection with `reply` and holds it open.
    async fn server(reply: &'static [u8]) -> ServerUrl {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await.unwrap();
            stream.write_all(reply).await.unwrap();
            std::future::pending::<()>().await;
        });
        url.parse().unwrap()
    }

    #[tokio::test]
    async fn a_server_that_stalls_or_floods_is_cut_off() {
        let limit = Duration::from_millis(200);
        let stalled = server(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").await;
        let error = Client::new(stalled, limit, 10).get("/").await.unwrap_err();
        assert!(matches!(error, CallError::Timeout { .. }), "{error}");
        let flood = server(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n12345678901").await;
        let error = Client::new(flood, Duration::from_secs(10), 10)
            .get("/")
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Body { .. }), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_is_an_error_that_names_the_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: ServerUrl = format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        drop(listener);
        let error = Client::new(url.clone(), Duration::from_secs(10), 10)
            .get("/")
            .await
            .unwrap_err();
        assert!(error.to_string().contains(&url.to_string()), "{error}");
    }
}
