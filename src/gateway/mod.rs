//! The data path: one client from accept to outcome. The files stand in the order in which a client meets them.

pub mod accept;
pub mod admission;
pub mod turns;
pub mod connection;
mod proxy_header;
mod proxy_words;
mod first_bytes;
mod handshake;
mod prefixed;
mod progress;
mod http;
mod http1;
mod http2;
mod http2_request;
mod forwarded;
mod routes;
mod application;
mod upgrade;
mod session;
mod names;
mod origin;
mod record;
mod outbox;
mod relay;
mod outcome;

pub use accept::ListenerContext;
pub use routes::Routes;

use std::sync::Arc;

use crate::certificates::{self, Challenges, ClientTls, Report, Shown, Tickets};
use crate::config::model::{self, Limits, Log, Speaks, Timeouts};
use crate::config::networks::Networks;
use crate::config::{Config, Problem};
use crate::lifecycle::Drain;
use crate::pool::Registry;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ByReason;
use admission::Admission;
use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

/// What lives as long as the process.
#[derive(Debug)]
pub struct Gateway {
    /// The configuration generation that new connections take.
    pub snapshot: ArcSwap<Snapshot>,
    pub admission: Admission,
    pub drain: Drain,
    /// What is known of brokers: a reload does not forget it.
    pub brokers: Registry,
    /// What session tickets are protected by: clients resume over a reload.
    pub tickets: Tickets,
    /// What a CA is about to be shown.
    pub challenges: Arc<Challenges>,
    pub metrics: Arc<Metrics>,
}

impl Gateway {
    /// A connection, a handshake or a session that was refused.
    fn count_refusal(&self, reason: &'static str) {
        let labels = ByReason { reason };
        self.metrics.refused.get_or_create(&labels).inc();
    }
}

/// One configuration generation: built completely or not at all, then never changed, but for certificates that a CA issues.
///
/// INVARIANT: a connection sees the configuration only through the snapshot that it took at accept.
#[derive(Debug)]
pub struct Snapshot {
    pub routes: Routes,
    /// In the order of the configuration, as `ListenerContext::index` counts.
    pub listeners: Vec<ListenerRules>,
    /// HTTP proxies that are believed about whom they speak for.
    pub trusted_proxies: Networks,
    /// Strict-Transport-Security of every answer over TLS.
    pub hsts: Option<::http::HeaderValue>,
    pub limits: Limits,
    pub timeouts: Timeouts,
    pub log: Log,
    pub drain: model::Drain,
    /// `None` where no listener speaks TLS.
    pub shown: Option<Shown>,
    /// Another one is in force, or the process drains: HTTP connections end behind what they have begun. Who came before
    /// may still ask once.
    pub over: CancellationToken,
}

/// What holds for the clients of one listener.
#[derive(Debug)]
pub struct ListenerRules {
    /// `None` when it does not speak TLS.
    pub tls: Option<ClientTls>,
    /// Who must begin with a PROXY header; `None` when nobody does.
    pub proxy_protocol: Option<Networks>,
}

/// A snapshot, and what the operator should hear about it.
#[derive(Debug)]
pub struct Built {
    pub snapshot: Snapshot,
    pub certificates: Vec<Report>,
    pub warnings: Vec<Problem>,
}

impl Snapshot {
    /// Reads every file that the configuration names. Answers all problems, not the first.
    pub fn build(
        config: &Config,
        metrics: &Metrics,
        brokers: &Registry,
        tickets: &Tickets,
        drain: &Drain,
    ) -> Result<Built, Vec<Problem>> {
        let mut problems = Vec::new();
        let needs_tls = config
            .listeners
            .iter()
            .any(|listener| listener.speaks == Speaks::Tls);
        let server = if needs_tls {
            certificates::server(config, tickets)
                .map_err(|found| problems.extend(found))
                .ok()
        } else {
            None
        };
        let routes = Routes::build(config, metrics, brokers)
            .map_err(|found| problems.extend(found))
            .ok();
        let (Some(routes), true) = (routes, problems.is_empty()) else {
            return Err(problems);
        };
        let (tls, certificates, warnings, shown) = match server {
            Some(server) => (
                server.by_listener,
                server.certificates,
                server.warnings,
                Some(server.shown),
            ),
            None => (Vec::new(), Vec::new(), Vec::new(), None),
        };
        let tls = tls.into_iter().chain(std::iter::repeat(None));
        let listeners = config
            .listeners
            .iter()
            .zip(tls)
            .map(|(listener, tls)| ListenerRules {
                tls,
                proxy_protocol: listener.proxy_protocol.clone(),
            });
        Ok(Built {
            snapshot: Self {
                routes,
                listeners: listeners.collect(),
                trusted_proxies: config.trusted_proxies.clone(),
                hsts: config.tls.hsts.and_then(http::hsts),
                limits: config.limits,
                timeouts: config.timeouts,
                log: config.log.clone(),
                drain: config.drain.clone(),
                shown,
                over: drain.until_closing(),
            },
            certificates,
            warnings,
        })
    }
}
