//! The broker side: find brokers, choose one, connect, and try the next one until a CONNACK is seen; ask brokers how they are.

mod announce;
mod origin;
mod members;
pub mod discovery;
pub mod choose;
mod select;
mod queue;
mod connect;
mod handshake;
mod failure;
mod attempt;
mod join;
mod application;
mod health;
pub mod probe;
mod source;
mod series;
mod state;
mod view;

pub use announce::{Whence, announce, forwarded_fields};
pub use attempt::mask_seed;
pub use failure::{Failure, HandshakeFailure};
pub use join::{JoinError, Joined, Joining};
pub use select::Busy;
pub use state::{Registry, Trouble};
pub use view::{BrokerView, PoolView};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::certificates;
use crate::config::Problem;
use crate::config::announcement::Announcement;
use crate::config::model::{self, Balance, Eject, OnRemoved, Probe, Timeouts, Transport};
use crate::config::probe_values::ProbeUrl;
use crate::lifecycle::Group;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByPool, Name};
use choose::Seed;
use connect::Dialing;
use health::Condition;
use members::Members;
use origin::Origin;
use queue::Queue;
use state::State;

/// A pool of one snapshot.
#[derive(Debug)]
pub struct Pool {
    name: Name,
    origins: Vec<Origin>,
    /// Changed by `discovery` alone. Sessions keep the broker that they have.
    members: watch::Sender<Arc<Members>>,
    balance: Balance,
    slow_start: std::time::Duration,
    queue: Queue,
    eject: Eject,
    on_removed: OnRemoved,
    probe: Probe,
    /// For probes over https.
    probe_tls: Option<Arc<ClientConfig>>,
    subprotocol: String,
    host: model::HostHeader,
    forwarded: model::Forwarded,
    announcement: Announcement,
    connect_identity: model::ConnectIdentity,
    timeouts: Timeouts,
}

/// One broker, with what its sessions need fetched once.
#[derive(Debug)]
pub struct Broker {
    pub label: Name,
    transport: Transport,
    /// As its own: for headers, and what `{host}` of a probe's URL stands for where it has no name.
    host: String,
    address: Address,
    path: String,
    /// How its pool connects.
    dialing: Arc<Dialing>,
    /// Set for wss and mqtts.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    weight: u32,
    backup: bool,
    /// `down: true`
    off: bool,
    max_sessions: Option<usize>,
    /// New sessions per second; 0 is any number.
    connect_rate: u32,
    seed: Seed,
    probe_url: Option<ProbeUrl>,
    state: Arc<State>,
    sessions: Gauge,
    joined: Counter,
}

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    /// At least one; the first that answers is taken.
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// A session's place at a broker, from the choice on. Dropping it leaves.
#[derive(Debug)]
pub struct Seat {
    broker: Arc<Broker>,
    /// It is the one that tries the broker after an ejection.
    trying: bool,
    connected: bool,
}

impl Pool {
    /// Reads the CA file, if the pool names one. Fails on what the file or a server name has wrong.
    pub fn new(
        config: &model::Pool,
        timeouts: Timeouts,
        metrics: &Metrics,
        registry: &Registry,
    ) -> Result<Self, Problem> {
        let name: Name = config.name.as_str().into();
        let dialing = Arc::new(Dialing::new(config));
        let origins = config
            .brokers
            .iter()
            .map(|broker| Origin::new(&name, broker, config, &dialing, metrics))
            .collect::<Result<Vec<_>, _>>()?;
        // What is known already goes on after a reload, whether or not name servers answer now.
        let known = origins.iter().map(|origin| {
            let endpoints = registry.answer(origin.question());
            origin.brokers(&endpoints, &[], metrics, registry)
        });
        let members = watch::Sender::new(Arc::new(Members::of(known.collect())));
        let asks_over_tls = origins
            .iter()
            .any(|origin| origin.probe_url.as_ref().is_some_and(|url| url.tls));
        let by_pool = ByPool {
            pool: Arc::clone(&name),
        };
        let waiting = metrics.brokers.queue_sessions.get_or_create_owned(&by_pool);
        Ok(Self {
            probe_tls: asks_over_tls
                .then(|| certificates::broker(&config.tls, Transport::Wss))
                .transpose()?,
            name,
            origins,
            members,
            balance: config.balance,
            slow_start: config.slow_start,
            queue: Queue::new(&config.queue, waiting),
            eject: config.eject,
            on_removed: config.on_removed,
            probe: config.probe.clone(),
            subprotocol: config.subprotocol.clone(),
            host: config.host.clone(),
            forwarded: config.forwarded,
            announcement: config.announcement.clone(),
            connect_identity: config.connect_identity,
            timeouts,
        })
    }

    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Whose words the names in CONNECT are.
    pub fn connect_identity(&self) -> model::ConnectIdentity {
        self.connect_identity
    }

    /// The brokers as they are now.
    pub fn brokers(&self) -> Vec<Arc<Broker>> {
        self.members().brokers.clone()
    }

    fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members.borrow())
    }

    /// A session failed at a broker and it was the broker's fault.
    fn blame(&self, broker: &Broker, begun: Instant, why: &dyn std::fmt::Display) {
        let others = self.members().brokers.iter().any(|other| {
            other.label != broker.label
                && other.takes_sessions()
                && other.state.condition() == Condition::Up
        });
        broker.state.failed(begun, why, &self.eject, others);
    }
}

impl Broker {
    /// No snapshot has it any more: it is shown as one that takes no sessions, until its last session ends.
    pub fn retire(&self) {
        self.state.turn(true);
    }

    /// Its sessions, for the drain.
    pub fn group(&self) -> &Group {
        &self.state.group
    }

    /// Its own `Host` header.
    pub fn own_host(&self) -> String {
        let port = match &self.address {
            Address::Tcp(addresses) => addresses.first().map_or(0, SocketAddr::port),
            Address::Unix(_) => return self.host.clone(),
        };
        match self.host.parse::<IpAddr>() {
            // Applications compare it with what they are called: https://app has no port in it.
            Err(_) if self.is_application() && port == self.transport.port() => self.host.clone(),
            Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            Ok(IpAddr::V4(_)) | Err(_) => format!("{}:{port}", self.host),
        }
    }

    fn is_application(&self) -> bool {
        matches!(self.transport, Transport::Http | Transport::Https)
    }

    /// As far as the operator has a say in it.
    fn takes_sessions(&self) -> bool {
        self.weight > 0 && !self.off
    }
}

impl Seat {
    /// `None` when the broker is full, or another session is trying it.
    fn take(broker: &Arc<Broker>, trying: bool) -> Option<Self> {
        if !broker.state.enter(broker.max_sessions) {
            return None;
        }
        if trying && !broker.state.try_out() {
            broker.state.leave();
            return None;
        }
        Some(Self {
            broker: Arc::clone(broker),
            trying,
            connected: false,
        })
    }

    fn connected(&mut self) {
        self.connected = true;
        self.broker.sessions.inc();
    }

    /// The broker has said yes or no for itself: the session counts as joined.
    fn confirm(&mut self) {
        self.broker.joined.inc();
        self.broker.state.succeeded();
        self.end_try();
    }

    fn end_try(&mut self) {
        if std::mem::take(&mut self.trying) {
            self.broker.state.tried_out();
        }
    }

    pub fn broker(&self) -> &Broker {
        &self.broker
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end_try();
        self.broker.state.leave();
        if self.connected {
            self.broker.sessions.dec();
        }
    }
}
