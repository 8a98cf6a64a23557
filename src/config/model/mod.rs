//! The checked configuration: what the program may rely on.
//!
//! Every value here is already parsed, defaulted and cross-checked; nothing is an `Option` that must be `Some`.
//! Files named here have not been opened: `certificates` and `site` read them when a snapshot is built.

mod listeners;
mod pools;
mod routes;
mod sites;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::acme::{Acme, AcmeCertificate};
use super::networks::Networks;
use super::problem::Place;

pub use super::raw_applications::ApplicationPath;
pub use listeners::{
    Certificate, CertificateFiles, ClientCertificates, CrlFile, Hsts, Listener, Speaks, Strictness,
    TicketKeysFile, TlsPolicy, TlsVersion,
};
pub use pools::{
    Balance, Broker, BrokerKind, BrokerTls, ConnectClientId, ConnectIdentity, ConnectUserName,
    Eject, Forwarded, ForwardedPort, HostHeader, Lookup, OnRemoved, Pool, Probe, ProbeKind, Queue,
    Transport, Trust,
};
pub use routes::{
    Action, Application, ApplicationTimeouts, KeepAlive, OriginPolicy, Redirect, Route,
};
pub use sites::{CacheRule, Cors, Moved, Site, Symlinks};

/// One configuration file, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// At least one.
    pub listeners: Vec<Listener>,
    /// HTTP proxies whose `X-Forwarded-For` and `Forwarded` are believed.
    pub trusted_proxies: Networks,
    /// Health, metrics and status; `None` when `admin: off`.
    pub admin: Option<Admin>,
    /// At least one when any listener speaks TLS.
    pub certificates: Vec<Certificate>,
    /// Set when one of them is ordered.
    pub acme: Option<Acme>,
    pub tls: TlsPolicy,
    /// At least one; in file order (the choice is by host and longest path, never by order).
    pub routes: Vec<Route>,
    /// In file order; routes refer to them by index.
    pub pools: Vec<Pool>,
    pub dns: Dns,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub drain: Drain,
    pub log: Log,
    /// Changed files are taken over by themselves.
    pub watch: bool,
    /// Threads that carry client traffic, each with its own runtime and its own listening sockets.
    pub workers: NonZeroUsize,
}

impl Config {
    /// The certificates that are read from the operator's files.
    pub fn certificate_files(&self) -> impl Iterator<Item = &CertificateFiles> {
        self.certificates.iter().filter_map(|one| match one {
            Certificate::Files(files) => Some(files),
            Certificate::Acme(_) => None,
        })
    }

    /// Those that are ordered.
    pub fn acme_certificates(&self) -> impl Iterator<Item = &AcmeCertificate> {
        self.certificates.iter().filter_map(|one| match one {
            Certificate::Files(_) => None,
            Certificate::Acme(ordered) => Some(ordered),
        })
    }
}

/// The operator's listener. Never public.
#[derive(Debug, Clone)]
pub struct Admin {
    pub address: SocketAddr,
    /// Names beside those that are always right; lower case, exact or `*.example.com`.
    pub hosts: Vec<String>,
    pub place: Place,
}

/// How the names of brokers are resolved.
#[derive(Debug, Clone)]
pub struct Dns {
    /// None: those of the system.
    pub servers: Vec<SocketAddr>,
    /// Of one look-up.
    pub timeout: Duration,
    /// Bounds on the time from one look-up to the next, which is the answer's TTL.
    pub shortest: Duration,
    pub longest: Duration,
}

/// Bounds on what clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections in all, every listener together.
    pub connections: NonZeroUsize,
    /// TLS handshakes in flight.
    pub handshakes: NonZeroUsize,
    /// How long a hello may wait for a processor.
    pub handshake_age: Duration,
    /// Requests and sessions at a time on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes of one HTTP request head.
    pub request_head: usize,
    /// Bytes of the CONNECT packet.
    pub connect: usize,
    /// Bytes of any later packet, either way (MQTT itself ends at 268,435,460).
    pub packet: usize,
    /// Bytes of payload in one WebSocket frame we send; a longer packet leaves as fragments of one message.
    pub frame: usize,
    /// Bytes of user name and of client id.
    pub client_id: usize,
}

/// How long anything may wait.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From accept to the end of the TLS handshake.
    pub tls: Duration,
    /// For a whole HTTP request head; also the wait for the next request on a kept connection.
    pub request: Duration,
    /// From the 101 to the end of the CONNECT packet.
    pub connect: Duration,
    /// One broker: name, TCP, TLS and WebSocket handshake.
    pub broker_connect: Duration,
    /// One broker: from forwarding CONNECT to CONNACK.
    pub connack: Duration,
    /// All brokers tried for one session.
    pub join: Duration,
    /// Added to 1.5 × keepalive before a silent client is closed.
    pub idle_margin: Duration,
    /// Interval of WebSocket pings to clients that connected with keepalive 0; two unanswered ones end the session.
    pub ping: Duration,
    /// A peer that accepts no byte for this long while we have some for it is closed.
    pub write: Duration,
}

/// How sessions are ended by the operator.
#[derive(Debug, Clone)]
pub struct Drain {
    /// From "not ready" to the end of accepting, so that load balancers notice.
    pub announce: Duration,
    /// Sessions ended per second.
    pub rate: NonZeroU32,
    /// After this long the rest is cut.
    pub max: Duration,
    /// 1001 or 1012.
    pub close_code: u16,
    /// MQTT 5 3.14.2.2.5.
    pub server_reference: Option<String>,
    pub max_session_age: Option<Duration>,
    /// What the supervisor grants; only `check` looks at it.
    pub grace: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing` filter: `info`, or `info,tidegate::gateway=debug`.
    pub level: String,
    pub format: LogFormat,
    /// One line for each session that ended.
    pub sessions: bool,
    /// Client ids and user names in log lines.
    pub identities: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}
