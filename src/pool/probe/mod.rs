//! Asks the brokers of a pool how they are, at their own pace, whether or not sessions come. Runs on the control path.

mod ask;
mod http;

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::health::Sign;
use super::{Broker, Failure, Pool};
use crate::config::model::ProbeKind;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByPool, Name};

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
enum ProbeFailure {
    #[error("probe: {0}")]
    Broker(#[from] Failure),
    #[error("probe: CONNACK code {0:#04x}")]
    Refused(u8),
    #[error("probe: HTTP {0}")]
    Status(u16),
    #[error("probe: the answer is not HTTP")]
    NotHttp,
    #[error("probe: no answer within the time for it (probe.timeout)")]
    Timeout,
}

impl ProbeFailure {
    /// The label in metrics.
    fn result(&self) -> &'static str {
        match self {
            Self::Broker(failure) => failure.cause(),
            Self::Refused(_) => "refused_connack",
            Self::Status(_) => "http_status",
            Self::NotHttp => "http",
            Self::Timeout => "timeout",
        }
    }
}

/// Probes the brokers of a snapshot's pools until it is dropped; ends never. Also shows which of them are off.
pub async fn run(pools: Vec<Arc<Pool>>, metrics: Arc<Metrics>) {
    let mut following = JoinSet::new();
    for pool in pools {
        following.spawn(follow(pool, Arc::clone(&metrics)));
    }
    while let Some(ended) = following.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "probing panicked: a bug, please report it");
        }
    }
    pending().await
}

/// Asks the brokers that the pool has: those that discovery adds from then on, those that it removes no longer.
async fn follow(pool: Arc<Pool>, metrics: Arc<Metrics>) {
    let mut changes = pool.members.subscribe();
    let mut asking = JoinSet::new();
    let mut asked: HashMap<Name, (Arc<Broker>, Option<AbortHandle>)> = HashMap::new();
    loop {
        let members = Arc::clone(&changes.borrow_and_update());
        asked.retain(|label, (broker, probing)| {
            let stays = members.brokers.iter().any(|other| other.label == *label);
            if !stays {
                broker.state.turn(true);
                if let Some(probing) = probing {
                    probing.abort();
                }
            }
            stays
        });
        for broker in &members.brokers {
            if asked.contains_key(&broker.label) {
                continue;
            }
            broker.state.turn(broker.off);
            let is_probed = pool.probe.kind != ProbeKind::Off && !broker.off;
            let probing = is_probed.then(|| {
                let watch = watch(Arc::clone(&pool), Arc::clone(broker), Arc::clone(&metrics));
                asking.spawn(watch)
            });
            asked.insert(Arc::clone(&broker.label), (Arc::clone(broker), probing));
        }
        // CANCEL: both may be asked again.
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            Some(ended) = asking.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!(%error, "a probe panicked: a bug, please report it");
                }
            }
        }
    }
}

async fn watch(pool: Arc<Pool>, broker: Arc<Broker>, metrics: Arc<Metrics>) {
    let config = &pool.probe;
    // Anyone else's session with the same client id would be taken over, here and in the whole cluster of the broker.
    let client_id = format!("{}{:08x}", config.client_id, fastrand::u32(..));
    // Gateways that start together, and the brokers of one, are not to ask in step.
    sleep(config.interval.mul_f64(fastrand::f64())).await;
    loop {
        let begun = Instant::now();
        let asked = timeout(config.timeout, pool.ask(&broker, &client_id)).await;
        let asked = asked.unwrap_or(Err(ProbeFailure::Timeout));
        record(&pool, &broker, begun, &asked, &metrics);
        sleep_until(begun + jittered(config.interval)).await;
    }
}

/// Give or take a tenth.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

fn record(
    pool: &Pool,
    broker: &Broker,
    begun: Instant,
    asked: &Result<Sign, ProbeFailure>,
    metrics: &Metrics,
) {
    let (sign, result, why): (_, _, &dyn fmt::Display) = match asked {
        Ok(Sign::Draining) => (Sign::Draining, "draining", &"probe: HTTP 503"),
        Ok(sign) => (*sign, "ok", &"probe: well"),
        Err(failure) => (Sign::Bad, failure.result(), failure),
    };
    if sign != Sign::Bad {
        let by_pool = ByPool {
            pool: Arc::clone(&pool.name),
        };
        metrics
            .brokers
            .probe_seconds
            .get_or_create(&by_pool)
            .observe(begun.elapsed().as_secs_f64());
    }
    broker.state.series.probed(result);
    tracing::debug!(pool = %pool.name, broker = %broker.label, result, reason = %why, "probed");
    broker.state.probed(begun, sign, why, &pool.probe);
}
