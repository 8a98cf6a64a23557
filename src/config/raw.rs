//! What the file may say: every key with its default. The doc comments here are the reference that operators read.
//!
//! No logic: values read themselves (`values`, `names`, `broker_url`), `check` decides whether they fit together.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::broker_url::BrokerUrl;
use super::model::BrokerKind;
use super::names::{
    Address, FilePath, HeaderValue, HostPattern, Label, RedirectTarget, RoutePath, ServerName,
    Token,
};
use super::networks::Network;
use super::origins::Origin;
use super::probe_values::ProbeUrl;
use super::raw_acme::{Acme, Certificate};
use super::raw_admin::Admin;
use super::raw_announcement::{
    BrokerPath, Cookies, Forwarded, Headers, ProxyProtocol, SourceAddress,
};
use super::raw_applications::Proxy;
use super::raw_bounds::{Drain, Limits, Log, Timeouts};
use super::raw_dns::Dns;
use super::raw_hsts::Hsts;
use super::raw_listeners::{ClientCertificates, ClientId, Http2, ProxyHeaders, UserName};
use super::raw_pools::{Balance, Eject, OnRemoved, Probe, Queue, slow_start};
use super::raw_site::Site;
use super::values::{Count, Size, Span};

/// The configuration file.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Where clients connect. At least one.
    #[schemars(length(min = 1))]
    pub listeners: Vec<Listener>,
    /// Networks of HTTP proxies in front that say in `X-Forwarded-For` or `Forwarded` who the client is: the first
    /// address from the right that is not one of them. From anyone else these headers are dropped. Proxies must append
    /// to, or set, what their clients send.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Health, metrics and status for the operator; `off` for none. Never public: it has no authentication.
    #[serde(default)]
    pub admin: Admin,
    /// Certificates shown to clients, chosen by the server name that the client asks for. The names are read from
    /// the certificates; the first one is shown to clients that name none. Needed by every listener without `plain`.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// Certificates that are ordered from a CA, Let's Encrypt unless another is named, and renewed by themselves.
    pub acme: Option<Acme>,
    /// TLS towards clients.
    #[serde(default)]
    pub tls: Tls,
    /// Where requests go: the most exact host wins, then the longest path. The order of the file means nothing.
    #[schemars(length(min = 1))]
    pub routes: Vec<Route>,
    /// Sets of brokers by name, referred to by `routes[].pool`.
    #[serde(default)]
    pub pools: BTreeMap<String, Pool>,
    /// How the names of brokers are resolved. Addresses in URLs and `localhost` need none of it.
    #[serde(default)]
    pub dns: Dns,
    /// Bounds on what clients may take. Sizes: `64KiB`, `16MiB`, `64kB`, or bytes without a unit.
    #[serde(default)]
    pub limits: Limits,
    /// How long anything may wait. Durations: `500ms`, `10s`, `5m`, `1h30m`; never 0 but for `idle_margin`.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How sessions are ended on shutdown.
    #[serde(default)]
    pub drain: Drain,
    /// What is logged, to standard error.
    #[serde(default)]
    pub log: Log,
    /// Takes changes of this file, and of certificates, keys, CAs, revocation lists and secrets that it names, over within a
    /// second or so, all or nothing. `false`: only on SIGHUP and `tidegate reload`.
    #[serde(default = "yes")]
    pub watch: bool,
    /// Threads that carry client traffic; `auto` is one per processor.
    #[serde(default = "auto")]
    pub workers: Count,
}

fn yes() -> bool {
    true
}

fn auto() -> Count {
    Count::Auto
}

/// One listening address.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listener {
    /// IP address and port. `[::]` takes IPv4 and IPv6; it needs quotes, as every value that begins with `[`.
    pub address: Address,
    /// Label in logs and metrics; the address unless set.
    pub name: Option<Label>,
    /// Without TLS; a listener without this key speaks TLS.
    pub plain: Option<Plain>,
    /// HTTP/2 beside HTTP/1.1, with WebSockets over it (RFC 8441): a browser's page and its sessions share one
    /// connection. Only with TLS.
    #[serde(default)]
    pub http2: Http2,
    /// The PROXY protocol, versions 1 and 2, from load balancers in front. Not spoken unless set.
    pub proxy_protocol: Option<ProxyHeaders>,
    /// Certificates of clients (mutual TLS). Not asked for unless set.
    pub client_certificates: Option<ClientCertificates>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Plain {
    /// Every request is sent to https.
    Redirect,
    /// The routes are served without TLS: behind a load balancer that ends it, or on a private network.
    Routes,
}

