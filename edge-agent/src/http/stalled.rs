//! Ends a connection whose peer takes nothing of what is written to it.
//!
//! The HTTP server bounds how long it reads a head, and the front how long it reads a body; nobody
//! bounds how long a reply may sit in a full socket buffer, holding its tensors.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A stream whose writes fail once none of them has moved a byte for `wait_max`.
#[derive(Debug)]
pub(super) struct Stalled<S> {
    stream: S,
    wait_max: Duration,
    /// Runs while a write is blocked.
    timer: Pin<Box<Sleep>>,
    blocked: bool,
}

impl<S> Stalled<S> {
    pub(super) fn new(stream: S, wait_max: Duration) -> Self {
        Self {
            stream,
            wait_max,
            timer: Box::pin(sleep(wait_max)),
            blocked: false,
        }
    }

    /// Passes on what a write has come to, and fails it where it has been blocked for too long.
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.blocked = false;
            return written;
        }
        if !self.blocked {
            self.blocked = true;
            self.timer.as_mut().reset(Instant::now() + self.wait_max);
        }
        ready!(self.timer.as_mut().poll(context));
        let message = format!("the peer took nothing for {:?}", self.wait_max);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    // A socket neither flushes nor shuts down by waiting for its peer: the kernel does both.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (near, mut far) = duplex(8);
        let mut stream = Stalled::new(near, Duration::from_millis(10));
        let error = stream.write_all(&[7; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(stream);
        let mut taken = Vec::new();
        far.read_to_end(&mut taken).await.unwrap();
        assert_eq!(taken, [7; 8]);
    }

    #[tokio::test]
    async fn a_byte_taken_starts_the_wait_anew() {
        let (near, mut far) = duplex(1);
        let mut stream = Stalled::new(near, Duration::from_secs(600));
        let taken = tokio::spawn(async move {
            let mut taken = [0; 10];
            for byte in &mut taken {
                *byte = far.read_u8().await.unwrap();
            }
            taken
        });
        stream.write_all(&[7; 10]).await.unwrap();
        assert!(!stream.blocked);
        assert_eq!(taken.await.unwrap(), [7; 10]);
    }
}
