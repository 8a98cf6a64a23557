//! TLS over one TCP connection: rustls speaks the protocol, this module moves its bytes. It is rustls' unbuffered
//! interface, so that an idle connection holds no buffer, and bytes are read 64 KiB at once into memory that all
//! connections of a thread share. Nothing above it knows of that interface, which rustls 0.24 will change.

mod handshake;
mod hello;
mod records;
mod server_name;
#[cfg(test)]
pub(crate) mod tests;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::CommonState;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use self::records::Session;

pub use self::handshake::{accept, connect};
pub use self::hello::{Asked, Hello};
pub use self::server_name::{NoCertificate, Noting, ServerName};

/// Ciphertext read at once, and plaintext encrypted at once.
const CHUNK: usize = 64 * 1024;

/// Slices that one call takes. Each becomes a record, unless all of them are small.
const SLICES: usize = 64;

/// Slices that together are no longer leave as one record, and records in one write: to copy them costs less than a record
/// or a call more, on both sides.
const JOINED: usize = 4096;

/// Ciphertext that may wait for the rest of its message: the longest handshake message (RFC 8446 4: 2^24 would be allowed,
/// rustls takes 64 KiB) and a record. Of application data it is never more than one record.
const INCOMPLETE: usize = 64 * 1024 + 16 * 1024 + 1024;

thread_local! {
    /// Used within one poll, never across: only one connection of a thread is polled at a time.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        incoming: vec![0; INCOMPLETE + CHUNK].into_boxed_slice(),
        // What a record adds, and a key update, are far below 128 bytes.
        outgoing: vec![0; JOINED + CHUNK + 128 * (SLICES + CHUNK / (16 * 1024) + 1)]
            .into_boxed_slice(),
        joined: vec![0; JOINED].into_boxed_slice(),
    });
}

struct Scratch {
    incoming: Box<[u8]>,
    outgoing: Box<[u8]>,
    joined: Box<[u8]>,
}

/// What `TlsStream::outgoing` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// The socket, which was shown it.
    No,
    /// What is written next, to leave with it. It is no longer than `JOINED`.
    Back,
    /// The same, but the reader wanted more meanwhile: to the end of this turn and no longer.
    Overdue,
}

/// A connection whose handshake is done. Its three buffers are empty and without memory while nothing is in flight.
pub struct TlsStream {
    tcp: TcpStream,
    session: Session,
    /// Ciphertext whose record has not come whole.
    incoming: Vec<u8>,
    /// Plaintext that the reader had no room for.
    plain: Vec<u8>,
    /// Bytes of `plain` that were taken.
    taken: usize,
    /// Ciphertext that the socket has not taken, or was not shown.
    outgoing: Vec<u8>,
    /// Bytes of `outgoing` that were sent.
    sent: usize,
    held: Held,
    /// What is written may be held back.
    gathers: bool,
    /// The peer said close_notify: what it had to say is complete (RFC 8446 6.1).
    ended: bool,
    /// We did.
    closing: bool,
    /// rustls has said why; it must not be asked again.
    broken: bool,
}

impl TlsStream {
    fn new(tcp: TcpStream, session: Session) -> Self {
        Self {
            tcp,
            session,
            incoming: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            sent: 0,
            held: Held::No,
            gathers: false,
            ended: false,
            closing: false,
            broken: false,
        }
    }

    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// What the handshake agreed on.
    pub fn agreed(&self) -> &CommonState {
        self.session.agreed()
    }

