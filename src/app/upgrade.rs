//! A new process takes over: it is started with every listening socket, serves from them, says "ready", and only then does
//! this one stop accepting and ask its sessions to leave. Where it does not come up, this one goes on and says so.
//!
//! Both hold the same sockets, so that no connection in a queue is lost, whichever of them takes it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::dup;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::listen::Doors;
use crate::admin::commands::{Phase, Upgraded};
use crate::lifecycle::Supervisor;
use crate::lifecycle::inherited::{Door, Holder, READY, SOCKETS};

/// For the new process to read its files and bind what is new: as long as systemd gives a start with few units.
const PATIENCE: Duration = Duration::from_secs(30);

/// For a process that says no more "ready" to end, with an exit code that means something.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Why the new process does not serve.
#[derive(Debug, thiserror::Error)]
enum UpgradeError {
    #[error(
        "this process is the container's first: its end would be the container's; replace the container instead"
    )]
    FirstProcess,
    #[error("a drain has begun, and the listeners close: stop this process and start a new one")]
    Draining,
    #[error("the new process cannot be started: {0}")]
    Start(#[source] io::Error),
    #[error("the new process ended with {0}; its lines in the log say why")]
    Ended(ExitStatus),
    #[error("the new process was not ready within {} s and was ended", PATIENCE.as_secs())]
    TooLong,
}

/// What the new process is given.
pub(super) struct Upgrade {
    pub(super) doors: Doors,
    pub(super) admin: Option<Door>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) handed_over: CancellationToken,
    pub(super) phase: watch::Receiver<Phase>,
}

impl Upgrade {
    pub(super) async fn run(&self) -> Upgraded {
        tracing::info!("a new process is to take over");
        match self.hand_over().await {
            Ok(process) => {
                tracing::info!(process, "the new process serves; this one drains");
                self.supervisor.main_pid(process);
                self.handed_over.cancel();
                Upgraded {
                    process: Some(process),
                    message: format!("process {process} serves; the old one drains"),
                }
            }
            Err(error) => {
                tracing::error!(%error, "no new process took over: this one goes on");
                Upgraded {
                    process: None,
                    message: error.to_string(),
                }
            }
        }
    }

    async fn hand_over(&self) -> Result<u32, UpgradeError> {
        if std::process::id() == 1 {
            return Err(UpgradeError::FirstProcess);
        }
        let mut phase = self.phase.clone();
        if *phase.borrow() != Phase::Serving || self.handed_over.is_cancelled() {
            return Err(UpgradeError::Draining);
        }
        let (mut ready, mut successor) = self.start()?;
        let mut word = [0; 1];
        // CANCEL: the new process is ended when a drain comes first; whoever stops this one wants none.
        let said = tokio::select! {
            biased;
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => {
                successor.end().map_err(UpgradeError::Start)?;
                return Err(UpgradeError::Draining);
            }
            said = timeout(PATIENCE, ready.read_exact(&mut word)) => said,
        };
        match said {
            Ok(Ok(_)) => Ok(successor.is_ready()),
            // The pipe closed: it is gone, or about to go.
            Ok(Err(_)) => {
                let ended = match timeout(LAST_WORDS, successor.ended()).await {
                    Ok(ended) => ended,
                    Err(_) => successor.end(),
                };
                Err(UpgradeError::Ended(ended.map_err(UpgradeError::Start)?))
            }
            Err(_) => {
                successor.end().map_err(UpgradeError::Start)?;
                Err(UpgradeError::TooLong)
            }
        }
    }

    fn start(&self) -> Result<(Receiver, Successor), UpgradeError> {
        let passed = self.passed().map_err(UpgradeError::Start)?;
        let words = passed
            .iter()
            .map(|(holder, fd)| holder.word(fd.as_raw_fd()));
        let words: Vec<_> = words.collect();
        let start = || {
            let (reader, writer) = io::pipe()?;
            let writer = dup(&writer).map_err(io::Error::from)?;
            let ready = Receiver::from_owned_fd(reader.into())?;
            let mut arguments = std::env::args_os();
            // As it was called, and not where that led to: a package, or a link, may have put another version there.
            let program = arguments
                .next()
                .unwrap_or_else(|| OsString::from("tidegate"));
            let child = Command::new(program)
                .args(arguments)
                .env(SOCKETS, words.join(":"))
                .env(READY, writer.as_raw_fd().to_string())
                // They speak of this process.
                .env_remove("LISTEN_PID")
                .env_remove("WATCHDOG_PID")
                .spawn()?;
            Ok((ready, Successor(Some(child))))
        };
        let started = start().map_err(UpgradeError::Start);
        // Kept open until it has them.
        drop(passed);
        started
    }

    /// Descriptors that stay open in a new process (`dup` clears the mark that closes them).
    fn passed(&self) -> io::Result<Vec<(Holder, OwnedFd)>> {
        let doors = self.doors.lock();
        let doors = doors.iter().chain(&self.admin);
        doors
            .map(|door| Ok((door.holder.clone(), dup(&door.socket)?)))
            .collect()
    }
}

/// Ended when it is dropped before it was ready: nobody else would.
struct Successor(Option<Child>);

impl Successor {
    fn is_ready(&mut self) -> u32 {
        self.0.take().map_or(0, |child| child.id())
    }

    /// Ready when it has ended by itself.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        const LOOK: Duration = Duration::from_millis(10);
        loop {
            let child = self.0.as_mut().ok_or(io::ErrorKind::NotFound)?;
            if let Some(status) = child.try_wait()? {
                self.0 = None;
                return Ok(status);
            }
            sleep(LOOK).await;
        }
    }

    fn end(&mut self) -> io::Result<ExitStatus> {
        let Some(mut child) = self.0.take() else {
            return Err(io::Error::other("it is ready"));
        };
        child.kill()?;
        child.wait()
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        if self.0.is_some()
            && let Err(error) = self.end()
        {
            tracing::error!(%error, "the new process cannot be ended");
        }
    }
}
