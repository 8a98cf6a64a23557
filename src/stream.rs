//! One connection, over TCP with TLS or without, or over a Unix socket, or one stream of an HTTP/2 connection: what a client
//! and a broker have in common. Also the socket options of both.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::http2::Http2Stream;
use crate::tls::TlsStream;

/// Boxed where it is large: a session holds two of these for its whole life.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
    /// To brokers alone.
    Unix(UnixStream),
    /// From clients alone.
    Http2(Box<Http2Stream>),
}

impl Stream {
    /// `None` where the connection is not the stream's own.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.tcp()),
            Self::Unix(_) | Self::Http2(_) => None,
        }
    }

    /// Bytes that were written and that the socket has not taken.
    pub fn unsent(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Unix(_) => 0,
            Self::Tls(stream) => stream.unsent(),
            Self::Http2(stream) => stream.unsent(),
        }
    }

    /// What is written from now on may wait for the next flush or shutdown, where that saves a packet.
    pub fn gather(&mut self) {
        if let Self::Tls(stream) = self {
            stream.gather();
        }
    }

    /// Writes the last bytes and ends our side, in one packet where the kernel takes it so.
    pub async fn end_with(&mut self, last: &[u8]) -> io::Result<()> {
        self.gather();
        self.write_all(last).await?;
        self.shutdown().await
    }
}

/// Reads until the other side ends, and keeps nothing: closing with bytes unread would reset the connection, and what was
/// written last be lost.
pub async fn read_away(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Packets leave at once, and a peer that is gone is noticed in minutes instead of hours: the kernel's own keepalive
/// begins after two hours, and unacknowledged data lives for fifteen minutes.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    set_options(&SockRef::from(stream))
}

/// The same for all clients that come by this door, since Linux hands a listening socket's options on (tcp(7)): six calls
/// less for each of them. And what a client's socket may hold and has not sent: a client that reads slowly, or not at all,
/// would fill the four megabytes that the kernel grants else.
pub fn tune_clients(listener: &SockRef<'_>) -> io::Result<()> {
    const UNSENT: u32 = 128 * 1024;
    set_options(listener)?;
    listener.set_tcp_notsent_lowat(UNSENT)
}

/// For whom there is no answer: a reset needs none either, and leaves no state in the kernel.
pub fn reset_at_close(tcp: &TcpStream) {
    if let Err(error) = tcp.set_zero_linger() {
        tracing::debug!(%error, "a client is closed without a reset");
    }
}

fn set_options(socket: &SockRef<'_>) -> io::Result<()> {
    const IDLE: Duration = Duration::from_secs(60);
    const INTERVAL: Duration = Duration::from_secs(15);
    const UNACKNOWLEDGED: Duration = Duration::from_secs(90);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL);
    socket.set_tcp_keepalive(&keepalive)?;
    // Also how long keepalive probes go on: their number is not asked for any more (tcp(7)).
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Http2(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Http2(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Http2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Http2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Http2(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Http2(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_has_the_options_of_the_door_it_came_by() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        tune_clients(&SockRef::from(&listener)).unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (accepted, _)) = (client.unwrap(), accepted.unwrap());
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), 60);
        assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), 15);
        assert_eq!(socket.tcp_user_timeout().unwrap().unwrap().as_secs(), 90);
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), 128 * 1024);
    }
}
