//! One thread of the data path: its own runtime, its own listening sockets, its own sessions. Sessions never move between
//! threads, so a packet costs no wake-up across cores and no atomic that two cores fight for.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Status;
use crate::gateway::turns::Turns;
use crate::gateway::{Gateway, ListenerContext, accept};

/// How often a worker says that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Threads that look files up. tokio's own 512 are a third of a megabyte each, and a client that asks for many files and takes
/// none (CVE-2023-44487) starts them all.
const FILES_AT_ONCE: usize = 32;

/// A running thread.
pub(super) struct Worker {
    thread: JoinHandle<()>,
}

impl Worker {
    /// Drops `accepts` when it accepts.
    pub(super) fn start(
        index: usize,
        sockets: Vec<(Arc<ListenerContext>, TcpListener)>,
        gateway: Arc<Gateway>,
        status: Arc<Status>,
        accepts: mpsc::Sender<()>,
        finished: CancellationToken,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(FILES_AT_ONCE)
            .build()?;
        let listeners = {
            let _entered = runtime.enter();
            sockets
                .into_iter()
                .map(|(context, socket)| {
                    tokio::net::TcpListener::from_std(socket).map(|listener| (context, listener))
                })
                .collect::<io::Result<Vec<_>>>()?
        };
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                runtime.block_on(async {
                    let mut accepting = JoinSet::new();
                    let turns = Arc::new(Turns::default());
                    for (context, listener) in listeners {
                        accepting.spawn(accept::run(
                            listener,
                            context,
                            Arc::clone(&gateway),
                            index,
                            Arc::clone(&turns),
                        ));
                    }
                    drop(accepts);
                    let mut beat = tokio::time::interval(HEARTBEAT);
                    loop {
                        // CANCEL: a tick that is lost comes again, `cancelled` only waits.
                        tokio::select! {
                            _ = beat.tick() => status.health.beat(index),
                            () = finished.cancelled() => break,
                        }
                    }
                });
                // Blocking work (a name being resolved, a file being read) must not hold the end up.
                runtime.shutdown_background();
            })?;
        Ok(Self { thread })
    }

    pub(super) fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("a worker thread panicked: a bug, please report it");
        }
    }
}
