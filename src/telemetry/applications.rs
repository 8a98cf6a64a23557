//! The metrics of web applications. A part of `Metrics`.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::metrics::{ByApplication, ByApplicationCause, ByApplicationCode, Histograms};

/// From a file in memory to a report that takes a minute.
fn head_seconds() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ])
}

/// Cloned handles.
#[derive(Debug)]
pub struct ApplicationMetrics {
    pub requests: Family<ByApplicationCode, Counter>,
    pub failures: Family<ByApplicationCause, Counter>,
    pub head_seconds: Histograms<ByApplication>,
    pub connects: Family<ByApplication, Counter>,
    pub web_sockets: Family<ByApplication, Gauge>,
    pub web_socket_ends: Family<ByApplicationCause, Counter>,
}

impl Default for ApplicationMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            failures: Family::default(),
            head_seconds: Family::new_with_constructor(head_seconds),
            connects: Family::default(),
            web_sockets: Family::default(),
            web_socket_ends: Family::default(),
        }
    }
}

impl ApplicationMetrics {
    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "application_requests",
            "Requests to a web application that were answered, by the application or in its place",
            self.requests.clone(),
        );
        ours.register(
            "application_failures",
            "Requests and attempts at a server of a web application that failed, by cause",
            self.failures.clone(),
        );
        ours.register(
            "application_head_seconds",
            "From a request to the head of the application's answer",
            self.head_seconds.clone(),
        );
        ours.register(
            "application_connects",
            "Connections made to a web application; requests beyond them went over kept ones",
            self.connects.clone(),
        );
        ours.register(
            "application_web_sockets",
            "WebSockets of a web application open now",
            self.web_sockets.clone(),
        );
        ours.register(
            "application_web_socket_ends",
            "WebSockets of a web application that ended, by who or what ended them",
            self.web_socket_ends.clone(),
        );
    }
}
