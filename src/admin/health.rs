//! What the probes ask. Live: the workers turn. Ready: live, started, and no drain. A broker that is gone does not make
//! the process unready here: its clients are told by CONNACK, and all replicas would go at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::lifecycle::Readiness;

/// A worker that has not turned for so long does not serve: five heartbeats.
const SILENCE: Duration = Duration::from_secs(5);

/// The state of the process, for the probes.
#[derive(Debug)]
pub struct Health {
    pub readiness: Readiness,
    began: Instant,
    /// Milliseconds since `began` at each worker's last turn; 0 before the first.
    beats: Box<[AtomicU64]>,
}

impl Health {
    pub fn new(readiness: Readiness, workers: usize) -> Self {
        Self {
            readiness,
            began: Instant::now(),
            beats: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// A worker turned.
    pub fn beat(&self, worker: usize) {
        self.beats[worker].store(self.now().max(1), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Every worker turns.
    pub fn is_live(&self) -> bool {
        self.live().is_empty()
    }

    /// Each answers what is pending; empty is yes.
    pub(super) fn live(&self) -> Vec<String> {
        let now = self.now();
        let silence = u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX);
        let stuck = |beat: &AtomicU64| now.saturating_sub(beat.load(Ordering::Relaxed)) > silence;
        self.beats
            .iter()
            .enumerate()
            .filter(|(_, beat)| stuck(beat))
            .map(|(worker, _)| format!("worker {worker} does not turn"))
            .collect()
    }

    pub(super) fn started(&self) -> Vec<String> {
        let waiting = self
            .beats
            .iter()
            .any(|beat| beat.load(Ordering::Relaxed) == 0);
        let mut pending: Vec<_> = waiting.then(|| "workers".to_owned()).into_iter().collect();
        if self.readiness.pending().contains(&"start") {
            pending.push("start".to_owned());
        }
        pending
    }

    pub(super) fn ready(&self) -> Vec<String> {
        let mut pending = self.live();
        pending.extend(self.started());
        pending.extend(
            self.readiness
                .pending()
                .into_iter()
                .filter(|name| *name != "start")
                .map(str::to_owned),
        );
        pending
    }
}
