//! The metrics of choosing and of broker health. A part of `Metrics`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::metrics::{
    ByBroker, ByBrokerCause, ByBrokerState, ByPool, ByPoolReason, ByProbe, Histograms,
    handshake_seconds,
};

/// From a refusal on the spot to a hanging broker that is ejected after some `timeouts.connack`.
fn notice_seconds() -> Histogram {
    Histogram::new([
        0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 300.0,
    ])
}

/// Up to the longest `queue.age`.
fn queue_seconds() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 5.0, 10.0, 60.0])
}

/// Cloned handles.
#[derive(Debug)]
pub struct BrokerMetrics {
    pub addresses: Family<ByBroker, Gauge>,
    pub discovery_failures: Family<ByBrokerCause, Counter>,
    pub state: Family<ByBrokerState, Gauge>,
    pub ejections: Family<ByBroker, Counter>,
    pub notice_seconds: Histograms<ByPool>,
    pub probes: Family<ByProbe, Counter>,
    pub probe_seconds: Histograms<ByPool>,
    pub queue_sessions: Family<ByPool, Gauge>,
    pub queue_seconds: Histograms<ByPool>,
    pub queue_refused: Family<ByPoolReason, Counter>,
}

impl Default for BrokerMetrics {
    fn default() -> Self {
        Self {
            addresses: Family::default(),
            discovery_failures: Family::default(),
            state: Family::default(),
            ejections: Family::default(),
            notice_seconds: Family::new_with_constructor(notice_seconds),
            probes: Family::default(),
            probe_seconds: Family::new_with_constructor(handshake_seconds),
            queue_sessions: Family::default(),
            queue_seconds: Family::new_with_constructor(queue_seconds),
            queue_refused: Family::default(),
        }
    }
}

impl BrokerMetrics {
    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "broker_addresses",
            "Addresses that the name of a broker stands for",
            self.addresses.clone(),
        );
        ours.register(
            "discovery_failures",
            "Look-ups of a broker's name that failed, by cause; its last addresses are kept",
            self.discovery_failures.clone(),
        );
        ours.register(
            "broker_state",
            "1 for the state that a broker is in: up, ejected, down, draining, off",
            self.state.clone(),
        );
        ours.register(
            "broker_ejections",
            "Ejections of a broker that failed sessions in a row",
            self.ejections.clone(),
        );
        ours.register(
            "broker_notice_seconds",
            "From the first attempt that failed to the ejection, or to down or draining by probes",
            self.notice_seconds.clone(),
        );
        ours.register(
            "probes",
            "Probes of brokers: ok, draining, or what they failed of",
            self.probes.clone(),
        );
        ours.register(
            "probe_seconds",
            "Length of probes that had an answer",
            self.probe_seconds.clone(),
        );
        ours.register(
            "queue_sessions",
            "Sessions that wait for the connect_rate of a broker",
            self.queue_sessions.clone(),
        );
        ours.register(
            "queue_seconds",
            "How long sessions waited for the connect_rate of a broker",
            self.queue_seconds.clone(),
        );
        ours.register(
            "queue_refused",
            "Sessions told that the server is busy: queue_age, queue_full, max_sessions",
            self.queue_refused.clone(),
        );
    }
}
