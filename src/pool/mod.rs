//! The broker side: choose a broker, connect, and try the next one until a CONNACK is seen.

mod choose;
mod connect;
mod failure;
mod handshake;
mod join;

pub use choose::RoundRobin;
pub use failure::{Failure, HandshakeFailure};
pub use join::{JoinError, Joined, Joining};

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::certificates;
use crate::config::Problem;
use crate::config::model::{self, Timeouts, Transport};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByBroker, Name};

/// A pool of one snapshot.
#[derive(Debug)]
pub struct Pool {
    name: Name,
    brokers: Vec<Arc<Broker>>,
    turn: Mutex<RoundRobin>,
    subprotocol: String,
    host: model::HostHeader,
    forwarded: model::Forwarded,
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
    /// Set for wss and mqtts.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    sessions: Gauge,
    joined: Counter,
}

/// A session's place at a broker. Dropping it leaves.
#[derive(Debug)]
pub struct Seat {
    broker: Arc<Broker>,
}

impl Pool {
    /// Reads the CA file, if the pool names one. Fails on what the file or a server name has wrong.
    pub fn new(
        config: &model::Pool,
        timeouts: Timeouts,
        metrics: &Metrics,
    ) -> Result<Self, Problem> {
        let name: Name = config.name.as_str().into();
        let brokers = config
            .brokers
            .iter()
            .map(|broker| Broker::new(&name, broker, &config.tls, metrics).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            turn: Mutex::new(RoundRobin::new(
                config.brokers.iter().map(|broker| broker.weight),
            )),
            name,
            brokers,
            subprotocol: config.subprotocol.clone(),
            host: config.host.clone(),
            forwarded: config.forwarded,
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

    /// The next broker that is not in `tried`.
    fn choose(&self, tried: &[usize]) -> Option<usize> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        turn.next(|broker| !tried.contains(&broker))
    }
}

impl Broker {
    fn new(
        pool: &Name,
        config: &model::Broker,
        policy: &model::BrokerTls,
        metrics: &Metrics,
    ) -> Result<Self, Problem> {
        let label: Name = config.url.as_str().into();
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
            label,
            transport: config.transport,
            host: config.host.clone(),
            port: config.port,
            path: config.path.clone(),
            tls,
            sessions: metrics.sessions.get_or_create_owned(&labels),
            joined: metrics.sessions_joined.get_or_create_owned(&labels),
        })
    }
}

impl Seat {
    fn take(broker: Arc<Broker>) -> Self {
        broker.sessions.inc();
        Self { broker }
    }

    /// The broker has said yes or no for itself: the session counts as joined.
    fn confirm(&self) {
        self.broker.joined.inc();
    }

    pub fn broker(&self) -> &Broker {
        &self.broker
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.broker.sessions.dec();
    }
}
