//! What becomes of a request, by its host and path.

use std::time::Duration;

use super::{ApplicationPath, HostHeader, Pool, Site};
use crate::config::origins::Origins;
use crate::config::problem::Place;

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

#[derive(Debug, Clone)]
pub struct Redirect {
    /// Absolute URL or absolute path. `{host}`, `{path}` and `{query}` stand for the request's own.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}
