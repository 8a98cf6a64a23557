//! The control path: bind, run, reload, hand over, drain. The only place that wires parts together.
//!
//! Every socket is bound and every file read before anything runs: a start either stands or says what is missing.

mod changes;
mod desk;
mod drain;
mod follow;
mod listen;
mod reading;
mod reload;
mod supervise;
mod upgrade;
mod watch;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch as channel};
use tokio_util::sync::CancellationToken;

use crate::acme::{self, Plan};
use crate::admin::commands::{Commanded, Phase};
use crate::admin::{self, Commands, Health, Status};
use crate::certificates::Tickets;
use crate::config::model::{Config, Speaks};
use crate::config::{Problem, Source};
use crate::gateway::admission::Admission;
use crate::gateway::{Gateway, ListenerContext, Snapshot};
use crate::lifecycle::inherited::{Door, Holder, Inherited, Ready};
use crate::lifecycle::signals::Stop;
use crate::lifecycle::{BlockReady, Drain, Ended, Readiness, Supervisor};
use crate::pool::Registry;
use crate::telemetry::Metrics;
use desk::Desk;
use drain::Draining;
use listen::Doors;
use reload::{InForce, Reloader};
use upgrade::Upgrade;
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
    listeners: Vec<(Arc<ListenerContext>, Vec<Door>)>,
    admin: Option<Door>,
    starting: BlockReady,
    commands: Commands,
    commanded: Commanded,
    launch: Launch,
    read: watch::Contents,
    plan: Plan,
    /// What the operator should hear about files.
    pub warnings: Vec<Problem>,
}

/// How the process came to be.
#[derive(Debug, Default)]
pub struct Launch {
    /// What a reload reads again; without it a reload reads certificates again, and nothing else.
    pub source: Option<Source>,
    pub inherited: Inherited,
    pub supervisor: Supervisor,
}

