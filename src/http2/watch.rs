//! What h2 does not count: frames that only make work, and a socket that takes nothing.
//!
//! SECURITY: HTTP/2 lets a client ask for work without paying for it: open and reset (CVE-2023-44487), PING, SETTINGS,
//! PRIORITY, empty DATA (CVE-2019-9512, -9513, -9515, -9518), frames of unknown types. h2 bounds the memory of each; this
//! bounds the work, for all of them together. The heads of frames are read as they pass, nothing is kept.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::gather::Gathered;

/// Idle frames that a client may send at once, and per second after that. A browser that leaves a page resets some
/// hundred streams.
const BURST: u32 = 1000;
const PER_SECOND: u32 = 100;

/// Read in one turn of the connection's task. Then its sessions have theirs: small frames that they have not taken are
/// what h2 counts against the client.
const TURN: usize = 64 * 1024;

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n` (RFC 9113 3.4).
const PREFACE: u32 = 24;

/// Length, type, flags, stream (RFC 9113 4.1).
const HEAD: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const WINDOW_UPDATE: u8 = 0x8;
const END_STREAM: u8 = 0x1;

/// What a connection's task asks about its stream, which h2 owns.
#[derive(Debug)]
pub struct Watch {
    began: Instant,
    flooded: AtomicBool,
    blocked: Since,
    closing: Since,
    left: AtomicBool,
    /// Bytes read in this turn.
    turn: AtomicUsize,
    /// What is written waits for the end of the turn.
    gathers: AtomicBool,
    /// Something waits.
    gathered: AtomicBool,
}

/// Milliseconds since `Watch::began`, and one; 0 for not.
#[derive(Debug, Default)]
struct Since(AtomicU64);

impl Since {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn set(&self, began: Instant) {
        let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(millis.saturating_add(1), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    fn at(&self, began: Instant) -> Option<Instant> {
        let millis = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        Some(began + Duration::from_millis(millis))
    }
}

impl Watch {
    /// The client sent too many frames that only make work. Nothing is read from then on.
    pub fn is_flooded(&self) -> bool {
        self.flooded.load(Ordering::Relaxed)
    }

    /// The connection's task is polled.
    pub fn begin_turn(&self) {
        self.turn.store(0, Ordering::Relaxed);
        self.gathers.store(true, Ordering::Relaxed);
    }

    /// It has done what it can. True where something was written: the connection is to be polled again, to send it.
    pub fn end_turn(&self) -> bool {
        self.gathers.store(false, Ordering::Relaxed);
        self.gathered.load(Ordering::Relaxed)
    }

    /// Since when the socket takes nothing.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.blocked.at(self.began)
    }

    /// Since when our last words are said and the client's end is waited for.
    pub fn closing_since(&self) -> Option<Instant> {
        self.closing.at(self.began)
    }

    /// The client's end is waited for no longer.
    pub fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// `moved`: some of what waited was sent.
    fn note<T>(&self, written: &Poll<T>, moved: bool) {
        match written {
            Poll::Ready(_) => self.blocked.clear(),
            Poll::Pending if !moved && self.blocked.is_set() => {}
            Poll::Pending => self.blocked.set(self.began),
        }
    }
}

/// A client's stream, watched.
#[derive(Debug)]
pub struct Watched<T> {
    stream: T,
    /// Bytes that the stream took and its socket did not.
    unsent: fn(&T) -> usize,
    /// Written in this turn.
    gathered: Gathered,
    frames: Frames,
    watch: Arc<Watch>,
    ended: bool,
}

impl<T> Watched<T> {
    pub(super) fn new(stream: T, unsent: fn(&T) -> usize) -> (Self, Arc<Watch>) {
        let watch = Arc::new(Watch {
            began: Instant::now(),
            flooded: AtomicBool::new(false),
            blocked: Since::default(),
            closing: Since::default(),
            left: AtomicBool::new(false),
            turn: AtomicUsize::new(0),
            gathers: AtomicBool::new(false),
            gathered: AtomicBool::new(false),
        });
        let watched = Self {
            stream,
            unsent,
            gathered: Gathered::default(),
            frames: Frames::new(Instant::now()),
            watch: Arc::clone(&watch),
            ended: false,
        };
        (watched, watch)
    }

    fn note_gathered(&self) {
        let some = !self.gathered.is_empty();
        self.watch.gathered.store(some, Ordering::Relaxed);
    }

    fn write<R>(&mut self, write: impl FnOnce(&mut T) -> Poll<R>) -> Poll<R> {
        let before = (self.unsent)(&self.stream);
        let written = write(&mut self.stream);
        let moved = (self.unsent)(&self.stream) < before;
        self.watch.note(&written, moved);
        written
    }
}

/// Reads the heads of frames wherever reads cut them.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes until the next head.
    skip: u32,
    head: [u8; HEAD],
    filled: usize,
    left: u32,
    /// When `left` was last filled up.
    filled_up: Instant,
}

impl Frames {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            filled: 0,
            left: BURST,
            filled_up: now,
        }
    }

    /// False when it was one idle frame too many.
    pub(super) fn pass(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        while !bytes.is_empty() {
            let skipped = bytes
                .len()
                .min(usize::try_from(self.skip).unwrap_or(usize::MAX));
            bytes = &bytes[skipped..];
            self.skip -= u32::try_from(skipped).unwrap_or(self.skip);
            let count = bytes.len().min(HEAD - self.filled);
            self.head[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == HEAD {
                self.filled = 0;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = u32::from_be_bytes([0, a, b, c]);
                if is_idle(self.skip, kind, flags) && !self.pay(now) {
                    return false;
                }
            }
        }
        true
    }

    fn pay(&mut self, now: Instant) -> bool {
        if self.left == 0 {
            let millis = now.saturating_duration_since(self.filled_up).as_millis();
            let earned = millis.saturating_mul(u128::from(PER_SECOND)) / 1000;
            self.left = u32::try_from(earned).map_or(BURST, |earned| earned.min(BURST));
            if self.left == 0 {
                return false;
            }
            self.filled_up = now;
        }
        self.left -= 1;
        true
    }
}

/// Requests, their bodies and what lets us go on are why the client is here; all else is idle.
fn is_idle(length: u32, kind: u8, flags: u8) -> bool {
    match kind {
        DATA => length == 0 && flags & END_STREAM == 0,
        HEADERS | WINDOW_UPDATE => false,
        _ => true,
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.is_flooded() {
            // The connection's task ends it after this turn.
            return Poll::Pending;
        }
        if this.watch.turn.load(Ordering::Relaxed) >= TURN {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        this.ended = read.is_empty();
        this.watch.turn.fetch_add(read.len(), Ordering::Relaxed);
        if !this.frames.pass(read, Instant::now()) {
            this.watch.flooded.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Watched<T> {
    /// Hands over what was gathered.
    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            let written = self.write(|stream| Pin::new(stream).poll_write(cx, gathered.rest()));
            self.gathered = gathered;
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.gathered.sent(count),
            }
        }
        self.note_gathered();
        Poll::Ready(Ok(()))
    }

    /// Gathers, unless there is as much as may be, or the socket has not taken what it was given before: back-pressure.
    fn poll_gather(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gathered.is_full() {
            ready!(self.poll_gathered(cx))?;
        }
        if (self.unsent)(&self.stream) > 0 {
            ready!(self.write(|stream| Pin::new(stream).poll_flush(cx)))?;
        }
        let count = self.gathered.take(slices);
        self.note_gathered();
        Poll::Ready(Ok(count))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.watch.gathers.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_gathered(cx))?;
        this.write(|stream| Pin::new(stream).poll_flush(cx))
    }

    /// Ready when the client has closed, too: closing with bytes unread would reset the connection, and our last words
    /// (GOAWAY says why) be lost. How it goes must not hide why it was done.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.ended |= ready!(this.poll_gathered(cx)).is_err();
        this.ended |= ready!(Pin::new(&mut this.stream).poll_shutdown(cx)).is_err();
        if !this.watch.closing.is_set() {
            this.watch.closing.set(this.watch.began);
        }
        let mut rest = [0; 1024];
        while !this.ended && !this.watch.left.load(Ordering::Relaxed) {
            let mut rest = ReadBuf::new(&mut rest);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut rest));
            this.ended = read.is_err() || rest.filled().is_empty();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.watch.gathers.load(Ordering::Relaxed) {
            return this.poll_gather(cx, slices);
        }
        ready!(this.poll_gathered(cx))?;
        this.write(|stream| Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