/// TLS towards clients.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Tls {
    /// Whom TLS 1.2 is for. TLS 1.3 is the same in both.
    pub policy: TlsPolicy,
    /// The oldest version accepted. Quote it.
    pub minimum: TlsVersion,
    /// File of secrets that session tickets are protected by: with the same file on all replicas a client resumes at any of
    /// them, and after a restart. Each line is 32 or more random bytes in base64 (`openssl rand -base64 48`): the first one
    /// protects new tickets, tickets of all are understood. Unless set the process makes its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ticket_keys: Option<FilePath>,
    /// Browsers that came once over TLS come by nothing else (HSTS). Not asked for unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hsts: Option<Hsts>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            policy: TlsPolicy::Modern,
            minimum: TlsVersion::Tls12,
            ticket_keys: None,
            hsts: None,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TlsPolicy {
    /// Clients that bind their keys to the whole handshake (Extended Master Secret, RFC 7627): Android 6, OpenSSL 1.1.0
    /// and newer, mbedTLS.
    Modern,
    /// Also those that do not: Android 5, OpenSSL 1.0, BearSSL (ESP8266).
    Compatible,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize, JsonSchema)]
pub(super) enum TlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// Where requests for one host and path go. Exactly one of `pool`, `proxy`, `site` and `redirect`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// `example.com`, or `*.example.com` for one label; any host unless set.
    pub host: Option<HostPattern>,
    /// Path prefix: `/mqtt` covers `/mqtt` and `/mqtt/…`, not `/mqttx`.
    #[serde(default = "root_path")]
    pub path: RoutePath,
    /// Name of a pool: WebSocket upgrades become MQTT sessions with one of its brokers.
    pub pool: Option<Label>,
    /// A web application: the URL of its server (`http://127.0.0.1:3000`), or a mapping. Its own WebSockets pass through.
    pub proxy: Option<Proxy>,
    /// Static files.
    pub site: Option<Site>,
    /// Sends the client elsewhere.
    pub redirect: Option<Redirect>,
    /// Web pages whose WebSockets are let in, by the `Origin` that their browser sends: `https://example.com`,
    /// `https://*.example.com` for one label, `self` for pages of the host that is asked, `null` for those of files and
    /// sandboxed frames. Others are refused with 403. Any page unless set. Only beside `pool` and
    /// `proxy`.
    pub origins: Option<Vec<Origin>>,
    /// Refuse WebSockets without `Origin` as well. Programs, devices and mini programs send none, browsers always do.
    #[serde(default)]
    pub require_origin: bool,
}

