//! The only place that hears signals.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT: stop.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// Registers the handlers; from here on the signals no longer kill the process.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The name of the next one.
    pub async fn next(&mut self) -> &'static str {
        // CANCEL: both arms are `recv`, which loses nothing.
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP: read the files again. SIGUSR2: let a new process take over.
#[derive(Debug)]
pub struct Wishes {
    reload: Signal,
    upgrade: Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    Reload,
    Upgrade,
}

impl Wishes {
    /// As `Stop::listen`.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    pub async fn next(&mut self) -> Wish {
        // CANCEL: both arms are `recv`, which loses nothing.
        tokio::select! {
            _ = self.reload.recv() => Wish::Reload,
            _ = self.upgrade.recv() => Wish::Upgrade,
        }
    }
}
