//! A stream with bytes that were read ahead: nothing of them is lost.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::first_bytes::Spoken;
use super::outcome::{Phase, Reason};
use crate::stream::Stream;

/// A stream with bytes that were read ahead.
#[derive(Debug)]
pub(super) struct Prefixed {
    prefix: Bytes,
    stream: Stream,
}

impl Prefixed {
    /// `prefix` was taken already.
    pub(super) fn new(stream: Stream, prefix: Vec<u8>) -> Self {
        Self {
            prefix: prefix.into(),
            stream,
        }
    }

    /// Reads the first bytes inside TLS ahead, to see whether they are HTTP at all.
    pub(super) async fn peeked(
        mut stream: Stream,
        patience: Duration,
    ) -> Result<Self, (Phase, Reason)> {
        let mut first = Vec::with_capacity(1024);
        match timeout(patience, stream.read_buf(&mut first)).await {
            Ok(Ok(0)) => return Err((Phase::Http, Reason::Vanished)),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err((Phase::Http, Reason::ClientIo(error))),
            Err(_) => return Err((Phase::Http, Reason::RequestTimeout)),
        }
        match Spoken::of(first[0]).mistake_inside_tls() {
            Some(mistake) => Err((Phase::Http, mistake)),
            None => Ok(Self {
                prefix: first.into(),
                stream,
            }),
        }
    }

    /// What the handshake agreed on (RFC 7301).
    pub(super) fn speaks_http2(&self) -> bool {
        match &self.stream {
            Stream::Tls(stream) => stream.agreed().alpn_protocol() == Some(b"h2"),
            Stream::Plain(_) | Stream::Unix(_) | Stream::Http2(_) => false,
        }
    }

    /// Bytes that were written and that the socket has not taken.
    pub(super) fn unsent(&self) -> usize {
        self.stream.unsent()
    }

    /// The stream, and what of the prefix was not read.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        (self.stream, self.prefix)
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let count = this.prefix.len().min(buffer.remaining());
        buffer.put_slice(&this.prefix.split_to(count));
        if this.prefix.is_empty() {
            this.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
