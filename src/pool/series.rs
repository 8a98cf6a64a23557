//! A broker's series in the metrics. They go with it: otherwise every address that a name ever had would have some for as
//! long as the process lives.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::health::Condition;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByBroker, ByBrokerCause, ByBrokerState, ByProbe, Name};

#[derive(Debug)]
pub(super) struct Series {
    pool: Name,
    broker: Name,
    state: Family<ByBrokerState, Gauge>,
    ejections: Family<ByBroker, Counter>,
    sessions: Family<ByBroker, Gauge>,
    joined: Family<ByBroker, Counter>,
    failures: Family<ByBrokerCause, Counter>,
    probes: Family<ByProbe, Counter>,
    /// Words from closed sets, so they are few.
    causes: Mutex<HashSet<&'static str>>,
    results: Mutex<HashSet<&'static str>>,
}

impl Series {
    pub(super) fn new(pool: &Name, broker: &Name, metrics: &Metrics) -> Self {
        Self {
            pool: Arc::clone(pool),
            broker: Arc::clone(broker),
            state: metrics.brokers.state.clone(),
            ejections: metrics.brokers.ejections.clone(),
            sessions: metrics.sessions.clone(),
            joined: metrics.sessions_joined.clone(),
            failures: metrics.broker_failures.clone(),
            probes: metrics.brokers.probes.clone(),
            causes: Mutex::default(),
            results: Mutex::default(),
        }
    }

    pub(super) fn failed(&self, cause: &'static str) {
        note(&self.causes, cause);
        self.failures.get_or_create(&self.by_cause(cause)).inc();
    }

    pub(super) fn probed(&self, result: &'static str) {
        note(&self.results, result);
        self.probes.get_or_create(&self.by_result(result)).inc();
    }

    pub(super) fn remove(&self) {
        let labels = ByBroker {
            pool: Arc::clone(&self.pool),
            broker: Arc::clone(&self.broker),
        };
        self.ejections.remove(&labels);
        self.sessions.remove(&labels);
        self.joined.remove(&labels);
        for condition in Condition::ALL {
            self.state.remove(&ByBrokerState {
                pool: Arc::clone(&self.pool),
                broker: Arc::clone(&self.broker),
                state: condition.name(),
            });
        }
        let causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        for cause in causes.iter() {
            self.failures.remove(&self.by_cause(cause));
        }
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        for result in results.iter() {
            self.probes.remove(&self.by_result(result));
        }
    }

    fn by_cause(&self, cause: &'static str) -> ByBrokerCause {
        ByBrokerCause {
            pool: Arc::clone(&self.pool),
            broker: Arc::clone(&self.broker),
            cause,
        }
    }

    fn by_result(&self, result: &'static str) -> ByProbe {
        ByProbe {
            pool: Arc::clone(&self.pool),
            broker: Arc::clone(&self.broker),
            result,
        }
    }
}

fn note(words: &Mutex<HashSet<&'static str>>, word: &'static str) {
    words
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(word);
}
