//! A stream to an application whose writes are forgiven: an application may answer and close without reading the rest of a
//! request, as one does that refuses an upload.
//!
//! The reset that follows fails our next write, and hyper would then throw the answer away that is already here. So the
//! reading side alone says how the connection ended.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    deaf: Arc<AtomicBool>,
}

/// True once the application takes nothing any more.
#[derive(Debug)]
pub(super) struct Deaf(Arc<AtomicBool>);

impl Deaf {
    pub(super) fn is_deaf(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wire {
    pub(super) fn new(stream: Stream) -> (Self, Deaf) {
        let deaf = Arc::new(AtomicBool::new(false));
        let told = Deaf(Arc::clone(&deaf));
        (Self { stream, deaf }, told)
    }

    pub(super) fn into_inner(self) -> Stream {
        self.stream
    }

    /// `instead` stands for the result of a write to somebody who is gone.
    fn forgive<T>(
        &mut self,
        instead: T,
        write: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.deaf.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(instead));
        }
        match ready!(write(Pin::new(&mut self.stream))) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.deaf.store(true, Ordering::Relaxed);
                Poll::Ready(Ok(instead))
            }
            written => Poll::Ready(written),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .forgive(bytes.len(), |stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|slice| slice.len()).sum();
        self.get_mut()
            .forgive(all, |stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().forgive((), |stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
