//! The brokers of a pool at one time. Never changed: an answer of a name server makes new ones.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::Broker;
use super::choose::RoundRobin;

#[derive(Debug)]
pub(super) struct Members {
    /// By the broker of the configuration that they come from, in its order.
    pub by_origin: Vec<Vec<Arc<Broker>>>,
    /// All of them, each label once.
    pub brokers: Vec<Arc<Broker>>,
    pub turns: Mutex<RoundRobin>,
}

impl Members {
    pub(super) fn of(by_origin: Vec<Vec<Arc<Broker>>>) -> Self {
        let mut labels = HashSet::new();
        let brokers: Vec<_> = by_origin
            .iter()
            .flatten()
            // Two names may have an address in common: it would get twice its share.
            .filter(|broker| labels.insert(Arc::clone(&broker.label)))
            .map(Arc::clone)
            .collect();
        let weights = brokers.iter().map(|broker| broker.weight);
        Self {
            turns: Mutex::new(RoundRobin::new(weights)),
            brokers,
            by_origin,
        }
    }
}
