//! The metrics of certificates that are ordered. A part of `Metrics`.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::Name;

/// The first name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByAcme {
    pub name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByOrder {
    pub name: Name,
    pub result: &'static str,
}

/// Cloned handles.
#[derive(Debug, Default)]
pub struct AcmeMetrics {
    pub orders: Family<ByOrder, Counter>,
    pub failures: Family<ByAcme, Gauge>,
    pub stored: Family<ByAcme, Gauge>,
    pub last_success: Family<ByAcme, Gauge>,
    pub next_attempt: Family<ByAcme, Gauge>,
}

impl AcmeMetrics {
    /// Other certificates may be wished for now.
    pub fn forget(&self) {
        for gauges in [
            &self.failures,
            &self.stored,
            &self.last_success,
            &self.next_attempt,
        ] {
            gauges.clear();
        }
    }

    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "acme_orders",
            "Certificates ordered, by result: ok, unavailable, rate_limited, refused, unproven or local",
            self.orders.clone(),
        );
        ours.register(
            "acme_failures",
            "Orders of a certificate that failed in a row",
            self.failures.clone(),
        );
        ours.register(
            "acme_certificate_stored",
            "1 when there is a certificate to show, also an expired one; 0 while clients are refused",
            self.stored.clone(),
        );
        ours.register(
            "acme_last_success_timestamp_seconds",
            "When the CA issued the certificate, Unix time; 0 for never",
            self.last_success.clone(),
        );
        ours.register(
            "acme_next_attempt_timestamp_seconds",
            "When the certificate will be ordered again, Unix time; in the past while it waits for its turn",
            self.next_attempt.clone(),
        );
    }
}
