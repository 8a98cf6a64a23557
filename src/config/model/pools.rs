//! Brokers, and how one of them is found, chosen, asked how it is, and told of the client.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::CertificateFiles;
use crate::config::announcement::Announcement;
use crate::config::probe_values::{ProbeUrl, Secret};
use crate::config::problem::Place;

/// A weighted set of brokers that sessions are joined to.
#[derive(Debug, Clone)]
pub struct Pool {
    pub name: String,
    /// Whose defaults were applied. They are all in the other fields: nothing else depends on it.
    pub kind: BrokerKind,
    pub balance: Balance,
    /// Zero: a broker that came back has its whole share at once.
    pub slow_start: Duration,
    /// New sessions per second that each broker is given unless it has its own rate; 0 is any number.
    pub connect_rate: u32,
    pub queue: Queue,
    pub eject: Eject,
    pub on_removed: OnRemoved,
    pub probe: Probe,
    /// At least one, at least one of them with a weight above 0 and neither `backup` nor `down`.
    pub brokers: Vec<Broker>,
    pub tls: BrokerTls,
    /// `Sec-WebSocket-Protocol` sent to ws and wss brokers: exactly one token, whatever the client offered.
    pub subprotocol: String,
    pub host: HostHeader,
    pub forwarded: Forwarded,
    pub announcement: Announcement,
    /// Addresses of this machine that its sessions are spread over; empty for what the system chooses.
    pub source_addresses: Vec<IpAddr>,
    pub connect_identity: ConnectIdentity,
    pub place: Place,
}

/// Whose words the user name and client id of CONNECT are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectIdentity {
    pub user_name: ConnectUserName,
    pub client_id: ConnectClientId,
}

impl ConnectIdentity {
    /// A client without a certificate cannot have a session.
    pub fn needs_certificate(self) -> bool {
        self != Self::default()
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnectUserName {
    /// The client's own.
    #[default]
    Client,
    CertificateCommonName,
    CertificateSubject,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ConnectClientId {
    /// The client's own.
    #[default]
    Client,
    CertificateCommonName,
}

/// What the brokers of a pool are: a row of defaults, nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrokerKind {
    #[default]
    Generic,
    Emqx,
    Mosquitto,
    Vernemq,
    Rabbitmq,
    Hivemq,
    Nanomq,
    Artemis,
}

/// How the broker of a new session is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Smooth weighted round robin.
    RoundRobin,
    /// Fewest sessions for its weight.
    LeastSessions,
    /// Two drawn by weight, the one with fewer sessions for its weight.
    RandomOfTwo,
    /// Weighted rendezvous hashing of the client's address, …
    ClientAddress,
    /// … of the client id; clients without one go by `LeastSessions`,
    ClientId,
    /// … of the user name; likewise.
    UserName,
}

impl Balance {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastSessions => "least_sessions",
            Self::RandomOfTwo => "random_of_two",
            Self::ClientAddress => "client_address",
            Self::ClientId => "client_id",
            Self::UserName => "user_name",
        }
    }
}

/// Sessions that wait for a broker's `connect_rate`.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    pub length: usize,
    pub age: Duration,
}

/// When a broker is left out for the failures of sessions.
#[derive(Debug, Clone, Copy)]
pub struct Eject {
    /// In a row; 0 never ejects.
    pub failures: u32,
    /// Above zero; doubled each time, up to `longest`.
    pub time: Duration,
    pub longest: Duration,
}

/// What becomes of the sessions of an address that a broker's name no longer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRemoved {
    Keep,
    /// Asked to leave, at the pace of the drain.
    Drain,
}

/// How brokers are asked how they are.
#[derive(Debug, Clone)]
pub struct Probe {
    pub kind: ProbeKind,
    /// At least 100 ms.
    pub interval: Duration,
    pub timeout: Duration,
    /// Good ones in a row, at least 1.
    pub rise: u32,
    /// Bad ones in a row, at least 1.
    pub fall: u32,
    /// The beginning of the client id.
    pub client_id: String,
    pub user_name: Option<String>,
    /// Only beside a user name.
    pub password: Option<Secret>,
    /// Set for kind `Http`, unless every broker has its own.
    pub url: Option<ProbeUrl>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// Not at all.
    #[default]
    Off,
    /// Name, TCP, and TLS where the broker's URL asks for it.
    Tcp,
    /// A session: CONNECT, CONNACK, DISCONNECT.
    Mqtt,
    /// A GET of `url`.
    Http,
}

