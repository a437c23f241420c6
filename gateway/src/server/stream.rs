//! A connection as bytes: TCP, a Unix domain socket, or TLS over TCP. An enum, so that plain
//! connections pay nothing for the others.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;

/// Length of the connection preface of HTTP/2 (RFC 9113, 3.4).
const GREETING: usize = 24;
/// Pauses between two looks at a greeting that has not come whole.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection in an event loop.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<Secure>),
}

/// A connection over TLS.
#[derive(Debug)]
pub(super) struct Secure {
    stream: TlsStream<TcpStream>,
    /// What was read to look at it, still to be read by the one who serves.
    ahead: Vec<u8>,
}

impl Stream {
    pub(super) fn secure(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(Secure { stream, ahead: vec![] }))
    }

    /// Waits for the greeting of HTTP/2, which stays to be read.
    ///
    /// # Errors
    /// When the other side closes or fails before it has said it.
    pub(super) async fn greeting(&mut self) -> io::Result<()> {
        if let Self::Tls(secure) = self {
            let mut seen = [0; GREETING];
            secure.stream.read_exact(&mut seen).await?;
            secure.ahead = seen.to_vec();
            return Ok(());
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match self.peek().await? {
                GREETING => return Ok(()),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                // What is there stays readable: only time can bring the rest. Less and less
                // often, so that a crowd which sends one byte each costs nothing to keep.
                _ => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits until at least one byte has come, and says how many of the greeting's have; 0 when
    /// the other side has closed before.
    async fn peek(&self) -> io::Result<usize> {
        let mut seen = [MaybeUninit::uninit(); GREETING];
        loop {
            let (ready, peeked) = match self {
                Self::Tcp(stream) => {
                    let ready = stream.ready(Interest::READABLE).await?;
                    let peek = || SockRef::from(stream).peek(&mut seen);
                    (ready, stream.try_io(Interest::READABLE, peek))
                }
                Self::Unix(stream) => {
                    let ready = stream.ready(Interest::READABLE).await?;
                    let peek = || SockRef::from(stream).peek(&mut seen);
                    (ready, stream.try_io(Interest::READABLE, peek))
                }
                // Its bytes say nothing before they are decrypted.
                Self::Tls(_) => return Ok(0),
            };
            match peeked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // No more will come, so what is missing stays missing.
                Ok(count) if count < GREETING && ready.is_read_closed() => return Ok(0),
                peeked => return peeked,
            }
        }
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(&self.ahead[..count]);
        self.ahead.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(secure) => Pin::new(&mut **secure).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(secure) => secure.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(secure) => Pin::new(&mut secure.stream).poll_shutdown(context),
        }
    }
}
