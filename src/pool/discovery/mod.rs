//! Finds the brokers behind names, again and again: on the TTL of each answer, within bounds. Runs on the control path.
//!
//! What a name server last said goes on until it says something else: no answer, an error and an empty answer take no
//! broker away. An address that is gone takes no new sessions; those it has stay, or are drained if the pool wants that.

mod ask;
mod resolver;

use std::collections::VecDeque;
use std::future::pending;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::state::Lost;
use super::{Broker, Members, Pool, Registry};
use crate::config::model::{self, Dns, Lookup, OnRemoved};
use crate::lifecycle::Drain;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::ByBrokerCause;
use ask::{Answer, DnsFailure};
use resolver::Resolver;

/// Of one name. More brokers are a mistake in a zone, and each is probed and looked at for every session.
const MOST: usize = 200;

/// A name server that gives another part of a long list each time would otherwise have every broker's state forgotten
/// each time.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What has to be asked to know where brokers are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Question {
    None(Vec<IpAddr>),
    /// Nothing either.
    Socket(PathBuf),
    Addresses(String),
    Services(String),
}

impl Question {
    pub(super) fn of(broker: &model::Broker) -> Self {
        match &broker.lookup {
            Lookup::Nothing(addresses) => Self::None(addresses.clone()),
            Lookup::Socket(socket) => Self::Socket(socket.clone()),
            Lookup::Addresses => Self::Addresses(broker.host.clone()),
            Lookup::Services => Self::Services(broker.host.clone()),
        }
    }

    pub(super) fn is_asked(&self) -> bool {
        matches!(self, Self::Addresses(_) | Self::Services(_))
    }
}

/// Where a name says that a broker is. In the order in which they are cut off.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Endpoint {
    /// Of a lower priority than the first.
    pub backup: bool,
    pub address: IpAddr,
    /// `None`: that of the URL.
    pub port: Option<u16>,
    /// At least 1.
    pub weight: u16,
}

/// One name of one pool.
struct Name {
    pool: Arc<Pool>,
    at: usize,
    registry: Registry,
    metrics: Arc<Metrics>,
    /// What the last look-up failed of, so that it is told once.
    failing: Option<&'static str>,
    /// Brokers that are gone, the oldest first.
    gone: VecDeque<Gone>,
    drain: Drain,
}

struct Gone {
    broker: Arc<Broker>,
    since: Instant,
}

/// Resolves the names of a snapshot's pools until it is dropped; ends never. Waits for no answer before it starts.
pub async fn run(
    pools: Vec<Arc<Pool>>,
    dns: Dns,
    registry: Registry,
    metrics: Arc<Metrics>,
    drain: Drain,
) {
    let resolver = Arc::new(Resolver::new(&dns));
    let mut names = JoinSet::new();
    for pool in pools {
        for (at, origin) in pool.origins.iter().enumerate() {
            if origin.question().is_asked() {
                let name = Name {
                    pool: Arc::clone(&pool),
                    at,
                    registry: registry.clone(),
                    metrics: Arc::clone(&metrics),
                    failing: None,
                    gone: VecDeque::new(),
                    drain: drain.clone(),
                };
                names.spawn(name.follow(Arc::clone(&resolver), dns.clone()));
            }
        }
    }
    while let Some(ended) = names.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a look-up panicked: a bug, please report it");
        }
    }
    pending().await
}

impl Name {
    async fn follow(mut self, resolver: Arc<Resolver>, dns: Dns) {
        loop {
            let question = self.pool.origins[self.at].question();
            let answer = timeout(dns.timeout, resolver.ask(question)).await;
            let answer = answer.unwrap_or(Err(DnsFailure::Timeout));
            let ttl = match answer {
                Ok(answer) => self.answered(answer),
                Err(failure) => {
                    self.failed(&failure);
                    Duration::ZERO
                }
            };
            // Never earlier than the TTL; replicas are not to ask in step.
            let wait = ttl.clamp(dns.shortest, dns.longest);
            sleep(wait.mul_f64(1.0 + 0.1 * fastrand::f64())).await;
        }
    }

