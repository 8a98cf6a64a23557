//! What a route may say about the web application behind it: the URL of its server, or a mapping. Defaults stand here.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::application_url::ApplicationUrl;
use super::names::HeaderValue;
use super::raw::BrokerTls;
use super::values::{Fault, Size, Span};

/// The value of `proxy`.
#[derive(Debug)]
pub(super) enum Proxy {
    /// `proxy: http://127.0.0.1:3000`
    Url(ApplicationUrl),
    To(Box<Application>),
}

/// A web application. WebSockets, event streams and bodies of any size pass as they come, none of them is held.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Application {
    /// Its servers: one URL, or a list of URLs and mappings. `http://`, `https://`, host and port, and no path; each
    /// address of a name is a server of its own. `srv+http://_http._tcp.NAME` reads SRV records, a Unix socket is
    /// `unix+http:///run/app.sock`.
    pub to: Servers,
    /// How the server of a request is chosen.
    #[serde(default)]
    pub balance: ApplicationBalance,
    /// The path that the application is asked for: `keep` for the client's own, `strip` for what stands behind the
    /// route's path, or a path in the place of the route's. It hears of the route's path in `X-Forwarded-Prefix` then.
    #[serde(default)]
    pub path: ApplicationPath,
    /// `Host` header: `client` for what the client sent, `application` for the server's own, or a value of your own.
    #[serde(default = "host_of_client")]
    pub host: HeaderValue,
    /// Longest body of a request, which is refused with 413 beyond it; any length unless set: the application knows its
    /// own limit, and what passes through is not held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_body: Option<Size>,
    /// How long the application may take.
    #[serde(default)]
    pub timeouts: ApplicationTimeouts,
    /// Connections to the application that are kept for the next request.
    #[serde(default)]
    pub keep_alive: KeepAlive,
    /// When a server that fails requests is left out. The last one that is left never is.
    #[serde(default)]
    pub eject: ApplicationEject,
    /// TLS towards https servers.
    #[serde(default)]
    pub tls: BrokerTls,
}

pub(super) fn host_of_client() -> HeaderValue {
    HeaderValue("client".to_owned())
}

/// One server of an application.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    /// As in `to`.
    pub url: ApplicationUrl,
    /// Share of the requests beside the other servers; 0 takes none.
    #[serde(default = "one")]
    #[schemars(range(max = 65535))]
    pub weight: u32,
    /// Takes requests only when no other server is left.
    #[serde(default)]
    pub backup: bool,
    /// Takes no requests.
    #[serde(default)]
    pub down: bool,
    /// Requests and WebSockets of this gateway that it takes at a time; any number unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_requests: Option<u32>,
}

fn one() -> u32 {
    1
}

impl Server {
    pub(super) fn at(url: ApplicationUrl) -> Self {
        Self {
            url,
            weight: 1,
            backup: false,
            down: false,
            max_requests: None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ApplicationBalance {
    /// Smooth weighted round robin.
    #[default]
    RoundRobin,
    /// The server with the fewest requests of this gateway in hand for its weight.
    LeastRequests,
    /// Two are drawn by weight, the one with fewer requests for its weight is taken.
    RandomOfTwo,
    /// The same client address finds the same server (IPv6: the same /64).
    ClientAddress,
}

/// How long the application may take.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ApplicationTimeouts {
    /// One server: TCP and TLS.
    pub connect: Span,
    /// From the end of the request to the head of the answer.
    pub head: Span,
    /// A body that stands still for this long is given up, whoever holds it up. Not for event streams and WebSockets,
    /// which may be silent for as long as both ends are there.
    pub stall: Span,
}

impl Default for ApplicationTimeouts {
    fn default() -> Self {
        Self {
            connect: seconds(5),
            head: seconds(60),
            stall: seconds(60),
        }
    }
}

/// Connections to the application that are kept for the next request.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct KeepAlive {
    /// Idle ones of each worker; 0 keeps none.
    #[schemars(range(max = 10000))]
    pub connections: u32,
    /// How long each may be idle. Shorter than the application's own time (5 s in Node, uvicorn and Apache), or a request may
    /// meet a connection that is just being closed; what it says in `Keep-Alive` is heeded.
    pub idle: Span,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            connections: 64,
            idle: seconds(4),
        }
    }
}

/// When a server that fails requests is left out. The last one that is left never is.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ApplicationEject {
    /// Failures in a row: no connection, no answer in time, or none that is HTTP. 0 never ejects.
    pub failures: u32,
    /// How long it is left out; then one request tries it, and each time that fails doubles it.
    pub time: Span,
    /// Where doubling ends.
    pub longest: Span,
}

impl Default for ApplicationEject {
    fn default() -> Self {
        Self {
            failures: 3,
            time: seconds(10),
            longest: seconds(300),
        }
    }
}

fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}

/// The path that an application is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ApplicationPath {
    #[default]
    Keep,
    Strip,
    /// In the place of the route's; without a trailing `/` unless it is `/` itself.
    Instead(String),
}

impl FromStr for ApplicationPath {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        match text {
            "keep" => return Ok(Self::Keep),
            "strip" => return Ok(Self::Strip),
            _ => {}
        }
        if !text.starts_with('/') {
            return Err(Fault::new("is not a path").help(
                "write `keep`, `strip`, or a path that begins with `/` for the place of the route's",
            ));
        }
        if text.contains(['#', '?']) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Fault::new("has a character that a path cannot carry")
                .help("percent-encode it: `%20` for a space"));
        }
        Ok(match text.trim_end_matches('/') {
            "" => Self::Strip,
            path => Self::Instead(path.to_owned()),
        })
    }
}

impl fmt::Display for ApplicationPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Keep => "keep",
            Self::Strip => "strip",
            Self::Instead(path) => path,
        })
    }
}

impl<'de> Deserialize<'de> for Proxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        match value {
            Value::String(_) => serde_json::from_value(value).map(Self::Url),
            _ => serde_json::from_value(value).map(Self::To),
        }
        .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Url(url) => url.serialize(serializer),
            Self::To(application) => application.serialize(serializer),
        }
    }
}

impl JsonSchema for Proxy {
    fn schema_name() -> Cow<'static, str> {
        "Proxy".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                generator.subschema_for::<ApplicationUrl>(),
                generator.subschema_for::<Application>(),
            ]
        })
    }
}

/// The value of `to`.
#[derive(Debug)]
pub(super) struct Servers(pub Vec<Server>);

impl<'de> Deserialize<'de> for Servers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let one = |value: Value| match value {
            Value::String(_) => serde_json::from_value(value).map(Server::at),
            _ => serde_json::from_value(value),
        };
        let servers = match Value::deserialize(deserializer)? {
            Value::Array(list) => list.into_iter().map(one).collect(),
            value => one(value).map(|server| vec![server]),
        };
        servers.map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Servers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Servers {
    fn schema_name() -> Cow<'static, str> {
        "Servers".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let url = generator.subschema_for::<ApplicationUrl>();
        let server = generator.subschema_for::<Server>();
        json_schema!({
            "anyOf": [
                url,
                { "type": "array", "minItems": 1, "items": { "anyOf": [url, server] } },
            ]
        })
    }
}
