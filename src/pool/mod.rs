//! The broker side: choose a broker, connect, and try the next one until a CONNACK is seen; ask brokers how they are.

mod announce;
mod choose;
mod select;
mod queue;
mod connect;
mod handshake;
mod failure;
mod attempt;
mod join;
mod health;
pub mod probe;
mod source;
mod state;

pub use announce::announce;
pub use failure::{Failure, HandshakeFailure};
pub use join::{JoinError, Joined, Joining};
pub use select::Busy;
pub use state::Registry;

use std::sync::{Arc, Mutex};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::Instant;

use crate::certificates;
use crate::config::Problem;
use crate::config::announcement::Announcement;
use crate::config::model::{self, Balance, Eject, Probe, Timeouts, Transport};
use crate::config::probe_values::ProbeUrl;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByBroker, ByPool, Name};
use choose::{RoundRobin, Seed};
use connect::Dialing;
use health::Condition;
use queue::Queue;
use state::State;

/// A pool of one snapshot.
#[derive(Debug)]
pub struct Pool {
    name: Name,
    brokers: Vec<Arc<Broker>>,
    balance: Balance,
    turns: Mutex<RoundRobin>,
    slow_start: std::time::Duration,
    connect_rate: u32,
    queue: Queue,
    eject: Eject,
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
    host: String,
    port: u16,
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
    seed: Seed,
    probe_url: Option<ProbeUrl>,
    state: Arc<State>,
    sessions: Gauge,
    joined: Counter,
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
        let brokers = config
            .brokers
            .iter()
            .map(|broker| {
                let dialing = Arc::clone(&dialing);
                Broker::new(&name, broker, config, dialing, metrics, registry).map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let asks_over_tls = brokers
            .iter()
            .any(|broker| broker.probe_url.as_ref().is_some_and(|url| url.tls));
        let by_pool = ByPool {
            pool: Arc::clone(&name),
        };
        let waiting = metrics.brokers.queue_sessions.get_or_create_owned(&by_pool);
        Ok(Self {
            turns: Mutex::new(RoundRobin::new(brokers.iter().map(|broker| broker.weight))),
            probe_tls: asks_over_tls
                .then(|| certificates::broker(&config.tls, Transport::Wss))
                .transpose()?,
            name,
            brokers,
            balance: config.balance,
            slow_start: config.slow_start,
            connect_rate: config.connect_rate,
            queue: Queue::new(&config.queue, waiting),
            eject: config.eject,
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

    /// A session failed at a broker and it was the broker's fault.
    fn blame(&self, broker: &Broker, begun: Instant, why: &dyn std::fmt::Display) {
        let others = self.brokers.iter().any(|other| {
            other.label != broker.label
                && other.takes_sessions()
                && other.state.condition() == Condition::Up
        });
        broker.state.failed(begun, why, &self.eject, others);
    }
}

impl Broker {
    fn new(
        pool: &Name,
        config: &model::Broker,
        shared: &model::Pool,
        dialing: Arc<Dialing>,
        metrics: &Metrics,
        registry: &Registry,
    ) -> Result<Self, Problem> {
        let label: Name = config.url.as_str().into();
        let policy = &shared.tls;
        let tls = if config.transport.is_tls() {
            let name = policy.server_name.as_ref().unwrap_or(&config.host);
            let name = ServerName::try_from(name.clone()).map_err(|error| {
                Problem::new(
                    &config.place,
                    format!("`{name}` is no server name: {error}"),
                )
            })?;
            Some((certificates::broker(policy, config.transport)?, name))
        } else {
            None
        };
        let labels = ByBroker {
            pool: Arc::clone(pool),
            broker: Arc::clone(&label),
        };
        Ok(Self {
            transport: config.transport,
            host: config.host.clone(),
            port: config.port,
            path: config.path.clone(),
            dialing,
            tls,
            weight: config.weight,
            backup: config.backup,
            off: config.down,
            max_sessions: config.max_sessions.map(|max| max as usize),
            seed: Seed::of(&label),
            probe_url: config
                .probe_url
                .as_ref()
                .or(shared.probe.url.as_ref())
                .cloned(),
            state: registry.state(pool, &label, metrics),
            sessions: metrics.sessions.get_or_create_owned(&labels),
            joined: metrics.sessions_joined.get_or_create_owned(&labels),
            label,
        })
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
