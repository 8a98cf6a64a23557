//! The checked configuration: what the program may rely on.
//!
//! Every value here is already parsed, defaulted and cross-checked; nothing is an `Option` that must be `Some`.
//! Files named here have not been opened: `certificates` and `site` read them when a snapshot is built.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::acme::{Acme, AcmeCertificate};
use super::announcement::Announcement;
use super::networks::Networks;
use super::origins::Origins;
use super::probe_values::{ProbeUrl, Secret};
use super::problem::Place;
pub use super::raw_applications::ApplicationPath;

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

/// One listening address.
#[derive(Debug, Clone)]
pub struct Listener {
    pub address: SocketAddr,
    /// Label in logs and metrics; the address unless named.
    pub name: String,
    pub speaks: Speaks,
    /// Clients are offered HTTP/2. Only with `Speaks::Tls`.
    pub http2: bool,
    /// Who must begin with a PROXY header; `None` where nobody does.
    pub proxy_protocol: Option<Networks>,
    /// `None` where clients are not asked for a certificate. Only with `Speaks::Tls`.
    pub client_certificates: Option<ClientCertificates>,
    pub place: Place,
}

/// Whose certificates clients may, or must, show.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// A client without one is refused.
    pub required: bool,
    /// PEM.
    pub ca: PathBuf,
    pub ca_place: Place,
    pub crl: Vec<CrlFile>,
}

/// A certificate revocation list, PEM or DER.
#[derive(Debug, Clone)]
pub struct CrlFile {
    pub path: PathBuf,
    pub place: Place,
}

/// What a listener expects as the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// TLS, then HTTP with the routes. The default.
    Tls,
    /// HTTP without TLS with the routes (`plain: routes`): behind another TLS end, or on a private network.
    Plain,
    /// HTTP without TLS, every request answered by a redirect to https (`plain: redirect`).
    PlainRedirect,
}

/// The operator's listener. Never public.
#[derive(Debug, Clone)]
pub struct Admin {
    pub address: SocketAddr,
    /// Names beside those that are always right; lower case, exact or `*.example.com`.
    pub hosts: Vec<String>,
    pub place: Place,
}

/// A certificate for clients, and where it comes from.
#[derive(Debug, Clone)]
pub enum Certificate {
    Files(CertificateFiles),
    Acme(AcmeCertificate),
}

/// A certificate chain (leaf first) and its private key, both PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub chain_place: Place,
    /// May be the same file as `chain`.
    pub key: PathBuf,
    pub key_place: Place,
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct TlsPolicy {
    pub strictness: Strictness,
    pub minimum: TlsVersion,
    /// Secrets that replicas share; `None`: the process makes its own.
    pub ticket_keys: Option<TicketKeysFile>,
    /// Told with every answer over TLS; `None` tells nothing.
    pub hsts: Option<Hsts>,
}

/// Strict-Transport-Security (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    pub max_age: Duration,
    pub include_subdomains: bool,
    /// Only with a year and `include_subdomains`.
    pub preload: bool,
}

#[derive(Debug, Clone)]
pub struct TicketKeysFile {
    pub path: PathBuf,
    pub place: Place,
}

/// Which clients are served over TLS 1.2 (`tls.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    Modern,
    Compatible,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}

/// Where requests for one host and path prefix go.
#[derive(Debug, Clone)]
pub struct Route {
    /// Lower case, without port: exact (`example.com`) or one wildcard label (`*.example.com`). `None`: any host.
    pub host: Option<String>,
    /// Begins with `/`, has no trailing `/` unless it is `/` itself. `/mqtt` covers `/mqtt` and `/mqtt/…`, not `/mqttx`.
    pub path: String,
    pub action: Action,
    /// Which WebSockets are let in.
    pub origins: OriginPolicy,
    pub place: Place,
}

/// Which WebSockets a route lets in, by the page that opens them.
#[derive(Debug, Clone, Default)]
pub struct OriginPolicy {
    /// `None`: every page's.
    pub allowed: Option<Origins>,
    /// Those of clients that are no pages are refused, too.
    pub required: bool,
}