    /// Takes the answer over. Answers its TTL.
    fn answered(&mut self, mut answer: Answer) -> Duration {
        answer.endpoints.sort();
        // The same target twice, with another weight.
        answer
            .endpoints
            .dedup_by(|a, b| (a.address, a.port) == (b.address, b.port));
        let count = answer.endpoints.len();
        if count > MOST {
            answer.endpoints.truncate(MOST);
            self.failed(&DnsFailure::TooMany(count));
        } else if let Some(cause) = self.failing.take() {
            let (pool, broker) = self.labels();
            tracing::info!(
                pool,
                broker,
                cause,
                addresses = count,
                "the broker's name is resolved again"
            );
        }
        let origin = &self.pool.origins[self.at];
        self.registry.remember(origin.question(), &answer.endpoints);
        let members = self.pool.members();
        let mut known = members.by_origin[self.at].clone();
        known.extend(self.gone.iter().map(|gone| Arc::clone(&gone.broker)));
        let brokers = origin.brokers(&answer.endpoints, &known, &self.metrics, &self.registry);
        if let Some(addresses) = &origin.addresses {
            addresses.set(i64::try_from(brokers.len()).unwrap_or(i64::MAX));
        }
        // Those that are cut off have not gone.
        if self.pool.on_removed == OnRemoved::Drain && count <= MOST {
            self.drain_gone(&brokers);
        }
        self.replace(&members, brokers);
        answer.ttl
    }

    /// Those that the last answer lacked, and this one too: one may lack an address by accident, as when a pod is not ready
    /// for a moment.
    fn drain_gone(&self, brokers: &[Arc<Broker>]) {
        let members = self.pool.members();
        let origin = &self.pool.origins[self.at];
        for lost in self.registry.take_lost(&origin.pool, &origin.label) {
            // Another name of the pool may have it too.
            let mut left = members.brokers.iter().chain(brokers);
            if !left.any(|other| other.label == lost.label) {
                let sessions = self.drain.ask_group(&lost.group);
                tracing::info!(
                    pool = &*self.pool.name,
                    broker = &*lost.label,
                    sessions,
                    "the broker's name has lost this address: its sessions are drained (on_removed)"
                );
            }
        }
    }

    /// Does nothing when nothing has changed: an answer in another order is the same answer.
    fn replace(&mut self, members: &Members, brokers: Vec<Arc<Broker>>) {
        let old = &members.by_origin[self.at];
        let has = |list: &[Arc<Broker>], broker: &Arc<Broker>| {
            list.iter().any(|other| other.label == broker.label)
        };
        let added: Vec<_> = brokers.iter().filter(|broker| !has(old, broker)).collect();
        // They may have been drained before, under another configuration too.
        for broker in &added {
            self.drain.welcome_group(broker.group());
        }
        let added = added.len();
        let removed: Vec<_> = old.iter().filter(|broker| !has(&brokers, broker)).collect();
        let same =
            old.len() == brokers.len() && old.iter().zip(&brokers).all(|(a, b)| Arc::ptr_eq(a, b));
        if same {
            return;
        }
        let now = Instant::now();
        self.gone.retain(|gone| {
            now.duration_since(gone.since) < REMEMBERED && !has(&brokers, &gone.broker)
        });
        let (pool, broker) = self.labels();
        tracing::info!(
            pool,
            broker,
            addresses = brokers.len(),
            added,
            removed = removed.len(),
            "brokers found"
        );
        if self.pool.on_removed == OnRemoved::Drain && !removed.is_empty() {
            let lost = removed.iter().map(|broker| Lost {
                label: Arc::clone(&broker.label),
                group: broker.group().clone(),
            });
            let origin = &self.pool.origins[self.at];
            let lost = lost.collect();
            self.registry
                .lose(&origin.pool, &origin.label, lost, 2 * MOST);
        }
        self.gone.extend(removed.into_iter().map(|broker| Gone {
            broker: Arc::clone(broker),
            since: now,
        }));
        let excess = self.gone.len().saturating_sub(2 * MOST);
        self.gone.drain(..excess);
        let mut by_origin = members.by_origin.clone();
        by_origin[self.at] = brokers;
        self.pool
            .members
            .send_replace(Arc::new(Members::of(by_origin)));
    }

    /// Counted each time, told once.
    fn failed(&mut self, failure: &DnsFailure) {
        let origin = &self.pool.origins[self.at];
        let cause = failure.cause();
        let labels = ByBrokerCause {
            pool: Arc::clone(&origin.pool),
            broker: Arc::clone(&origin.label),
            cause,
        };
        self.metrics
            .brokers
            .discovery_failures
            .get_or_create(&labels)
            .inc();
        if self.failing.replace(cause) == Some(cause) {
            return;
        }
        let (pool, broker) = self.labels();
        let kept = self.pool.members().by_origin[self.at].len();
        tracing::warn!(pool, broker, cause, kept, reason = %failure, "the broker's name cannot be resolved as it should");
    }

    fn labels(&self) -> (&str, &str) {
        let origin = &self.pool.origins[self.at];
        (&*origin.pool, &*origin.label)
    }
}
