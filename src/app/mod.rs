//! The control path: bind, run, drain. The only place that wires parts together.
//!
//! Every socket is bound and every file read before anything runs: a start either stands or says what is missing.

mod listen;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Health, Status};
use crate::config::Problem;
use crate::config::model::{self, Config, Speaks};
use crate::gateway::admission::Admission;
use crate::gateway::{Gateway, ListenerContext, Snapshot};
use crate::lifecycle::signals::Stop;
use crate::lifecycle::{BlockReady, Drain, Ended, Pace, Readiness};
use crate::pool::{Registry, discovery, probe};
use crate::telemetry::Metrics;
use worker::Worker;

/// Why a start failed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, or a file that it names.
    #[error("the configuration cannot be used")]
    Problems(Vec<Problem>),
    /// Addresses that cannot be had: in use, no permission. All of them.
    #[error("an address cannot be listened on")]
    Listen(Vec<Problem>),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Everything bound, nothing running.
pub struct App {
    config: Config,
    gateway: Arc<Gateway>,
    status: Arc<Status>,
    listeners: Vec<(Arc<ListenerContext>, Vec<std::net::TcpListener>)>,
    admin: Option<std::net::TcpListener>,
    starting: BlockReady,
    /// What the operator should hear about files.
    pub warnings: Vec<Problem>,
}

impl App {
    /// Binds every socket and reads every file.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let workers = config.workers.get();
        let metrics = Arc::new(Metrics::new(workers));
        let brokers = Registry::default();
        let built = Snapshot::build(&config, &metrics, &brokers).map_err(StartError::Problems)?;
        let mut bound = Vec::new();
        let mut unbound = Vec::new();
        for listener in &config.listeners {
            match listen::bind(listener.address, workers) {
                Ok((address, sockets)) => bound.push((listener, address, sockets)),
                Err(error) => {
                    unbound.push(listen::problem(&listener.place, listener.address, &error));
                }
            }
        }
        let admin = match &config.admin {
            Some(admin) => bind_admin(admin)
                .map_err(|error| {
                    unbound.push(listen::problem(&admin.place, admin.address, &error));
                })
                .ok(),
            None => None,
        };
        if !unbound.is_empty() {
            return Err(StartError::Listen(unbound));
        }
        let https_port = bound
            .iter()
            .find(|(listener, ..)| listener.speaks == Speaks::Tls)
            .map_or(443, |(_, address, _)| address.port());
        let listeners: Vec<_> = bound
            .into_iter()
            .enumerate()
            .map(|(index, (listener, address, sockets))| {
                let context = ListenerContext::new(
                    &listener.name,
                    index,
                    listener.speaks,
                    address,
                    https_port,
                    &metrics,
                );
                (Arc::new(context), sockets)
            })
            .collect();
        let readiness = Readiness::default();
        let starting = readiness.block("start");
        let gateway = Arc::new(Gateway {
            snapshot: ArcSwap::from_pointee(built.snapshot),
            admission: Admission::default(),
            drain: Drain::default(),
            brokers,
            metrics: Arc::clone(&metrics),
        });
        let snapshot = gateway.snapshot.load();
        let status = Status::new(
            Health::new(readiness, workers),
            metrics,
            gateway.drain.clone(),
            listeners
                .iter()
                .map(|(context, _)| shown(context))
                .collect(),
            &config,
            snapshot.routes.pools(),
            &built.certificates,
        );
        drop(snapshot);
        Ok(Self {
            status: Arc::new(status),
            gateway,
            listeners,
            admin,
            starting,
            config,
            warnings: built.warnings,
        })
    }

    /// Listeners by name, as bound.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, Speaks, SocketAddr)> {
        self.listeners
            .iter()
            .map(|(context, _)| (&*context.name, context.speaks, context.address))
    }

    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
            .as_ref()
            .and_then(|admin| admin.local_addr().ok())
    }

    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Runs until `stop` tells, then drains. Call it on a runtime of its own: admin answers while the data path is busy.
    pub async fn run(mut self, mut stop: impl Stopper) -> Result<Ended, StartError> {
        let finished = CancellationToken::new();
        let workers = self.start_workers(&finished)?;
        drop(self.starting);
        let serving = async {
            match self.admin {
                Some(admin) => admin::serve(admin, Arc::clone(&self.status)).await,
                None => std::future::pending().await,
            }
        };
        let stopping = async {
            let why = stop.next().await;
            tracing::info!(why, sessions = self.gateway.drain.members(), "stopping");
            drain(&self.gateway, &self.status.health, &self.config, &mut stop).await
        };
        let pools = self.gateway.snapshot.load().routes.pools().to_vec();
        let probing = probe::run(pools.clone(), Arc::clone(&self.gateway.metrics));
        let discovering = discovery::run(
            pools,
            self.config.dns.clone(),
            self.gateway.brokers.clone(),
            Arc::clone(&self.gateway.metrics),
        );
        // CANCEL: `serving` has no end of its own and loses only admin requests, `probing` only probes, `discovering` only asks.
        let ended = tokio::select! {
            ended = stopping => ended,
            () = serving => Ended { asked: 0, cut: 0 },
            () = probing => Ended { asked: 0, cut: 0 },
            () = discovering => Ended { asked: 0, cut: 0 },
        };
        finished.cancel();
        for worker in workers {
            worker.join();
        }
        Ok(ended)
    }

    /// Each worker gets one socket of each listener; none stays behind, or it would go on queueing in a drain.
    fn start_workers(&mut self, finished: &CancellationToken) -> Result<Vec<Worker>, StartError> {
        let mut shares: Vec<Vec<_>> = (0..self.config.workers.get()).map(|_| Vec::new()).collect();
        for (context, sockets) in self.listeners.drain(..) {
            for (share, socket) in shares.iter_mut().zip(sockets) {
                share.push((Arc::clone(&context), socket));
            }
        }
        let start = |(index, sockets)| {
            Worker::start(
                index,
                sockets,
                Arc::clone(&self.gateway),
                Arc::clone(&self.status),
                finished.clone(),
            )
        };
        shares
            .into_iter()
            .enumerate()
            .map(start)
            .collect::<io::Result<_>>()
            .map_err(StartError::Thread)
    }
}