#[derive(Debug, Clone)]
pub enum Action {
    /// WebSocket upgrades join a session of `Config::pools[index]`.
    Pool(usize),
    Site(Box<Site>),
    Redirect(Redirect),
    Application(Box<Application>),
}

/// A web application behind a route.
#[derive(Debug, Clone)]
pub struct Application {
    /// Found, chosen and ejected as brokers are; the name is the route's host and path.
    pub servers: Pool,
    pub path: ApplicationPath,
    /// `Broker` is the server's own.
    pub host: HostHeader,
    /// Longest body of a request; `None`: any.
    pub request_body: Option<u64>,
    pub timeouts: ApplicationTimeouts,
    pub keep_alive: KeepAlive,
}

/// How long a web application may take. All above zero.
#[derive(Debug, Clone, Copy)]
pub struct ApplicationTimeouts {
    /// One server: TCP and TLS.
    pub connect: Duration,
    /// From the end of the request to the head of the answer.
    pub head: Duration,
    /// Between two bytes of a body.
    pub stall: Duration,
}

/// Connections to a web application that are kept.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// Of each worker.
    pub connections: usize,
    pub idle: Duration,
}

/// Static files.
#[derive(Debug, Clone)]
pub struct Site {
    pub root: PathBuf,
    pub root_place: Place,
    /// File served for a folder.
    pub index: String,
    /// File below `root` served with status 200 where no file is found (single-page applications).
    pub fallback: Option<String>,
    /// File below `root` served with status 404 where no file is found.
    pub not_found: Option<String>,
    /// Files below `root` for 405, 500 and 503.
    pub error_pages: BTreeMap<u16, String>,
    /// Serve files and folders whose name begins with a dot (`/.well-known/` is always served).
    pub dot_files: bool,
    pub symlinks: Symlinks,
    /// Value of `Cache-Control` where no rule is for the file; `None` sends none.
    pub cache_control: Option<String>,
    /// The first that fits counts.
    pub cache: Vec<CacheRule>,
    pub compress: bool,
    /// Bytes for files that were asked for lately.
    pub memory: usize,
    /// Names in lower case. `None` takes one of ours away.
    pub headers: BTreeMap<String, Option<String>>,
    pub redirects: Vec<Moved>,
    /// Pages of other origins that may read the files; `None`: none may.
    pub cors: Option<Cors>,
}

/// Which symbolic links below a site's root are followed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Symlinks {
    /// Those that stay below `root`.
    #[default]
    Inside,
    /// None.
    None,
    /// All, wherever they lead.
    Follow,
}

/// `Cache-Control` for some files.
#[derive(Debug, Clone)]
pub struct CacheRule {
    /// Of names or paths, with `*`, `**` and `{hash}`.
    pub files: String,
    /// `None` sends none.
    pub value: Option<String>,
}

/// Paths of a site that have moved.
#[derive(Debug, Clone)]
pub struct Moved {
    /// As the client asks; `/*` at its end covers all below it.
    pub from: String,
    /// Its `{rest}` is what `*` stands for.
    pub redirect: Redirect,
}

/// What pages of other origins may do (Fetch standard 3.3).
#[derive(Debug, Clone)]
pub struct Cors {
    /// Never `Origin::Own`. Neither `Origin::Any` nor `Origin::Null` beside `credentials`.
    pub origins: Origins,
    /// Request headers beyond those that need no permission.
    pub headers: Vec<String>,
    /// Response headers that the page may read beyond those that it always may.
    pub expose: Vec<String>,
    /// How long a browser may keep the answer to a preflight.
    pub max_age: Duration,
    pub credentials: bool,
}

#[derive(Debug, Clone)]
pub struct Redirect {
    /// Absolute URL or absolute path. `{host}`, `{path}` and `{query}` stand for the request's own.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

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

/// Bounds on what clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections in all, every listener together.
    pub connections: NonZeroUsize,
    /// TLS handshakes in flight.
    pub handshakes: NonZeroUsize,
    /// How long a hello may wait for a processor.
    pub handshake_age: Duration,
    /// Bytes of one HTTP request head.
    /// Requests and sessions at a time on one HTTP/2 connection.
    pub streams: u32,
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
