//! The body of an answer: bytes that are there, or a large file that is read while it is sent.
//!
//! A large file is read on the thread that sends it as long as the kernel has it in memory (`RWF_NOWAIT`, which never
//! waits for a disk): handing a block over from another thread costs more than copying it. What would wait is read on a
//! blocking thread, one block at a time. Nothing is read before the last block was taken, so a client that takes nothing
//! costs one block.

use std::fs::File;
use std::io::{self, ErrorKind, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// What TLS encrypts and the socket is offered at once.
const BLOCK: usize = 64 * 1024;

/// For a disk, or a server that the files come from.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sent by `SiteService`. An error is that of reading the file, and ends the response early.
pub enum Body {
    /// Nothing once it was taken.
    Memory(Bytes),
    Large(Box<Reading>),
}

/// A part of a file.
pub struct Reading {
    file: Arc<File>,
    at: u64,
    left: u64,
    /// Used again when its last block was sent.
    buffer: BytesMut,
    waiting: Option<Wait>,
}

type Wait = Pin<Box<dyn Future<Output = io::Result<BytesMut>> + Send>>;

impl Body {
    pub(super) fn empty() -> Self {
        Self::Memory(Bytes::new())
    }

    pub(super) fn large(file: &Arc<File>, at: u64, left: u64) -> Self {
        Self::Large(Box::new(Reading {
            file: Arc::clone(file),
            at,
            left,
            buffer: BytesMut::new(),
            waiting: None,
        }))
    }
}

impl Reading {
    fn poll_block(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let mut waiting = match self.waiting.take() {
            Some(waiting) => waiting,
            None => {
                let length = self.left.min(BLOCK as u64);
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.resize(usize::try_from(length).unwrap_or(BLOCK), 0);
                match self.read_now(&mut buffer) {
                    Some(Ok(count)) => {
                        buffer.truncate(count);
                        return Poll::Ready(self.taken(buffer));
                    }
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => self.read_later(buffer),
                }
            }
        };
        match waiting.as_mut().poll(cx) {
            Poll::Ready(read) => Poll::Ready(read.and_then(|buffer| self.taken(buffer))),
            Poll::Pending => {
                self.waiting = Some(waiting);
                Poll::Pending
            }
        }
    }

    /// `None` where it would have to wait.
    fn read_now(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        let mut slices = [IoSliceMut::new(buffer)];
        match preadv2(&self.file, &mut slices, self.at, ReadWriteFlags::NOWAIT) {
            Ok(count) => Some(Ok(count)),
            // Not in memory; or a file system or kernel that cannot tell.
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    fn read_later(&self, mut buffer: BytesMut) -> Wait {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let reading = spawn_blocking(move || {
            let count = file.read_at(&mut buffer, at)?;
            buffer.truncate(count);
            Ok(buffer)
        });
        Box::pin(async move {
            let read = timeout(PATIENCE, reading).await;
            read.map_err(|_elapsed| ErrorKind::TimedOut)?
                .map_err(io::Error::other)?
        })
    }

    /// The length was told already: a file that became shorter cannot be sent.
    fn taken(&mut self, mut buffer: BytesMut) -> io::Result<Bytes> {
        if buffer.is_empty() {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the file became shorter while it was sent",
            ));
        }
        self.at += buffer.len() as u64;
        self.left -= buffer.len() as u64;
        let block = buffer.split().freeze();
        self.buffer = buffer;
        Ok(block)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Memory(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Memory(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Large(reading) if reading.left == 0 => Poll::Ready(None),
            Self::Large(reading) => {
                let block = ready!(reading.poll_block(cx));
                Poll::Ready(Some(block.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Memory(bytes) => bytes.is_empty(),
            Self::Large(reading) => reading.left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Large(reading) => reading.left,
        })
    }
}
