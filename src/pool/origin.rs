//! A broker of the configuration: an address, or a name that stands for as many brokers as it has addresses.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::choose::Seed;
use super::connect::Dialing;
use super::discovery::{Endpoint, Question};
use super::{Address, Broker, Registry};
use crate::certificates;
use crate::config::Problem;
use crate::config::model::{self, Lookup, Transport};
use crate::config::probe_values::ProbeUrl;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByBroker, Name};

#[derive(Debug)]
pub(super) struct Origin {
    pub pool: Name,
    /// The URL as written.
    pub label: Name,
    question: Question,
    transport: Transport,
    port: u16,
    path: String,
    /// Without the service and protocol labels of SRV records.
    host: String,
    /// How its pool connects.
    dialing: Arc<Dialing>,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    weight: u32,
    backup: bool,
    off: bool,
    max_sessions: Option<usize>,
    connect_rate: u32,
    pub probe_url: Option<ProbeUrl>,
    /// How many brokers a name stands for; `None` where there is no name.
    pub addresses: Option<Gauge>,
}

impl Origin {
    pub(super) fn new(
        pool: &Name,
        config: &model::Broker,
        shared: &model::Pool,
        dialing: &Arc<Dialing>,
        metrics: &Metrics,
    ) -> Result<Self, Problem> {
        let label: Name = config.url.as_str().into();
        let host = match config.lookup {
            // RFC 6125 6.5: a certificate has the name of the service, not of a target, which anyone on the way could
            // have put there.
            Lookup::Services => config.host.splitn(3, '.').last().unwrap_or_default(),
            Lookup::Nothing(_) | Lookup::Socket(_) | Lookup::Addresses => &config.host,
        };
        let policy = &shared.tls;
        let tls = if config.transport.is_tls() {
            let name = policy.server_name.as_deref().unwrap_or(host);
            let name = ServerName::try_from(name.to_owned()).map_err(|error| {
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
        let question = Question::of(config);
        Ok(Self {
            addresses: question
                .is_asked()
                .then(|| metrics.brokers.addresses.get_or_create_owned(&labels)),
            pool: Arc::clone(pool),
            label,
            question,
            transport: config.transport,
            port: config.port,
            path: config.path.clone(),
            host: host.to_owned(),
            dialing: Arc::clone(dialing),
            tls,
            weight: config.weight,
            backup: config.backup,
            off: config.down,
            max_sessions: config.max_sessions.map(|max| max as usize),
            connect_rate: config.connect_rate.unwrap_or(shared.connect_rate),
            probe_url: config
                .probe_url
                .as_ref()
                .or(shared.probe.url.as_ref())
                .cloned(),
        })
    }

    /// What a name server is to be asked.
    pub(super) fn question(&self) -> &Question {
        &self.question
    }

    /// The brokers at these endpoints, those of `known` again where they have not changed.
    pub(super) fn brokers(
        &self,
        endpoints: &[Endpoint],
        known: &[Arc<Broker>],
        metrics: &Metrics,
        registry: &Registry,
    ) -> Vec<Arc<Broker>> {
        let known_place = match &self.question {
            Question::None(addresses) => {
                let port = |address: &IpAddr| SocketAddr::new(*address, self.port);
                Some(Address::Tcp(addresses.iter().map(port).collect()))
            }
            Question::Socket(socket) => Some(Address::Unix(socket.clone())),
            Question::Addresses(_) | Question::Services(_) => None,
        };
        if let Some(address) = known_place {
            let label = Arc::clone(&self.label);
            let standing = (self.weight, self.backup);
            let broker = self.broker(label, address, standing, metrics, registry);
            return vec![Arc::new(broker)];
        }
        let broker = |endpoint: &Endpoint| {
            let socket = SocketAddr::new(endpoint.address, endpoint.port.unwrap_or(self.port));
            let address = Address::Tcp(vec![socket]);
            // At most 65535 each: no product is too large.
            let share = self.weight.saturating_mul(u32::from(endpoint.weight));
            let standing = (share, self.backup || endpoint.backup);
            let same = known.iter().find(|broker| {
                broker.address == address && (broker.weight, broker.backup) == standing
            });
            same.map(Arc::clone).unwrap_or_else(|| {
                let label = self.label_of(socket);
                Arc::new(self.broker(label, address, standing, metrics, registry))
            })
        };
        endpoints.iter().map(broker).collect()
    }

    /// The URL with the address. INVARIANT: replicas hash it, so it is made of the configuration and the answer alone.
    fn label_of(&self, address: SocketAddr) -> Name {
        let (scheme, path) = match self.transport {
            Transport::Ws => ("ws", &*self.path),
            Transport::Wss => ("wss", &*self.path),
            Transport::Mqtt => ("mqtt", ""),
            Transport::Mqtts => ("mqtts", ""),
            Transport::Http => ("http", ""),
            Transport::Https => ("https", ""),
        };
        format!("{scheme}://{address}{path}").into()
    }

    fn broker(
        &self,
        label: Name,
        address: Address,
        (weight, backup): (u32, bool),
        metrics: &Metrics,
        registry: &Registry,
    ) -> Broker {
        let labels = ByBroker {
            pool: Arc::clone(&self.pool),
            broker: Arc::clone(&label),
        };
        Broker {
            transport: self.transport,
            host: self.host.clone(),
            address,
            path: self.path.clone(),
            dialing: Arc::clone(&self.dialing),
            tls: self.tls.clone(),
            weight,
            backup,
            off: self.off,
            max_sessions: self.max_sessions,
            connect_rate: self.connect_rate,
            seed: Seed::of(&label),
            probe_url: self.probe_url.clone(),
            state: registry.state(&self.pool, &label, metrics),
            sessions: metrics.sessions.get_or_create_owned(&labels),
            joined: metrics.sessions_joined.get_or_create_owned(&labels),
            label,
        }
    }
}
