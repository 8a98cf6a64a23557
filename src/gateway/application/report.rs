//! What the operator hears of an application: metrics, and a warning now and then.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::failure::Failure;
use crate::pool::{Pool, Seat};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByApplication, ByApplicationCause, ByApplicationCode, Name};

/// An application that fails says so in the log no more often than this: each request may.
const QUIET: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(super) struct Reporter(Arc<Series>);

#[derive(Debug)]
struct Series {
    name: Name,
    pool: Arc<Pool>,
    requests: Family<ByApplicationCode, Counter>,
    failures: Family<ByApplicationCause, Counter>,
    web_socket_ends: Family<ByApplicationCause, Counter>,
    head_seconds: Histogram,
    connects: Counter,
    web_sockets: Gauge,
    warned: Mutex<Warned>,
}

#[derive(Debug, Default)]
struct Warned {
    last: Option<Instant>,
    /// Failures since.
    unsaid: u64,
}

impl Reporter {
    pub(super) fn new(pool: &Arc<Pool>, metrics: &Metrics) -> Self {
        let name = pool.name();
        let labels = ByApplication {
            application: Arc::clone(name),
        };
        let metrics = &metrics.applications;
        Self(Arc::new(Series {
            name: Arc::clone(name),
            pool: Arc::clone(pool),
            requests: metrics.requests.clone(),
            failures: metrics.failures.clone(),
            web_socket_ends: metrics.web_socket_ends.clone(),
            head_seconds: metrics.head_seconds.get_or_create_owned(&labels),
            connects: metrics.connects.get_or_create_owned(&labels),
            web_sockets: metrics.web_sockets.get_or_create_owned(&labels),
            warned: Mutex::default(),
        }))
    }

    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// The head of an answer is there.
    pub(super) fn answered(&self, status: StatusCode, begun: Instant) {
        self.count(status);
        self.0.head_seconds.observe(begun.elapsed().as_secs_f64());
    }

    pub(super) fn connected(&self) {
        self.0.connects.inc();
    }

    /// A server could not be reached; another may be.
    pub(super) fn attempt_failed(&self, seat: &Seat, begun: Instant, failure: &Failure) {
        self.fail(failure);
        self.blame(seat, begun, failure);
    }

    /// A server did not answer as it should.
    pub(super) fn blame(&self, seat: &Seat, begun: Instant, failure: &Failure) {
        let server = seat.server();
        tracing::debug!(application = self.name(), server = &*server.label, %failure, "a server failed");
        if failure.is_the_servers() {
            self.0.pool.failed(server, begun, failure);
        }
    }

    /// The client was told so.
    pub(super) fn refused(&self, client: SocketAddr, failure: &Failure) {
        // The others were counted as attempts.
        if !matches!(failure, Failure::Connect(_) | Failure::ConnectTimeout) {
            self.fail(failure);
        }
        self.count(failure.status());
        self.tell(Some(client), failure);
    }

    /// An answer ended before its end.
    pub(super) fn broke(&self, seat: &Seat, failure: &Failure) {
        self.fail(failure);
        let server = &*seat.server().label;
        tracing::debug!(application = self.name(), server, %failure, "an answer ended early");
        self.tell(None, failure);
    }

    /// Counted to the end of its life.
    pub(super) fn web_socket(&self) -> OpenWebSocket {
        self.0.web_sockets.inc();
        OpenWebSocket(self.0.web_sockets.clone())
    }

    pub(super) fn web_socket_ended(&self, cause: &'static str) {
        let labels = self.labels(cause);
        self.0.web_socket_ends.get_or_create(&labels).inc();
    }

    fn labels(&self, cause: &'static str) -> ByApplicationCause {
        ByApplicationCause {
            application: Arc::clone(&self.0.name),
            cause,
        }
    }

    fn fail(&self, failure: &Failure) {
        let labels = self.labels(failure.cause());
        self.0.failures.get_or_create(&labels).inc();
    }

    fn count(&self, status: StatusCode) {
        let labels = ByApplicationCode {
            application: Arc::clone(&self.0.name),
            code: match status.as_u16() / 100 {
                1 => "1xx",
                2 => "2xx",
                3 => "3xx",
                4 => "4xx",
                5 => "5xx",
                _ => "other",
            },
        };
        self.0.requests.get_or_create(&labels).inc();
    }

    fn tell(&self, client: Option<SocketAddr>, failure: &Failure) {
        let application = self.name();
        let client = client.map(|client| client.to_string());
        if matches!(failure, Failure::Loop) {
            tracing::info!(application, client, "{failure}");
            return;
        }
        if !failure.is_the_applications() {
            tracing::debug!(application, client, "{failure}");
            return;
        }
        let mut warned = self.0.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.last.is_some_and(|last| last.elapsed() < QUIET) {
            warned.unsaid += 1;
            tracing::debug!(application, client, "{failure}");
            return;
        }
        let unsaid = std::mem::take(&mut warned.unsaid);
        warned.last = Some(Instant::now());
        drop(warned);
        tracing::warn!(
            application,
            client,
            status = failure.status().as_u16(),
            more = unsaid,
            "the web application fails: {failure}"
        );
    }
}

/// Gone when it is dropped.
#[derive(Debug)]
pub(super) struct OpenWebSocket(Gauge);

impl Drop for OpenWebSocket {
    fn drop(&mut self) {
        self.0.dec();
    }
}
