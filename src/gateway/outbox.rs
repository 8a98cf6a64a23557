//! What one side of a joined pair has for the other: written at once, kept where the other does not take it, with a clock for
//! how long it has taken nothing.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::stream::Stream;

/// Polls this task again when the thread has looked at its sockets: a peer that takes no more has often said why before, and of
/// that the thread may not have heard.
pub(super) fn poll_behind_a_look(cx: &mut Context<'_>) {
    let looked = pin!(yield_now()).poll(cx);
    debug_assert!(looked.is_pending());
}

/// Empty and without memory while the far side keeps up.
///
/// INVARIANT: whoever fills it reads nothing while something waits here, so it is bounded by what one read can become.
#[derive(Debug)]
pub(super) struct Outbox {
    waiting: Vec<u8>,
    /// Bytes of `waiting` that the far side has taken.
    taken: usize,
    /// TLS or HTTP/2 may hold bytes that the socket has not taken.
    unflushed: bool,
    /// Since when the far side takes nothing.
    stalled: Option<Instant>,
    /// What TLS or HTTP/2 held when it was last looked at.
    held: usize,
}

impl Outbox {
    /// With bytes that are to go first.
    pub(super) fn new(waiting: Vec<u8>) -> Self {
        Self {
            unflushed: !waiting.is_empty(),
            waiting,
            taken: 0,
            stalled: None,
            held: 0,
        }
    }

    /// Nothing waits here, though TLS or HTTP/2 may hold something.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Nothing waits here, nor in TLS or HTTP/2.
    pub(super) fn is_sent(&self) -> bool {
        self.waiting.is_empty() && !self.unflushed
    }

    /// Since when the far side takes nothing of what waits.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled
    }

    pub(super) fn waiting(&self) -> &[u8] {
        &self.waiting[self.taken..]
    }

    /// What the far side has not taken.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.drain(..self.taken);
        self.taken = 0;
        waiting
    }

    /// Writes at once, and keeps what is not taken. Only where nothing waits.
    ///
    /// # Errors
    /// The far side is gone.
    pub(super) fn write(
        &mut self,
        to: &mut Stream,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let mut taken = 0;
        while taken < bytes.len() {
            match Pin::new(&mut *to).poll_write(cx, &bytes[taken..]) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => taken += count,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        let held = to.unsent();
        self.unflushed = held > 0;
        if taken < bytes.len() {
            self.waiting = bytes[taken..].to_vec();
            (self.stalled, self.held) = (Some(Instant::now()), held);
        }
        Ok(())
    }

    /// Writes what waits. Ready when nothing is left.
    pub(super) fn poll_send(
        &mut self,
        to: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.taken < self.waiting.len() {
            match Pin::new(&mut *to).poll_write(cx, &self.waiting[self.taken..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.taken += count;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.stall(to),
            }
        }
        if !self.waiting.is_empty() {
            (self.waiting, self.taken) = (Vec::new(), 0);
        }
        if self.unflushed {
            match Pin::new(&mut *to).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return self.stall(to),
            }
        }
        self.stalled = None;
        Poll::Ready(Ok(()))
    }

    /// A far side that takes some of what TLS or HTTP/2 holds takes something, and not from a write alone: a read sends it as well.
    fn stall(&mut self, to: &Stream) -> Poll<io::Result<()>> {
        let held = to.unsent();
        if self.stalled.is_none() || held < self.held {
            self.stalled = Some(Instant::now());
        }
        self.held = held;
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::ready;
    use std::time::Duration;

    use tokio::io::{AsyncRead, ReadBuf};
    use tokio::time::timeout;

    use super::*;
    use crate::tls::tests::over_small_sockets;

    /// TLS holds a chunk in front of what waits here: a slow reader takes of that for a long time.
    #[tokio::test]
    async fn a_reader_that_takes_what_tls_holds_does_not_stall() {
        let (mut theirs, ours) = over_small_sockets().await;
        let mut ours = Stream::Tls(ours);
        let mut outbox = Outbox::new(vec![0; 1_000_000]);
        let mut last = (0, 0, None);
        let slow_reader = poll_fn(|cx| {
            loop {
                let mut none = [0; 1];
                let read = Pin::new(&mut ours).poll_read(cx, &mut ReadBuf::new(&mut none));
                assert!(read.is_pending());
                assert!(
                    outbox.poll_send(&mut ours, cx).is_pending(),
                    "no chunk was cut"
                );
                let now = (outbox.taken, ours.unsent(), outbox.stalled);
                let (held, stalled) = (last.1, last.2);
                if now.0 == last.0 && now.1 < held {
                    return Poll::Ready((stalled, now.2));
                }
                last = now;
                let mut some = [0; 1024];
                let reading = Pin::new(&mut *theirs.get_mut().0);
                ready!(reading.poll_read(cx, &mut ReadBuf::new(&mut some))).unwrap();
            }
        });
        let (before, after) = timeout(Duration::from_secs(20), slow_reader).await.unwrap();
        assert!(after > before, "it took some, and is taken for stalled");
    }
}