/// Where the wish to stop comes from: signals, or a test.
pub trait Stopper {
    fn next(&mut self) -> impl Future<Output = &'static str>;
}

impl Stopper for Stop {
    async fn next(&mut self) -> &'static str {
        Self::next(self).await
    }
}

/// Not ready, announce, stop accepting, ask sessions to leave at a pace, cut the rest. A second wish to stop cuts at once.
async fn drain(
    gateway: &Gateway,
    health: &Health,
    config: &Config,
    stop: &mut impl Stopper,
) -> Ended {
    let _not_ready = health.readiness.block("drain");
    gateway.metrics.draining.set(1);
    let model::Drain {
        announce,
        rate,
        max,
    } = config.drain;
    let draining = async {
        tokio::time::sleep(announce).await;
        gateway.drain.close();
        let sessions = gateway.drain.members();
        let seconds = sessions as f64 / f64::from(rate.get());
        tracing::info!(sessions, rate, "draining, about {seconds:.1} s");
        gateway.drain.run(Pace { rate, max }).await
    };
    tokio::pin!(draining);
    // CANCEL: `next` is cancel-safe; the drain is polled on after it.
    let ended = tokio::select! {
        ended = &mut draining => ended,
        why = stop.next() => {
            tracing::warn!(why, "stopping at once");
            gateway.drain.cut_now();
            gateway.drain.run(Pace { rate, max: std::time::Duration::ZERO }).await
        }
    };
    gateway.metrics.drain_asked.inc_by(ended.asked as u64);
    gateway.metrics.drain_cut.inc_by(ended.cut as u64);
    gateway.metrics.draining.set(0);
    tracing::info!(asked = ended.asked, cut = ended.cut, "drained");
    ended
}

fn bind_admin(admin: &model::Admin) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(admin.address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn shown(context: &Arc<ListenerContext>) -> admin::Listener {
    admin::Listener {
        name: Arc::clone(&context.name),
        address: context.address.to_string(),
        speaks: context.speaks,
        connections: context.connections.clone(),
        accepted: context.accepted.clone(),
        sessions: context.sessions.clone(),
    }
}
