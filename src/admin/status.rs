//! What the gateway looks like now, gathered from where it is kept. Costs the data path nothing: it reads what is counted
//! anyway, on the control thread, once a second and when somebody asks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::Health;
use super::history::{History, Totals, unix};
use super::report;
use super::shown::{of_ending, of_expiry, of_pool, whole};
use crate::certificates::{self, Expiry, Kind};
use crate::config::Config;
use crate::config::model::Speaks;
use crate::lifecycle::Drain;
use crate::pool::Pool;
use crate::telemetry::metrics::{ByCertificate, ByIssuer, Name};
use crate::telemetry::{Direction, Metrics, process};

/// A listener, with its counters.
#[derive(Debug)]
pub struct Listener {
    pub name: Name,
    pub address: String,
    pub speaks: Speaks,
    pub connections: Gauge,
    pub accepted: Counter,
    pub sessions: Gauge,
}

/// The configuration in force, as far as people look at it.
#[derive(Debug)]
struct Configured {
    generation: u64,
    since: SystemTime,
    pools: Vec<Arc<Pool>>,
    expiries: Vec<Expiry>,
    connections: usize,
    hosts: Vec<String>,
}

/// The whole of it.
#[derive(Debug)]
pub struct Status {
    pub health: Health,
    metrics: Arc<Metrics>,
    drain: Drain,
    listeners: Vec<Listener>,
    configured: ArcSwap<Configured>,
    refused: Mutex<Option<report::Refused>>,
    history: Mutex<History>,
    /// Since when, and how many sessions there were.
    draining: Mutex<Option<(SystemTime, usize)>>,
    started: SystemTime,
}

impl Status {
    /// Shows the first configuration.
    pub fn new(
        health: Health,
        metrics: Arc<Metrics>,
        drain: Drain,
        listeners: Vec<Listener>,
        config: &Config,
        pools: &[Arc<Pool>],
        certificates: &[certificates::Report],
    ) -> Self {
        let configured = Configured::new(1, config, pools, certificates);
        configured.note(&metrics);
        Self {
            health,
            metrics,
            drain,
            listeners,
            configured: ArcSwap::from_pointee(configured),
            refused: Mutex::default(),
            history: Mutex::default(),
            draining: Mutex::default(),
            started: SystemTime::now(),
        }
    }

    /// Another configuration came into force.
    pub fn configured(
        &self,
        config: &Config,
        pools: &[Arc<Pool>],
        certificates: &[certificates::Report],
    ) {
        let generation = self.configured.load().generation + 1;
        let configured = Configured::new(generation, config, pools, certificates);
        configured.note(&self.metrics);
        self.configured.store(Arc::new(configured));
        *lock(&self.refused) = None;
    }

    /// A CA has issued certificates for the configuration that is in force.
    pub fn issued(&self, config: &Config, certificates: &[certificates::Report]) {
        let old = self.configured.load();
        let configured = Configured {
            since: old.since,
            ..Configured::new(old.generation, config, &old.pools, certificates)
        };
        configured.note(&self.metrics);
        self.configured.store(Arc::new(configured));
    }

    /// A configuration was not taken: the one before is still in force.
    pub fn refused(&self, problems: Vec<String>) {
        let at = unix(SystemTime::now());
        *lock(&self.refused) = Some(report::Refused { at, problems });
    }

    /// The row of a second.
    pub(super) fn look(&self) {
        let now = SystemTime::now();
        let mut draining = lock(&self.draining);
        if self.metrics.draining.get() == 0 {
            *draining = None;
        } else if draining.is_none() {
            *draining = Some((now, self.drain.members()));
        }
        drop(draining);
        let traffic = &self.metrics.traffic;
        let totals = Totals {
            connections: self.sum(|listener| listener.connections.get()),
            sessions: self.sum(|listener| listener.sessions.get()),
            accepted: self.accepted(),
            up: traffic.sum(Direction::Up),
            down: traffic.sum(Direction::Down),
            joins: self.metrics.joins.counts(),
        };
        lock(&self.history).add(Instant::now(), unix(now), totals);
    }

    /// What `/status.json` says, with the history behind that row.
    pub(super) fn report(&self, after: u64) -> report::Report {
        let configured = self.configured.load();
        let pending = self.health.ready();
        let drain = self.drain_report();
        let state = match (&drain, pending.is_empty(), self.health.live().is_empty()) {
            (_, _, false) => "unwell",
            (Some(_), ..) => "draining",
            (None, true, true) => "ready",
            (None, false, true) if pending.iter().any(|name| name == "drain") => "draining",
            (None, false, true) => "starting",
        };
        report::Report {
            schema: report::SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: unix(SystemTime::now()),
            started: unix(self.started),
            state: state.to_owned(),
            pending,
            configuration: report::Configuration {
                generation: configured.generation,
                since: unix(configured.since),
                refused: lock(&self.refused).clone(),
            },
            connections: report::Connections {
                open: self.sum(|listener| listener.connections.get()),
                limit: configured.connections as u64,
                accepted: self.accepted(),
            },
            sessions: self.sum(|listener| listener.sessions.get()),
            drain,
            process: report::Process {
                memory_bytes: process::resident(),
                cpu_seconds: process::cpu_seconds(),
                open_files: process::open_files(),
                open_files_limit: process::max_files(),
            },
            listeners: self.listeners.iter().map(Listener::report).collect(),
            pools: configured
                .pools
                .iter()
                .map(|pool| of_pool(pool.view()))
                .collect(),
            certificates: configured.expiries.iter().map(of_expiry).collect(),
            outcomes: self
                .metrics
                .endings
                .last()
                .into_iter()
                .map(of_ending)
                .collect(),
            history: lock(&self.history).after(after),
        }
    }

