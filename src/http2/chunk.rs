//! Bytes on their way into DATA frames, counted until the connection has taken them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;

use atomic_waker::AtomicWaker;
use bytes::{Buf, Bytes};

/// What one stream has handed over and the connection has not written.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    bytes: AtomicUsize,
    waker: AtomicWaker,
}

impl Unsent {
    pub(super) fn count(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Wakes when nothing is unsent any more. Look at the count afterwards, too.
    pub(super) fn wake(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    fn took(&self, count: usize) {
        let before = self.bytes.fetch_sub(count, Ordering::AcqRel);
        if before == count && count > 0 {
            self.waker.wake();
        }
    }
}

/// Bytes of one stream.
#[derive(Debug)]
pub struct Chunk {
    bytes: Bytes,
    unsent: Option<Arc<Unsent>>,
}

impl Chunk {
    /// Bytes that nobody waits for.
    pub fn uncounted(bytes: Bytes) -> Self {
        Self {
            bytes,
            unsent: None,
        }
    }

    pub(super) fn counted(bytes: Bytes, unsent: &Arc<Unsent>) -> Self {
        unsent.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        Self {
            bytes,
            unsent: Some(Arc::clone(unsent)),
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(unsent) = &self.unsent {
            unsent.took(count);
        }
    }
}

/// A reset throws away what was not sent.
impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(unsent) = &self.unsent {
            unsent.took(self.bytes.len());
        }
    }
}
