//! What one turn of a connection's task writes leaves together: h2 flushes behind each DATA frame, and sixteen answers would
//! be sixteen writes and twice as many records.

use std::cell::Cell;
use std::io::IoSlice;

/// TLS encrypts so much at once.
const MOST: usize = 64 * 1024;

thread_local! {
    /// The memory of turns that are over. A connection has its own only while its socket takes nothing.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Bytes of this turn, in order.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    bytes: Vec<u8>,
    sent: usize,
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() >= MOST
    }

    /// Takes what there is room for, and answers how much that is.
    pub(super) fn take(&mut self, slices: &[IoSlice<'_>]) -> usize {
        if self.bytes.capacity() == 0 {
            self.bytes = SPARE.take();
        }
        let before = self.bytes.len();
        for slice in slices {
            let room = MOST - self.bytes.len().min(MOST);
            let count = slice.len().min(room);
            self.bytes.extend_from_slice(&slice[..count]);
        }
        self.bytes.len() - before
    }

    /// What is to be sent next; empty when all was.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    pub(super) fn sent(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.sent = 0;
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            SPARE.set(bytes);
        }
    }
}