    /// Bytes on their way that the socket has not taken.
    pub fn unsent(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// What is written from now on may wait for the next flush or shutdown, so that last words leave in one packet.
    pub fn gather(&mut self) {
        self.gathers = true;
    }

    /// One read of the socket, decrypted: first into `buffer`, what has no room there into `self.plain`. What a handshake
    /// message asks for is queued.
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let start = self.incoming.len();
            let bytes = &mut scratch.incoming;
            // No more than the reader has room for, and always room for one record.
            let end = start + buffer.remaining().clamp(records::LONGEST, CHUNK);
            if start > INCOMPLETE {
                let error = io::Error::other("a TLS handshake message over 64 KiB");
                return Poll::Ready(Err(error));
            }
            let mut space = ReadBuf::new(&mut bytes[start..end]);
            ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut space))?;
            let count = space.filled().len();
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            bytes[..start].copy_from_slice(&self.incoming);
            Poll::Ready(self.process(&mut bytes[..start + count], buffer))
        })
    }

    /// Decrypts whole records, keeps the rest.
    fn process(&mut self, bytes: &mut [u8], buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let plain = &mut self.plain;
        let processed = self.session.process(bytes, &mut self.outgoing, |payload| {
            let (now, later) = payload.split_at(payload.len().min(buffer.remaining()));
            buffer.put_slice(now);
            plain.extend_from_slice(later);
        });
        let processed = match processed {
            Ok(processed) => processed,
            Err(error) => {
                self.broken = true;
                if server_name::was_refused() {
                    self.outgoing.extend(server_name::UNRECOGNIZED_NAME);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, NoCertificate));
                }
                // Where it cannot be said either, the end of the connection tells.
                let _told = self.session.alert(&mut self.outgoing);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        self.ended |= processed.ended;
        let rest = &bytes[processed.taken..];
        if rest.is_empty() || self.ended {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Sends what is queued. Ready when nothing is left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held = Held::No;
        while self.sent < self.outgoing.len() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.outgoing[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        if !self.outgoing.is_empty() {
            self.outgoing = Vec::new();
            self.sent = 0;
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts up to `CHUNK` bytes of `slices` and sends them; what the socket does not take is queued. Answers how many
    /// bytes of plaintext it took.
    fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.held == Held::No {
            // One chunk may wait, no more: back-pressure.
            ready!(self.poll_send(cx))?;
        }
        if self.broken || self.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch {
                outgoing: space,
                joined,
                ..
            } = scratch;
            // The head of an answer and its small body, say.
            let total = slices.iter().map(|slice| slice.len()).sum();
            let one;
            let slices = if slices.len() > 1 && total <= JOINED {
                let mut at = 0;
                for slice in slices {
                    joined[at..at + slice.len()].copy_from_slice(slice);
                    at += slice.len();
                }
                one = [IoSlice::new(&joined[..total])];
                &one
            } else {
                slices
            };
            let (mut written, mut room) = (0, CHUNK);
            if self.held != Held::No {
                written = self.outgoing.len();
                space[..written].copy_from_slice(&self.outgoing);
                self.outgoing = Vec::new();
                self.held = Held::No;
            }
            for slice in slices.iter().take(SLICES) {
                let bytes = &slice[..slice.len().min(room)];
                written += self
                    .session
                    .encrypt(bytes, &mut self.incoming, &mut space[written..])
                    .map_err(io::Error::other)?;
                room -= bytes.len();
            }
            let out = &space[..written];
            let mut sent = 0;
            if self.gathers && written <= JOINED {
                self.held = Held::Back;
            }
            while self.held == Held::No && sent < out.len() {
                match Pin::new(&mut self.tcp).poll_write(cx, &out[sent..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => sent += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            self.outgoing.extend_from_slice(&out[sent..]);
            Poll::Ready(Ok(CHUNK - room))
        })
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.held == Held::Back {
            // Who reads now may be about to answer. A reader that has all it needs does not read again, and answers.
            if this.taken == this.plain.len() && !this.outgoing.is_empty() {
                this.held = Held::Overdue;
                cx.waker().wake_by_ref();
            }
        } else if !this.outgoing.is_empty() {
            // Nothing that was written may wait for the next write. How it goes is told then.
            let _goes = this.poll_send(cx);
        }
        let before = buffer.filled().len();
        if this.taken < this.plain.len() {
            let waiting = &this.plain[this.taken..];
            let count = waiting.len().min(buffer.remaining());
            buffer.put_slice(&waiting[..count]);
            this.taken += count;
        }
        if this.taken == this.plain.len() && !this.plain.is_empty() {
            (this.plain, this.taken) = (Vec::new(), 0);
        }
        // A record may hold nothing for the reader.
        while buffer.filled().len() == before && buffer.remaining() > 0 && !this.ended {
            if this.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let read = ready!(this.poll_records(cx, buffer));
            if !this.outgoing.is_empty() {
                // The alert that tells what was wrong: whoever hears of an error seldom writes again.
                let _goes = this.poll_send(cx);
            }
            read?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closing && !this.broken {
            this.closing = true;
            let mut space = [0; 256];
            let alert = this
                .session
                .say_close_notify(&mut this.incoming, &mut space);
            let length = alert.map_err(io::Error::other)?;
            this.outgoing.extend_from_slice(&space[..length]);
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("TlsStream")
            .field("tcp", &self.tcp)
            .finish_non_exhaustive()
    }
}
