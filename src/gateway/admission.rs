//! How much may be there at once: a place is taken before anything is done for a client, and given back on drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The counters of the process.
#[derive(Debug, Default)]
pub struct Admission {
    connections: Arc<AtomicUsize>,
    handshakes: Arc<AtomicUsize>,
}

/// A place taken under a limit.
#[derive(Debug)]
pub struct Permit {
    counter: Arc<AtomicUsize>,
}

impl Admission {
    /// A place for a connection, until it and its session end. `None` when `most` are there.
    pub fn connection(&self, most: usize) -> Option<Permit> {
        Permit::take(&self.connections, most)
    }

    /// A place for a handshake in flight. `None` when `most` are.
    pub fn handshake(&self, most: usize) -> Option<Permit> {
        Permit::take(&self.handshakes, most)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Permit {
    fn take(counter: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        counter
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < most).then_some(taken + 1)
            })
            .ok()?;
        Some(Self {
            counter: Arc::clone(counter),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let admission = Admission::default();
        let first = admission.connection(2);
        let _second = admission.connection(2).unwrap();
        assert!(admission.connection(2).is_none());
        drop(first);
        assert!(admission.connection(2).is_some());
        assert_eq!(admission.connections(), 1);
    }
}
