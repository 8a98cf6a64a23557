//! The metrics of reloads and drains. A part of `Metrics`.

use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::metrics::ByResult;

/// Cloned handles.
#[derive(Debug, Default)]
pub struct ControlMetrics {
    pub generation: Gauge,
    pub reloads: Family<ByResult, Counter>,
    pub last_successful: Gauge,
    pub last_success: Gauge,
    pub waiting: Gauge,
    pub seconds_left: Gauge<f64, AtomicU64>,
}

impl ControlMetrics {
    /// A configuration came into force; the first one by the start.
    pub fn in_force(&self, generation: u64) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_secs());
        self.generation
            .set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.last_successful.set(1);
        self.last_success
            .set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    pub(super) fn register(&self, ours: &mut Registry) {
        ours.register(
            "config_generation",
            "Configurations that were in force since the start, the present one included",
            self.generation.clone(),
        );
        ours.register(
            "config_reloads",
            "Reloads, by result: ok or refused",
            self.reloads.clone(),
        );
        ours.register(
            "config_last_reload_successful",
            "1 when the last reload, or the start, was taken over; 0 when it was refused",
            self.last_successful.clone(),
        );
        ours.register(
            "config_last_reload_success_timestamp_seconds",
            "When the present configuration came into force, Unix time",
            self.last_success.clone(),
        );
        ours.register(
            "drain_waiting_sessions",
            "Sessions that are to be asked to leave and have not had their turn",
            self.waiting.clone(),
        );
        ours.register(
            "drain_left_seconds",
            "Time until the last of them has its turn",
            self.seconds_left.clone(),
        );
    }
}
