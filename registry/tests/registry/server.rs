//! A hand-written HTTP server that does as a test says, also what no server should.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// What a client asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }
}

/// What a server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Does {
    /// Writes a whole answer.
    Answer(Answer),
    /// Writes these bytes and closes.
    Writes(Vec<u8>),
    /// Writes these bytes, and the others for ever.
    Endless(Vec<u8>, Vec<u8>),
    /// Writes these bytes one at a time, each after a pause.
    Trickles(Vec<u8>, Duration),
    /// Nothing, with the connection open.
    Silence,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

/// An answer with a status and a body.
pub(crate) fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer {
        status,
        headers: String::new(),
        body: body.into(),
    }
}

impl Answer {
    pub(crate) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    pub(crate) fn sends(self) -> Does {
        Does::Answer(self)
    }

    fn bytes(&self, is_head: bool) -> Vec<u8> {
        let Self {
            status,
            headers,
            body,
        } = self;
        let length = if headers.to_lowercase().contains("content-length:") {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let head = format!("HTTP/1.1 {status} x\r\nconnection: close\r\n{headers}{length}\r\n");
        let mut bytes = head.into_bytes();
        if !is_head {
            bytes.extend_from_slice(body);
        }
        bytes
    }
}

/// A running server. Dropping it stops it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: AbortHandle,
}

impl Server {
    /// Starts a server on a free port. `does` gets each request and how many came before it.
    pub(crate) async fn start(
        does: impl Fn(&Asked, usize) -> Does + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, does) = (Arc::clone(&asked), Arc::new(does));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, does) = (Arc::clone(&log), Arc::clone(&does));
                connections.spawn(async move {
                    let _ = serve(stream, &log, &*does).await;
                });
            }
        });
        Self {
            address,
            asked,
            task: task.abort_handle(),
        }
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    log: &Mutex<Vec<Asked>>,
    does: &(impl Fn(&Asked, usize) -> Does + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines[0].split(' ').map(str::to_owned);
    let mut asked = Asked {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        headers: lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
        body: Vec::new(),
    };
    let length = asked
        .header("content-length")
        .and_then(|text| text.parse().ok());
    asked.body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut asked.body).await?;
    let before = {
        let mut log = log.lock().unwrap();
        log.push(asked.clone());
        log.len() - 1
    };
    let mut stream = stream.into_inner();
    match does(&asked, before) {
        Does::Answer(answer) => {
            stream
                .write_all(&answer.bytes(asked.method == "HEAD"))
                .await?
        }
        Does::Writes(bytes) => stream.write_all(&bytes).await?,
        Does::Endless(first, rest) => {
            stream.write_all(&first).await?;
            loop {
                stream.write_all(&rest).await?;
            }
        }
        Does::Trickles(bytes, pause) => {
            for byte in bytes {
                stream.write_all(&[byte]).await?;
                tokio::time::sleep(pause).await;
            }
        }
        Does::Silence => std::future::pending().await,
    }
    stream.shutdown().await
}