    /// Names that the admin listener may be asked by.
    pub(super) fn hosts(&self) -> Vec<String> {
        self.configured.load().hosts.clone()
    }

    pub(super) fn metrics(&self) -> Result<String, std::fmt::Error> {
        self.metrics.encode()
    }

    fn drain_report(&self) -> Option<report::Drain> {
        let (since, sessions) = (*lock(&self.draining))?;
        let progress = self.drain.progress();
        let (left, rate) = (progress.members, progress.rate);
        Some(report::Drain {
            since: unix(since),
            sessions: sessions.max(left) as u64,
            left: left as u64,
            rate: rate.get(),
            seconds_left: left as f64 / f64::from(rate.get()),
        })
    }

    fn accepted(&self) -> u64 {
        self.listeners.iter().map(|each| each.accepted.get()).sum()
    }

    fn sum(&self, gauge: impl Fn(&Listener) -> i64) -> u64 {
        self.listeners.iter().map(|each| whole(gauge(each))).sum()
    }
}

impl Configured {
    fn new(
        generation: u64,
        config: &Config,
        pools: &[Arc<Pool>],
        certificates: &[certificates::Report],
    ) -> Self {
        let admin = config.admin.as_ref();
        Self {
            generation,
            since: SystemTime::now(),
            pools: pools.to_vec(),
            expiries: certificates::expiries(config, certificates),
            connections: config.limits.connections.get(),
            hosts: admin.map(|admin| admin.hosts.clone()).unwrap_or_default(),
        }
    }

    /// In the metrics: what the one before had is gone.
    fn note(&self, metrics: &Metrics) {
        let limit = i64::try_from(self.connections).unwrap_or(i64::MAX);
        metrics.connections_limit.set(limit);
        metrics.certificate_not_after.clear();
        metrics.revocation_next_update.clear();
        for expiry in &self.expiries {
            let since = expiry.not_after.duration_since(SystemTime::UNIX_EPOCH);
            let seconds = since.map_or(0, |since| since.as_secs());
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            let shown = || expiry.file.display().to_string();
            let name = expiry.names.first().cloned().unwrap_or_else(shown);
            let gauge = if expiry.kind == Kind::RevocationList {
                let labels = ByIssuer { issuer: name };
                metrics.revocation_next_update.get_or_create_owned(&labels)
            } else {
                let kind = expiry.kind.name();
                let labels = ByCertificate { kind, name };
                metrics.certificate_not_after.get_or_create_owned(&labels)
            };
            // Two of the same name, such as one with RSA and one with ECDSA: the nearer end counts.
            let known = gauge.get();
            gauge.set(if known == 0 {
                seconds
            } else {
                known.min(seconds)
            });
        }
    }
}

impl Listener {
    fn report(&self) -> report::Listener {
        report::Listener {
            name: self.name.to_string(),
            address: self.address.clone(),
            speaks: match self.speaks {
                Speaks::Tls => "tls",
                Speaks::Plain => "plain",
                Speaks::PlainRedirect => "redirect",
            }
            .to_owned(),
            connections: whole(self.connections.get()),
            accepted: self.accepted.get(),
            sessions: whole(self.sessions.get()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::lifecycle::Readiness;

    fn config(connections: usize) -> Config {
        let text = format!(
            "listeners: [{{address: '127.0.0.1:0', plain: routes}}]\n\
             routes: [{{path: /mqtt, pool: p}}]\n\
             pools: {{p: {{brokers: [{{url: 'mqtt://127.0.0.1:1'}}]}}}}\n\
             limits: {{connections: {connections}}}\n"
        );
        crate::config::parse(Path::new("test.yaml"), &text)
            .unwrap()
            .config
    }

    fn certificate(name: &str) -> certificates::Report {
        certificates::Report {
            path: "chain.pem".into(),
            names: vec![name.to_owned()],
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7),
            key: String::new(),
            issuer: String::new(),
            chain_length: 1,
        }
    }

    #[tokio::test]
    async fn another_configuration_takes_the_place_of_the_one_before_in_all_that_is_shown() {
        let metrics = Arc::new(Metrics::new(1));
        let status = Status::new(
            Health::new(Readiness::default(), 1),
            Arc::clone(&metrics),
            Drain::default(),
            Vec::new(),
            &config(50),
            &[],
            &[certificate("old.example.com")],
        );
        status.refused(vec!["line 7 is wrong".to_owned()]);
        let before = status.report(0);
        assert_eq!(before.configuration.generation, 1);
        let refused = before.configuration.refused.unwrap();
        assert_eq!(refused.problems, ["line 7 is wrong"]);

        status.configured(&config(60), &[], &[certificate("new.example.com")]);
        let after = status.report(0);
        assert_eq!(after.configuration.generation, 2);
        assert!(after.configuration.refused.is_none());
        assert_eq!(after.connections.limit, 60);
        assert_eq!(after.certificates[0].names, ["new.example.com"]);
        let text = metrics.encode().unwrap();
        assert!(text.contains("tidegate_connections_limit 60"), "{text}");
        assert!(text.contains("name=\"new.example.com\"} 7"), "{text}");
        assert!(!text.contains("old.example.com"), "{text}");
    }
}
