//! One span for each session, for OpenTelemetry: handed over here by the data path, exported by `otlp` in a build that has it.
//!
//! INVARIANT: a bounded queue that nobody waits for. What finds it full is dropped and counted.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::metrics::{ByResult, Name};

/// Spans that may wait for the exporter: some seconds of a busy gateway.
const QUEUE: usize = 4096;

/// A session from accept to its end. A stage that it did not reach is `None`.
#[derive(Debug, Clone)]
pub struct SessionSpan {
    /// Of the session line and of what brokers are told.
    pub unique_id: u128,
    pub accepted: SystemTime,
    /// The end of the TLS handshake.
    pub secured: Option<SystemTime>,
    /// The 101.
    pub upgraded: SystemTime,
    /// The end of CONNECT.
    pub connect: Option<SystemTime>,
    /// CONNACK.
    pub connack: Option<SystemTime>,
    pub ended: SystemTime,
    pub who: &'static str,
    pub phase: &'static str,
    pub why: &'static str,
    /// The sentence of the log.
    pub text: String,
    pub unusual: bool,
    pub client: SocketAddr,
    /// Empty where the log has none either.
    pub client_id: String,
    pub version: Option<&'static str>,
    pub listener: Name,
    pub pool: Name,
    pub broker: Option<Name>,
    pub retries: usize,
    pub up_bytes: u64,
    pub down_bytes: u64,
}

/// Where spans are handed over. Nothing happens to them until somebody takes them.
#[derive(Debug, Default)]
pub struct Spans {
    queue: OnceLock<Sender<SessionSpan>>,
    /// `exported`, `dropped` or `failed`.
    pub results: Family<ByResult, Counter>,
}

impl Spans {
    /// The other end of the queue; `None` when somebody has it.
    pub fn take(&self) -> Option<Receiver<SessionSpan>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.queue.set(sender).ok().map(|()| receiver)
    }

    /// Makes a span only where somebody takes it. Waits for nobody.
    pub fn offer(&self, make: impl FnOnce() -> SessionSpan) {
        if let Some(queue) = self.queue.get()
            && queue.try_send(make()).is_err()
        {
            self.count("dropped", 1);
        }
    }

    pub fn count(&self, result: &'static str, spans: usize) {
        let labels = ByResult { result };
        self.results.get_or_create(&labels).inc_by(spans as u64);
    }
}