impl App {
    /// Binds every socket and reads every file.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        Self::launch(config, Launch::default())
    }

    /// As `bind`, with what the process was started with.
    pub fn launch(config: Config, mut launch: Launch) -> Result<Self, StartError> {
        let workers = config.workers.get();
        let metrics = Arc::new(Metrics::new(workers));
        let brokers = Registry::default();
        let tickets = Tickets::default();
        // Before they are read: what changes in between is found to be different.
        let read = watch::contents(changes::files(&config, launch.source.as_ref()));
        let mut warnings = acme::prepare(&config, acme::Access::Make)
            .map_err(|problem| StartError::Problems(vec![problem]))?;
        let plan = Plan::of(&config);
        let drain = Drain::default();
        drain.set_rate(config.drain.rate);
        let built = Snapshot::build(&config, &metrics, &brokers, &tickets, &drain)
            .map_err(StartError::Problems)?;
        warnings.extend(built.warnings);
        metrics.control.in_force(1);
        let bound = listen::bind_all(&config, &mut launch.inherited).map_err(StartError::Listen)?;
        for (name, address) in launch.inherited.rest() {
            tracing::warn!(name, %address, "a socket was passed that no listener is for: it is closed");
        }
        launch.inherited.forget_rest();
        let https_port = bound
            .listeners
            .iter()
            .find(|(listener, ..)| listener.speaks == Speaks::Tls)
            .map_or(443, |(_, address, _)| address.port());
        let listeners: Vec<_> = bound
            .listeners
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
        let (commands, commanded) = Commands::new(drain.clone());
        let gateway = Arc::new(Gateway {
            snapshot: ArcSwap::from_pointee(built.snapshot),
            admission: Admission::default(),
            drain,
            brokers,
            tickets,
            challenges: Arc::default(),
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
            admin: bound.admin,
            starting,
            commands,
            commanded,
            launch,
            read,
            plan,
            warnings,
            config,
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
            .and_then(|admin| admin.socket.local_addr().ok())
    }

    pub fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    /// Asks the running process for a reload, or for a new process to take over.
    pub fn commands(&self) -> Commands {
        self.commands.clone()
    }

    /// Runs until `stop` tells, or another process has taken over, then drains. `served` is called when every listener is
    /// served. Call it on a runtime of its own: admin answers while the data path is busy.
    pub async fn run(
        mut self,
        mut stop: impl Stopper,
        served: impl FnOnce(),
    ) -> Result<Ended, StartError> {
        let finished = CancellationToken::new();
        let doors = Doors::default();
        let sockets_live_on = self.are_sockets_held();
        let workers = self.start_workers(&doors, &finished).await?;
        drop(self.starting);
        let supervisor = Arc::new(self.launch.supervisor);
        let Commanded {
            commands,
            mut drains,
            phase,
        } = self.commanded;
        supervisor.ready(&supervise::status(&self.gateway, Phase::Serving));
        served();
        tell_ready(self.launch.inherited.ready());
        let handed_over = CancellationToken::new();
        let admin_door = self.admin.as_ref().and_then(|admin| admin.try_clone().ok());
        let desk = Desk::default();
        let admin = self.admin.map(|admin| admin.socket);
        let serving = desk.serve(admin, Arc::clone(&self.status), self.commands);
        let snapshot = self.gateway.snapshot.load_full();
        let (in_force, following) = channel::channel(InForce {
            pools: snapshot.routes.pools_and_servers(),
            dns: self.config.dns.clone(),
        });
        let (plans, planned) = channel::channel(self.plan);
        let (take_over, take_overs) = mpsc::channel(1);
        let upgrade = Upgrade {
            doors: doors.clone(),
            admin: admin_door,
            supervisor: Arc::clone(&supervisor),
            handed_over: handed_over.clone(),
            phase: phase.subscribe(),
        };
        let reloader = Reloader {
            gateway: Arc::clone(&self.gateway),
            supervisor: Arc::clone(&supervisor),
            status: Arc::clone(&self.status),
            config: self.config,
            source: self.launch.source,
            read: self.read,
            generation: 1,
            in_force,
            plans,
            phase: phase.subscribe(),
        };
        let certificates = acme::Shared {
            challenges: Arc::clone(&self.gateway.challenges),
            metrics: Arc::clone(&self.gateway.metrics),
            take_over,
        };
        let certificates = follow::certificates(planned, certificates, phase.subscribe());
        let supervising = supervise::run(
            &self.gateway,
            &self.status.health,
            &supervisor,
            phase.subscribe(),
        );
        let draining = Draining {
            gateway: &self.gateway,
            health: &self.status.health,
            supervisor: &supervisor,
            doors: &doors,
            handed_over: &handed_over,
            sockets_live_on,
            desk: &desk,
            phase,
        };
        // CANCEL: only `draining` ends; the others lose admin requests, probes, look-ups, orders and a reload, which the end
        // makes void.
        let ended = tokio::select! {
            ended = draining.run(&mut stop, &mut drains) => ended,
            _ended = async {
                tokio::join!(
                    serving,
                    follow::pools(following, &self.gateway),
                    reloader.run(commands, take_overs, upgrade, handed_over.clone()),
                    certificates,
                    self.gateway.drain.pace(),
                    supervising,
                )
            } => Ended { asked: 0, cut: 0 },
        };
        finished.cancel();
        for worker in workers {
            worker.join();
        }
        Ok(ended)
    }

    /// A supervisor holds sockets of the listeners: they queue when this process has ended.
    fn are_sockets_held(&self) -> bool {
        let mut doors = self.listeners.iter().flat_map(|(_, doors)| doors);
        doors.any(|door| matches!(door.holder, Holder::Supervisor(_)))
    }

    /// Each worker gets one socket of each listener, or what `listen::share` makes of those that were passed. Answers when
    /// all of them accept.
    async fn start_workers(
        &mut self,
        doors: &Doors,
        finished: &CancellationToken,
    ) -> Result<Vec<Worker>, StartError> {
        let count = self.config.workers.get();
        let mut shares: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        for (context, listening) in self.listeners.drain(..) {
            for door in &listening {
                doors.keep(door).map_err(StartError::Thread)?;
            }
            let sockets = listening.into_iter().map(|door| door.socket).collect();
            let sockets = listen::share(sockets, count).map_err(StartError::Thread)?;
            for (share, sockets) in shares.iter_mut().zip(sockets) {
                let sockets = sockets.into_iter();
                share.extend(sockets.map(|socket| (Arc::clone(&context), socket)));
            }
        }
        let (accepts, mut accepting) = mpsc::channel::<()>(1);
        let start = |(index, sockets)| {
            Worker::start(
                index,
                sockets,
                Arc::clone(&self.gateway),
                Arc::clone(&self.status),
                accepts.clone(),
                finished.clone(),
            )
        };
        let workers = shares
            .into_iter()
            .enumerate()
            .map(start)
            .collect::<io::Result<_>>()
            .map_err(StartError::Thread)?;
        drop(accepts);
        // Nothing is ever sent: it ends when the last worker has dropped its end.
        let _all_accept = accepting.recv().await;
        Ok(workers)
    }
}

fn tell_ready(starter: Option<Ready>) {
    if let Some(starter) = starter
        && let Err(error) = starter.tell()
    {
        tracing::warn!(%error, "the process that was to be taken over from does not listen");
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
