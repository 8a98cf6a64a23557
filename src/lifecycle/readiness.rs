//! Ready is when nothing is pending: each start-up task and each drain holds a named block, dropping it removes it.

use std::sync::{Arc, Mutex, PoisonError};

/// The answer to `/readyz`.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    pending: Arc<Mutex<Vec<&'static str>>>,
}

/// Keeps the process from being ready.
#[derive(Debug)]
pub struct BlockReady {
    pending: Arc<Mutex<Vec<&'static str>>>,
    name: &'static str,
}

impl Readiness {
    /// Not ready until the block is dropped.
    pub fn block(&self, name: &'static str) -> BlockReady {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(name);
        BlockReady {
            pending: Arc::clone(&self.pending),
            name,
        }
    }

    /// What is still pending; empty when ready.
    pub fn pending(&self) -> Vec<&'static str> {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = pending.iter().position(|name| *name == self.name) {
            pending.swap_remove(at);
        }
    }
}
