//! Every metric, in this file, `applications`, `brokers` and `control`. docs/metrics.md is kept equal to it by a test.
//!
//! INVARIANT: a label value is a `&'static str` from a closed set or a name from the checked configuration, with an
//! address where a name server gave one; nothing that a client sends can become one, so the number of series
//! is bounded.

use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::ErrorCounter;

use super::acme::AcmeMetrics;
use super::applications::ApplicationMetrics;
use super::brokers::BrokerMetrics;
use super::control::ControlMetrics;
use super::endings::Endings;
use super::process::Process;
use super::spans::Spans;
use super::spread::Spread;
use super::traffic::{Direction, Traffic};
use crate::mqtt::PacketType;

/// A name from the configuration.
pub type Name = Arc<str>;

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ $(,)? })+) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $(pub $field: $type),+ })+
    };
}

labels! {
    ByListener { listener: Name }
    ByReason { reason: &'static str }
    ByResult { result: &'static str }
    ByHandshake { listener: Name, version: &'static str, resumed: &'static str }
    ByTlsCause { listener: Name, cause: &'static str }
    ByCode { listener: Name, version: &'static str, code: u16 }
    ByVersion { version: &'static str }
    ByPool { pool: Name }
    ByBroker { pool: Name, broker: Name }
    ByConnack { pool: Name, code: u16 }
    ByBrokerState { pool: Name, broker: Name, state: &'static str }
    ByProbe { pool: Name, broker: Name, result: &'static str }
    ByPoolReason { pool: Name, reason: &'static str }
    ByBrokerCause { pool: Name, broker: Name, cause: &'static str }
    ByOutcome { who: &'static str, phase: &'static str, why: &'static str }
    ByCertificate { kind: &'static str, name: String }
    ByIssuer { issuer: String }
    ByApplication { application: Name }
    ByApplicationCode { application: Name, code: &'static str }
    ByApplicationCause { application: Name, cause: &'static str }
}

pub(super) type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// From a handshake on loopback to a client on a bad line.
pub(super) fn handshake_seconds() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}

/// From a page that is left at once to a device that stays for a week.
fn session_seconds() -> Histogram {
    Histogram::new([
        1.0, 10.0, 60.0, 300.0, 1800.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0,
    ])
}

/// The process's metrics. Cloned handles; fetch what a connection needs once, not per packet.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub connections: Family<ByListener, Gauge>,
    pub connections_limit: Gauge,
    pub accepted: Family<ByListener, Counter>,
    pub accept_errors: Family<ByListener, Counter>,
    pub refused: Family<ByReason, Counter>,
    pub tls_handshakes: Family<ByHandshake, Counter>,
    pub tls_failures: Family<ByTlsCause, Counter>,
    pub tls_seconds: Histograms<ByListener>,
    pub tls_wait_seconds: Histograms<ByListener>,
    pub http_requests: Family<ByCode, Counter>,
    pub connects: Family<ByVersion, Counter>,
    pub connect_seconds: Histograms<ByListener>,
    pub listener_sessions: Family<ByListener, Gauge>,
    pub sessions: Family<ByBroker, Gauge>,
    pub sessions_joined: Family<ByBroker, Counter>,
    pub connacks: Family<ByConnack, Counter>,
    pub broker_failures: Family<ByBrokerCause, Counter>,
    pub brokers: BrokerMetrics,
    pub applications: ApplicationMetrics,
    pub broker_connect_seconds: Histograms<ByPool>,
    pub connack_seconds: Histograms<ByPool>,
    pub join_seconds: Histograms<ByPool>,
    /// The same, all pools together, for the status page.
    pub joins: Spread,
    pub session_seconds: Histograms<ByPool>,
    pub outcomes: Family<ByOutcome, Counter>,
    pub endings: Endings,
    pub spans: Spans,
    pub certificate_not_after: Family<ByCertificate, Gauge>,
    pub acme: AcmeMetrics,
    pub control: ControlMetrics,
    pub revocation_next_update: Family<ByIssuer, Gauge>,
    pub draining: Gauge,
    pub drain_asked: Counter,
    pub drain_cut: Counter,
    pub panics: Counter,
    pub traffic: Arc<Traffic>,
    log_dropped: Arc<RwLock<Option<ErrorCounter>>>,
}

impl Metrics {
    /// All at zero, for that many workers.
    pub fn new(workers: usize) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            connections: Family::default(),
            connections_limit: Gauge::default(),
            accepted: Family::default(),
            accept_errors: Family::default(),
            refused: Family::default(),
            tls_handshakes: Family::default(),
            tls_failures: Family::default(),
            tls_seconds: Family::new_with_constructor(handshake_seconds),
            tls_wait_seconds: Family::new_with_constructor(handshake_seconds),
            http_requests: Family::default(),
            connects: Family::default(),
            connect_seconds: Family::new_with_constructor(handshake_seconds),
            listener_sessions: Family::default(),
            sessions: Family::default(),
            sessions_joined: Family::default(),
            connacks: Family::default(),
            broker_failures: Family::default(),
            brokers: BrokerMetrics::default(),
            applications: ApplicationMetrics::default(),
            broker_connect_seconds: Family::new_with_constructor(handshake_seconds),
            connack_seconds: Family::new_with_constructor(handshake_seconds),
            join_seconds: Family::new_with_constructor(handshake_seconds),
            joins: Spread::default(),
            session_seconds: Family::new_with_constructor(session_seconds),
            outcomes: Family::default(),
            endings: Endings::default(),
            spans: Spans::default(),
            certificate_not_after: Family::default(),
            acme: AcmeMetrics::default(),
            control: ControlMetrics::default(),
            revocation_next_update: Family::default(),
            draining: Gauge::default(),
            drain_asked: Counter::default(),
            drain_cut: Counter::default(),
            panics: Counter::default(),
            traffic: Arc::new(Traffic::new(workers)),
            log_dropped: Arc::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process));
        let ours = registry.sub_registry_with_prefix("tidegate");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "The running build", build);
        ours.register(
            "connections",
            "Open client connections",
            self.connections.clone(),
        );
        ours.register(
            "connections_limit",
            "Client connections that may be open at once (limits.connections)",
            self.connections_limit.clone(),
        );
        ours.register(
            "connections_accepted",
            "Client connections accepted",
            self.accepted.clone(),
        );
        ours.register(
            "accept_errors",
            "Failed accepts: out of file descriptors or memory",
            self.accept_errors.clone(),
        );
        ours.register(
            "refused",
            "Connections and sessions turned away by a limit, a drain or an origin list",
            self.refused.clone(),
        );
        ours.register(
            "tls_handshakes",
            "TLS handshakes done",
            self.tls_handshakes.clone(),
        );
        ours.register(
            "tls_failures",
            "TLS handshakes failed, by cause",
            self.tls_failures.clone(),
        );
        ours.register(
            "tls_handshake_seconds",
            "From accept to the end of the TLS handshake",
            self.tls_seconds.clone(),
        );
        ours.register(
            "tls_wait_seconds",
            "From a client's whole hello until a worker had time for it",
            self.tls_wait_seconds.clone(),
        );
        ours.register(
            "http_requests",
            "HTTP requests answered, upgrades (101, over HTTP/2 200) included",
            self.http_requests.clone(),
        );
        ours.register(
            "connects",
            "CONNECT packets read, by MQTT version",
            self.connects.clone(),
        );
        ours.register(
            "connect_seconds",
            "From accept to the end of CONNECT",
            self.connect_seconds.clone(),
        );
        ours.register(
            "listener_sessions",
            "Sessions joined to a broker now, by the listener that they came by",
            self.listener_sessions.clone(),
        );
        ours.register(
            "sessions",
            "Sessions joined to a broker now",
            self.sessions.clone(),
        );
        ours.register(
            "sessions_joined",
            "Sessions that were joined to a broker",
            self.sessions_joined.clone(),
        );
        ours.register(
            "connacks",
            "CONNACK codes of brokers, those that were retried included",
            self.connacks.clone(),
        );
        ours.register(
            "broker_failures",
            "Attempts at a broker that failed before CONNACK",
            self.broker_failures.clone(),
        );
        self.brokers.register(ours);
        self.applications.register(ours);
        ours.register(
            "broker_connect_seconds",
            "Name, TCP, TLS and WebSocket handshake with a broker",
            self.broker_connect_seconds.clone(),
        );
        ours.register(
            "connack_seconds",
            "From forwarding CONNECT to CONNACK",
            self.connack_seconds.clone(),
        );
        ours.register(
            "join_seconds",
            "From the end of CONNECT to CONNACK, queue and retries included",
            self.join_seconds.clone(),
        );
        ours.register(
            "session_seconds",
            "Length of sessions, at their end",
            self.session_seconds.clone(),
        );
        ours.register(
            "outcomes",
            "Ends of connections and sessions: who ended it, in which phase, why",
            self.outcomes.clone(),
        );
        ours.register(
            "certificate_not_after_timestamp_seconds",
            "End of a certificate's validity, Unix time",
            self.certificate_not_after.clone(),
        );
        self.acme.register(ours);
        self.control.register(ours);
        ours.register(
            "revocation_list_next_update_timestamp_seconds",
            "When a revocation list should have a successor, Unix time",
            self.revocation_next_update.clone(),
        );
        ours.register(
            "otlp_spans",
            "Spans of sessions: exported, dropped from a full queue, or failed",
            self.spans.results.clone(),
        );
        ours.register("draining", "1 while a drain runs", self.draining.clone());
        ours.register(
            "drain_asked",
            "Sessions asked to leave by a drain",
            self.drain_asked.clone(),
        );
        ours.register(
            "drain_cut",
            "Client tasks cut at the end of a drain that had not been asked to leave",
            self.drain_cut.clone(),
        );
        ours.register(
            "panics",
            "Client tasks that ended by a panic: a bug, please report it",
            self.panics.clone(),
        );
        ours.register_collector(Box::new(Packets(Arc::clone(&self.traffic))));
        ours.register_collector(Box::new(LogDropped(Arc::clone(&self.log_dropped))));
        self.registry = registry;
    }

    /// From now on the log's dropped lines are counted here.
    pub fn follow_log(&self, dropped: ErrorCounter) {
        *self
            .log_dropped
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(dropped);
    }

    /// The text of `/metrics`, in the OpenMetrics format 1.0.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Packets and bytes, added up over the workers when they are asked for.
#[derive(Debug)]
struct Packets(Arc<Traffic>);

impl Collector for Packets {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        type Part = fn((u64, u64)) -> u64;
        let families: [(&str, &str, Part); 2] = [
            ("packets", "MQTT packets passed on", |(packets, _)| packets),
            (
                "packet_bytes",
                "MQTT bytes passed on, without frame headers",
                |(_, bytes)| bytes,
            ),
        ];
        for (name, help, part) in families {
            let kind = prometheus_client::metrics::MetricType::Counter;
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for direction in Direction::BOTH {
                for packet_type in &PacketType::ALL[1..] {
                    let labels = [
                        ("direction", direction.name()),
                        ("type", packet_type.name()),
                    ];
                    let total = part(self.0.total(direction, packet_type.index()));
                    ConstCounter::new(total).encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct LogDropped(Arc<RwLock<Option<ErrorCounter>>>);

impl Collector for LogDropped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let dropped = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let lines = dropped.as_ref().map_or(0, ErrorCounter::dropped_lines) as u64;
        let metric = ConstCounter::new(lines);
        let help = "Log lines dropped because the log's reader was too slow";
        metric.encode(encoder.encode_descriptor(
            "log_lines_dropped",
            help,
            None,
            metric.metric_type(),
        )?)
    }
}
