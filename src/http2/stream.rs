//! One stream of a connection as bytes both ways (RFC 8441 5): DATA frames within the client's windows.
//!
//! The client's window opens again only by what was read here, so a session that waits for its broker holds up its own
//! client and no other.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::as_io;
use super::chunk::{Chunk, Unsent};

/// Taken by one write: a session writes as much at once.
const CHUNK: usize = 64 * 1024;

/// Dropping it without `poll_shutdown` resets the stream, as dropping a connection would.
pub struct Http2Stream {
    incoming: RecvStream,
    outgoing: SendStream<Chunk>,
    /// Came in one frame with what was read and did not fit.
    unread: Bytes,
    unsent: Arc<Unsent>,
    closing: bool,
}

impl Http2Stream {
    pub fn new(incoming: RecvStream, outgoing: SendStream<Chunk>) -> Self {
        Self {
            incoming,
            outgoing,
            unread: Bytes::new(),
            unsent: Arc::default(),
            closing: false,
        }
    }

    /// Bytes that were written and that the connection has not taken.
    pub fn unsent(&self) -> usize {
        self.unsent.count()
    }

    /// Waits until the client's window has room. Answers how much, at most `wanted`.
    fn poll_room(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        self.outgoing.reserve_capacity(wanted);
        loop {
            let room = self.outgoing.capacity().min(wanted);
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match ready!(self.outgoing.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(as_io(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        loop {
            let count = this.unread.len().min(buffer.remaining());
            buffer.put_slice(&this.unread[..count]);
            this.unread.advance(count);
            if buffer.remaining() == 0 {
                break;
            }
            // Frames are small and reads are not: one read takes all that is there.
            match this.incoming.poll_data(cx) {
                Poll::Ready(Some(Ok(bytes))) => this.unread = bytes,
                Poll::Ready(Some(Err(error))) if buffer.filled().len() == before => {
                    return Poll::Ready(Err(as_io(error)));
                }
                Poll::Pending if buffer.filled().len() == before => return Poll::Pending,
                // The end is told by the next read.
                Poll::Ready(None | Some(Err(_))) | Poll::Pending => break,
            }
        }
        if this.unread.is_empty() {
            // An empty slice of a frame would keep the frame.
            this.unread = Bytes::new();
        }
        let read = buffer.filled().len() - before;
        // It fails when the stream is over, which the next read tells.
        drop(this.incoming.flow_control().release_capacity(read));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(this.poll_room(cx, bytes.len().min(CHUNK)))?;
        let chunk = Chunk::counted(Bytes::copy_from_slice(&bytes[..room]), &this.unsent);
        this.outgoing.send_data(chunk, false).map_err(as_io)?;
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unsent() == 0 {
            return Poll::Ready(Ok(()));
        }
        this.unsent.wake(cx.waker());
        // It may have gone between the look and the registration.
        match this.unsent() {
            0 => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing {
            this.closing = true;
            let nothing = Chunk::uncounted(Bytes::new());
            this.outgoing.send_data(nothing, true).map_err(as_io)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Http2Stream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Http2Stream")
            .field("id", &self.outgoing.stream_id())
            .finish_non_exhaustive()
    }
}