fn root_path() -> RoutePath {
    RoutePath("/".to_owned())
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Redirect {
    /// Absolute URL or absolute path. `{host}`, `{path}` and `{query}` stand for the request's own.
    pub to: RedirectTarget,
    /// Status of the answer: 301, 302, 303, 307 or 308.
    #[serde(default = "moved_permanently")]
    pub status: u16,
}

pub(super) fn moved_permanently() -> u16 {
    308
}

/// A weighted set of brokers.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    /// What the brokers are: a row of defaults for the path of their URLs (`/ws` for `rabbitmq`, `/mqtt` for all
    /// others), `subprotocol`, `forwarded` and `request_head`. Each can be set by itself. `tidegate check` says what
    /// the broker's own configuration needs.
    #[serde(default)]
    pub kind: BrokerKind,
    /// How the broker of a new session is chosen.
    #[serde(default)]
    pub balance: Balance,
    /// How long the share of new sessions of a broker that came back grows, from a tenth to the whole; 0 is at once. Not
    /// for `client_id`, `user_name` and `client_address`: their clients would move twice.
    #[serde(default = "slow_start")]
    pub slow_start: Span,
    /// New sessions that each broker is given per second, so that one that came back is not trampled; 0 is any number. A
    /// broker may have its own.
    #[serde(default)]
    pub connect_rate: u32,
    /// Sessions that wait because every broker has taken its `connect_rate`.
    #[serde(default)]
    pub queue: Queue,
    /// When a broker that fails sessions is left out. The last one that is left never is.
    #[serde(default)]
    pub eject: Eject,
    /// What becomes of the sessions of an address that a broker's name no longer has. It takes no new ones.
    #[serde(default)]
    pub on_removed: OnRemoved,
    /// Asks brokers how they are, whether or not sessions come.
    #[serde(default)]
    pub probe: Probe,
    /// `Host` header sent to ws and wss brokers: `broker` for the broker's own, `client` for what the client sent, or
    /// a value of your own.
    #[serde(default = "host_of_broker")]
    pub host: HeaderValue,
    /// `Sec-WebSocket-Protocol` sent to ws and wss brokers, whatever the client offered: exactly one token. `mqtt`
    /// unless set.
    pub subprotocol: Option<Token>,
    /// Path that ws and wss brokers are asked for, in the place of those in their URLs; `keep` for what the client
    /// asked for, with its query.
    pub path: Option<BrokerPath>,
    /// Headers that tell ws and wss brokers who the client is.
    #[serde(default)]
    pub forwarded: Forwarded,
    /// A PROXY header in front of everything else, on every transport. The broker's listener must expect it, and
    /// nobody else may reach that listener.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,
    /// Headers of the client's upgrade that go along to ws and wss brokers.
    #[serde(default)]
    pub headers: Headers,
    /// Cookies of the client's upgrade that go along to ws and wss brokers.
    #[serde(default)]
    pub cookies: Cookies,
    /// Header for ws and wss brokers with the common name of the verified client certificate, `x-ssl-client-cn` for
    /// VerneMQ; none is sent unless set.
    pub certificate_header: Option<Token>,
    /// Longest request head for ws and wss brokers; what `headers` and `cookies` pass is left out beyond it. 3KiB for
    /// `mosquitto`, 4KiB for all others unless set.
    pub request_head: Option<Size>,
    /// Addresses of this machine that sessions are spread over; each carries as many as there are local ports (28,232
    /// unless changed) to one broker address. The system chooses one unless set.
    #[serde(default)]
    pub source_addresses: Vec<SourceAddress>,
    /// The user name of CONNECT; the password stays as it is. With one of the certificate's, a client that showed none is
    /// refused.
    #[serde(default)]
    pub user_name: UserName,
    /// The client id of CONNECT. With the certificate's, a client that showed none is refused.
    #[serde(default)]
    pub client_id: ClientId,
    /// TLS towards wss and mqtts brokers.
    #[serde(default)]
    pub tls: BrokerTls,
    /// At least one, at least one of them with a weight above 0 and neither `backup` nor `down`.
    #[schemars(length(min = 1))]
    pub brokers: Vec<Broker>,
}

fn host_of_broker() -> HeaderValue {
    HeaderValue("broker".to_owned())
}

/// TLS towards those who listen with it: wss and mqtts brokers, https servers of a web application.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BrokerTls {
    /// PEM file of the CA certificates to trust; the system's unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<FilePath>,
    /// `false` accepts any certificate: encryption without knowing with whom.
    pub verify: bool,
    /// Name for SNI and verification; the host in the URL unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<ServerName>,
    /// PEM file: the certificate that they see if they ask for one, then its intermediates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<FilePath>,
    /// PEM file: its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<FilePath>,
}

impl Default for BrokerTls {
    fn default() -> Self {
        Self {
            ca: None,
            verify: true,
            server_name: None,
            certificate: None,
            key: None,
        }
    }
}

/// One broker.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Broker {
    /// `ws://`, `wss://`, `mqtt://` or `mqtts://`, host, port and for ws and wss a path. Ports unless given: 80, 443,
    /// 1883, 8883. No credentials. Each address of a name is a broker of its own; the name is resolved again and again.
    /// `srv+ws://_ws._tcp.NAME/mqtt` (also `srv+wss`, `srv+mqtt`, `srv+mqtts`) reads SRV records: their weight
    /// multiplies `weight`, targets of a lower priority than the first are a `backup`, the port is theirs. A Unix socket
    /// is `unix+mqtt:///run/mosquitto/mqtt.sock` or, with the path behind a colon, `unix+ws:///run/broker/ws.sock:/mqtt`.
    pub url: BrokerUrl,
    /// Share of new sessions beside the other brokers; 0 takes none and keeps those it has.
    #[serde(default = "one")]
    #[schemars(range(max = 65535))]
    pub weight: u32,
    /// Takes sessions only when no other broker is left.
    #[serde(default)]
    pub backup: bool,
    /// Takes no sessions and is not probed; keeps those it has.
    #[serde(default)]
    pub down: bool,
    /// Sessions of this gateway that it takes at a time; any number unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_sessions: Option<u32>,
    /// In the place of the pool's `connect_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_rate: Option<u32>,
    /// In the place of the pool's `probe.url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_url: Option<ProbeUrl>,
}

fn one() -> u32 {
    1
}
