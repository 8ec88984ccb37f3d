//! A proxy that cuts connections after so many bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// A running proxy. Dropping it stops it.
pub(crate) struct Cutter {
    pub(crate) address: SocketAddr,
    down: Arc<AtomicU64>,
    cuts: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Cutter {
    /// Starts a proxy before `to` that cuts each connection after `bytes_max` bytes to the client.
    pub(crate) async fn start(to: SocketAddr, bytes_max: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (down, cuts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (Arc::clone(&down), Arc::clone(&cuts));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (down, cuts) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
                connections.spawn(async move {
                    if carry(client, to, bytes_max, &down)
                        .await
                        .is_ok_and(|cut| cut)
                    {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self {
            address,
            down,
            cuts,
            task: task.abort_handle(),
        }
    }

    /// Bytes that went to clients.
    pub(crate) fn bytes_down(&self) -> u64 {
        self.down.load(Ordering::Relaxed)
    }

    /// Connections that were cut.
    pub(crate) fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries one connection. Gives whether it was cut.
async fn carry(
    client: TcpStream,
    to: SocketAddr,
    bytes_max: u64,
    down: &AtomicU64,
) -> std::io::Result<bool> {
    let server = TcpStream::connect(to).await?;
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut carried = 0;
    let mut buffer = vec![0; 16 << 10];
    let cut = loop {
        let count = from_server.read(&mut buffer).await?;
        if count == 0 {
            break false;
        }
        to_client.write_all(&buffer[..count]).await?;
        carried += count as u64;
        down.fetch_add(count as u64, Ordering::Relaxed);
        if carried >= bytes_max {
            break true;
        }
    };
    up.abort();
    Ok(cut)
}
