//! What a pool and its brokers look like at one moment, for people.

use std::time::SystemTime;

use super::{Broker, Pool, Trouble};
use crate::telemetry::metrics::Name;

/// A pool.
#[derive(Debug, Clone)]
pub struct PoolView {
    pub name: Name,
    /// As the configuration writes it.
    pub balance: &'static str,
    /// Sessions that wait for a place.
    pub waiting: usize,
    /// As discovery has them now.
    pub brokers: Vec<BrokerView>,
}

/// A broker of it.
#[derive(Debug, Clone)]
pub struct BrokerView {
    pub label: Name,
    /// As in `tidegate_broker_state`.
    pub state: &'static str,
    pub since: SystemTime,
    pub weight: u32,
    pub backup: bool,
    pub takes_sessions: bool,
    /// From the choice on: those that it has not yet answered included.
    pub sessions: usize,
    pub max_sessions: Option<usize>,
    pub joined: u64,
    pub trouble: Option<Trouble>,
}

impl Pool {
    pub fn view(&self) -> PoolView {
        let members = self.members();
        PoolView {
            name: self.name.clone(),
            balance: self.balance.name(),
            waiting: self.queue.waiting(),
            brokers: members.brokers.iter().map(|broker| broker.view()).collect(),
        }
    }
}

impl Broker {
    fn view(&self) -> BrokerView {
        let (condition, since, trouble) = self.state.shown();
        BrokerView {
            label: self.label.clone(),
            state: condition.name(),
            since,
            weight: self.weight,
            backup: self.backup,
            takes_sessions: self.takes_sessions(),
            sessions: self.state.sessions(),
            max_sessions: self.max_sessions,
            joined: self.joined.get(),
            trouble,
        }
    }
}
