//! A stream that knows when bytes last came.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// How long what a client still sends is read after it was told that the connection ends.
const LINGER: Duration = Duration::from_secs(5);

/// A client on a slow line may need longer for one message than it may be silent: what counts is that bytes come, not that
/// messages end.
pub(crate) struct Lively {
    stream: TcpStream,
    heard: Instant,
}

impl Lively {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, heard: Instant::now() }
    }

    /// When something last came.
    pub(crate) fn heard(&self) -> Instant {
        self.heard
    }

    /// Ends this side, and reads on until the client has ended its own, or for a while: closing at once would throw away what
    /// the client has not read yet.
    pub(crate) async fn linger(&mut self) {
        let until_it_ends = async {
            self.shutdown().await?;
            let mut ignored = vec![0; 64 << 10];
            while self.read(&mut ignored).await? > 0 {}
            io::Result::Ok(())
        };
        drop(timeout(LINGER, until_it_ends).await);
    }
}

impl AsyncRead for Lively {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.heard = Instant::now();
        }
        read
    }
}

impl AsyncWrite for Lively {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