/// One broker of a pool, or a name that stands for some.
#[derive(Debug, Clone)]
pub struct Broker {
    /// The URL as written, without credentials: the label in logs and metrics.
    pub url: String,
    pub transport: Transport,
    /// Host name or IP address (an IPv6 address without brackets); `localhost` for a Unix socket.
    pub host: String,
    /// 0 where SRV records have it, and for a Unix socket.
    pub port: u16,
    pub lookup: Lookup,
    /// Path and query of the WebSocket handshake; `/mqtt` where the URL names none. Unused by mqtt and mqtts.
    pub path: String,
    /// 0 takes no new sessions.
    pub weight: u32,
    /// Only when no other is left.
    pub backup: bool,
    /// Takes no new sessions, is not probed.
    pub down: bool,
    /// Of this gateway, at a time; at least 1.
    pub max_sessions: Option<u32>,
    /// In the place of `Pool::connect_rate`.
    pub connect_rate: Option<u32>,
    /// In the place of `Probe::url`.
    pub probe_url: Option<ProbeUrl>,
    pub place: Place,
}

/// What has to be asked to know where a broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The URL has an address; `localhost` has two, of which the first that answers is taken.
    Nothing(Vec<IpAddr>),
    /// Nor here: the URL has the path of a Unix socket. Only with `Transport::Ws`, `Mqtt` and `Http`.
    Socket(PathBuf),
    /// A and AAAA records of `Broker::host`: each address is a broker.
    Addresses,
    /// SRV records of `Broker::host`: each address of each target is a broker.
    Services,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// `ws://`, port 80 unless given.
    Ws,
    /// `wss://`, port 443 unless given.
    Wss,
    /// `mqtt://`, port 1883 unless given.
    Mqtt,
    /// `mqtts://`, port 8883 unless given.
    Mqtts,
    /// `http://`, port 80 unless given: a web application. Never of a pool's broker.
    Http,
    /// `https://`, port 443 unless given; likewise.
    Https,
}

impl Transport {
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Wss | Self::Mqtts | Self::Https)
    }

    /// Unless given.
    pub fn port(self) -> u16 {
        match self {
            Self::Ws | Self::Http => 80,
            Self::Wss | Self::Https => 443,
            Self::Mqtt => 1883,
            Self::Mqtts => 8883,
        }
    }

    pub fn is_websocket(self) -> bool {
        matches!(self, Self::Ws | Self::Wss)
    }
}

/// TLS towards the wss and mqtts brokers of a pool.
#[derive(Debug, Clone)]
pub struct BrokerTls {
    pub trust: Trust,
    /// Name for SNI and verification; the broker's host unless set.
    pub server_name: Option<String>,
    /// What the gateway shows to brokers that ask for a certificate.
    pub certificate: Option<CertificateFiles>,
    pub place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The operating system's roots, or the built-in Mozilla set where the system has none.
    System,
    /// A PEM file of CA certificates.
    Ca(PathBuf),
    /// `verify: false`: any certificate, on purpose.
    Anyone,
}

/// The `Host` header sent to ws and wss brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostHeader {
    /// The broker's own host and port (`host: broker`, the default).
    Broker,
    /// What the client sent (`host: client`).
    Client,
    /// A fixed value.
    Fixed(String),
}

/// Client address headers towards ws and wss brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// Send `X-Forwarded-For`, `X-Real-IP`, `X-Forwarded-Proto` and `X-Forwarded-Port`.
    pub enabled: bool,
    pub port: ForwardedPort,
}

/// What `X-Forwarded-Port` carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedPort {
    /// The port that the client connected to, as everyone but EMQX means it.
    Listener,
    /// The client's source port, as EMQX means it.
    Client,
}
