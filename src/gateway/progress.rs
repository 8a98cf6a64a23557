//! How fast a client takes its answer. One that takes nothing, or a byte now and then, holds a connection, a file and a
//! buffer for as long as it likes; the kernel's own timeout knows only peers that acknowledge nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::prefixed::Prefixed;

/// Taken within `timeouts.write`, while more waits. With a minute for it some 270 bytes a second; over HTTP/1.1 about four
/// times that, since a socket makes room in larger pieces (`stream::tune_clients`). Any network that a phone is on is faster.
pub(super) const LEAST: usize = 16 * 1024;

/// The clock of one answer. It runs while something waits for the client.
#[derive(Debug)]
pub(super) struct Progress {
    patience: Duration,
    since: Option<Instant>,
    taken: usize,
}

impl Progress {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            since: None,
            taken: 0,
        }
    }

    /// Something waits: until when the client may take `LEAST` of it.
    pub(super) fn deadline(&mut self) -> Instant {
        *self.since.get_or_insert_with(Instant::now) + self.patience
    }

    pub(super) fn took(&mut self, count: usize) {
        self.taken += count;
        if self.taken >= LEAST {
            self.nothing_waits();
        }
    }

    pub(super) fn nothing_waits(&mut self) {
        self.since = None;
        self.taken = 0;
    }
}

/// A client's connection, as HTTP/1.1 writes to it: fails with `TimedOut` where the client is too slow.
#[derive(Debug)]
pub(super) struct Paced {
    stream: Prefixed,
    progress: Progress,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(stream: Prefixed, patience: Duration) -> Self {
        Self {
            stream,
            progress: Progress::new(patience),
            timer: None,
        }
    }

    pub(super) fn into_inner(self) -> Prefixed {
        self.stream
    }

    /// `written`: bytes that the stream took by one call; what it has not sent is still to be taken.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Prefixed>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let before = self.stream.unsent();
        let written = write(Pin::new(&mut self.stream), cx);
        let added = match &written {
            Poll::Ready(Ok(count)) => *count,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        let taken = (before + added).saturating_sub(self.stream.unsent());
        self.progress.took(taken);
        if written.is_ready() {
            return written;
        }
        let deadline = self.progress.deadline();
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.write(cx, |stream, cx| {
            stream.poll_flush(cx).map(|flushed| flushed.map(|()| 0))
        }))?;
        this.progress.nothing_waits();
        this.timer = None;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_runs_while_something_waits_and_begins_anew_with_enough() {
        let patience = Duration::from_secs(60);
        let mut progress = Progress::new(patience);
        let first = progress.deadline();
        assert_eq!(first, Instant::now() + patience);
        tokio::time::advance(Duration::from_secs(20)).await;
        progress.took(LEAST - 1);
        assert_eq!(progress.deadline(), first, "a byte too little");
        progress.took(1);
        assert_eq!(progress.deadline(), Instant::now() + patience);
        progress.nothing_waits();
        tokio::time::advance(Duration::from_secs(500)).await;
        assert_eq!(progress.deadline(), Instant::now() + patience);
    }
}
