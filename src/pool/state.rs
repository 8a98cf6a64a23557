//! What the process knows of its brokers, whatever configuration is in force: sessions, health, places in the queue.
//! A reload finds it again under the pool's name and the broker's URL; it goes when the last snapshot and the last
//! session that know the broker have gone.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;

use super::discovery::{Endpoint, Question};
use super::health::{Change, Condition, Health, Noticed, Sign};
use super::queue::Places;
use super::series::Series;
use crate::config::model::{Eject, Probe};
use crate::lifecycle::Group;
use crate::telemetry::Metrics;
use crate::telemetry::metrics::{ByBroker, ByBrokerState, ByPool, Name};

/// By pool and broker.
type States = HashMap<(Name, Name), Weak<State>>;

/// By pool and name of the broker in the configuration.
type LostByName = HashMap<(Name, Name), Vec<Lost>>;

/// Every broker that a snapshot or a session knows.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    states: Arc<Mutex<States>>,
    /// What name servers last said. As many as there are names in the configurations that were in force.
    answers: Arc<Mutex<HashMap<Question, Vec<Endpoint>>>>,
    /// Brokers that the last answer lacked, by pool and name: a reload between two answers forgets none.
    lost: Arc<Mutex<LostByName>>,
}

/// A broker that a name server has left out.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) label: Name,
    /// Its sessions.
    pub(super) group: Group,
}

impl Registry {
    /// The state of a broker: the one that there is, or a new one.
    pub fn state(&self, pool: &Name, broker: &Name, metrics: &Metrics) -> Arc<State> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(pool), Arc::clone(broker));
        if let Some(known) = states.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        states.retain(|_, state| state.strong_count() > 0);
        let state = Arc::new(State::new(pool, broker, metrics, Arc::clone(&self.states)));
        states.insert(key, Arc::downgrade(&state));
        state
    }

    /// The last answer, or none.
    pub(super) fn answer(&self, question: &Question) -> Vec<Endpoint> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(question).cloned().unwrap_or_default()
    }

    /// Those that the last answer lacked, once.
    pub(super) fn take_lost(&self, pool: &Name, origin: &Name) -> Vec<Lost> {
        let key = (Arc::clone(pool), Arc::clone(origin));
        self.lost().remove(&key).unwrap_or_default()
    }

    /// For the next answer to take. Answers that are cut off take none: `most` bounds them.
    pub(super) fn lose(&self, pool: &Name, origin: &Name, lost: Vec<Lost>, most: usize) {
        let key = (Arc::clone(pool), Arc::clone(origin));
        let mut all = self.lost();
        let all = all.entry(key).or_default();
        all.extend(lost);
        let excess = all.len().saturating_sub(most);
        all.drain(..excess);
    }

    fn lost(&self) -> MutexGuard<'_, LostByName> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn remember(&self, question: &Question, endpoints: &[Endpoint]) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.insert(question.clone(), endpoints.to_vec());
    }
}

/// One broker.
#[derive(Debug)]
pub struct State {
    pool: Name,
    broker: Name,
    /// From the choice on, so that a storm does not find an empty broker before its first session is there.
    sessions: AtomicUsize,
    /// A session tries it after an ejection.
    tried: AtomicBool,
    off: AtomicBool,
    pub places: Places,
    /// Its sessions, for a drain of this broker alone.
    pub(super) group: Group,
    pub(super) series: Series,
    registry: Arc<Mutex<States>>,
    health: Mutex<Health>,
    seen: Mutex<Seen>,
    ejections: Counter,
    notice_seconds: Histogram,
    gauges: [prometheus_client::metrics::gauge::Gauge; Condition::ALL.len()],
}

/// What people are shown beside its health.
#[derive(Debug)]
struct Seen {
    condition: Condition,
    since: SystemTime,
    trouble: Option<Trouble>,
}

/// What went wrong last.
#[derive(Debug, Clone)]
pub struct Trouble {
    pub at: SystemTime,
    pub text: String,
}

impl State {
    fn new(pool: &Name, broker: &Name, metrics: &Metrics, registry: Arc<Mutex<States>>) -> Self {
        let labels = ByBroker {
            pool: Arc::clone(pool),
            broker: Arc::clone(broker),
        };
        let by_pool = ByPool {
            pool: Arc::clone(pool),
        };
        let gauge = |condition: Condition| {
            let labels = ByBrokerState {
                pool: Arc::clone(pool),
                broker: Arc::clone(broker),
                state: condition.name(),
            };
            metrics.brokers.state.get_or_create_owned(&labels)
        };
        let state = Self {
            pool: Arc::clone(pool),
            broker: Arc::clone(broker),
            sessions: AtomicUsize::new(0),
            tried: AtomicBool::new(false),
            off: AtomicBool::new(false),
            places: Places::default(),
            group: Group::default(),
            series: Series::new(pool, broker, metrics),
            registry,
            health: Mutex::default(),
            seen: Mutex::new(Seen {
                condition: Condition::Up,
                since: SystemTime::now(),
                trouble: None,
            }),
            ejections: metrics.brokers.ejections.get_or_create_owned(&labels),
            notice_seconds: metrics.brokers.notice_seconds.get_or_create_owned(&by_pool),
            gauges: Condition::ALL.map(gauge),
        };
        state.show(&state.health());
        state
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A snapshot with this `down` for it came into force.
    pub fn turn(&self, off: bool) {
        self.off.store(off, Ordering::Relaxed);
        self.show(&self.health());
    }

    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    pub fn condition(&self) -> Condition {
        self.health().condition()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state that the metrics tell, since when, and what went wrong last.
    pub(super) fn shown(&self) -> (Condition, SystemTime, Option<Trouble>) {
        let seen = self.seen();
        (seen.condition, seen.since, seen.trouble.clone())
    }

    /// Something went wrong there, whoever is to blame.
    pub(super) fn trouble(&self, why: &dyn Display) {
        let trouble = Trouble {
            at: SystemTime::now(),
            text: why.to_string(),
        };
        self.seen().trouble = Some(trouble);
    }

    /// Condition; whether a session may try it although it is ejected; warmth.
    pub fn look(&self, now: Instant, slow_start: Duration) -> (Condition, bool, f64) {
        let health = self.health();
        let due = health.is_due(now) && !self.tried.load(Ordering::Relaxed);
        (health.condition(), due, health.warmth(now, slow_start))
    }

    /// Counts a session in; `false` at `max`.
    pub fn enter(&self, max: Option<usize>) -> bool {
        let more = |sessions: usize| max.is_none_or(|max| sessions < max).then(|| sessions + 1);
        self.sessions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    pub fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// `false` when another session is at it.
    pub fn try_out(&self) -> bool {
        !self.tried.swap(true, Ordering::Relaxed)
    }

    pub fn tried_out(&self) {
        self.tried.store(false, Ordering::Relaxed);
    }

    /// A session failed there.
    pub fn failed(&self, begun: Instant, why: &dyn Display, eject: &Eject, others: bool) {
        self.trouble(why);
        let mut health = self.health();
        let change = health.failed(Instant::now(), begun, eject, others);
        self.changed(&health, change, why);
    }

    /// A session was answered there.
    pub fn succeeded(&self) {
        let mut health = self.health();
        let change = health.succeeded(Instant::now());
        self.changed(&health, change, &"it has answered");
    }

    pub fn probed(&self, begun: Instant, sign: Sign, why: &dyn Display, probe: &Probe) {
        if sign == Sign::Bad {
            self.trouble(why);
        }
        let mut health = self.health();
        let change = health.probed(Instant::now(), begun, sign, probe);
        self.changed(&health, change, why);
    }

    fn changed(&self, health: &Health, change: Option<Change>, why: &dyn Display) {
        if let Some(change) = change {
            self.show(health);
            self.tell(change, why);
        }
    }

    fn show(&self, health: &Health) {
        let condition = match self.off.load(Ordering::Relaxed) {
            true => Condition::Off,
            false => health.condition(),
        };
        let mut seen = self.seen();
        if seen.condition != condition {
            (seen.condition, seen.since) = (condition, SystemTime::now());
        }
        drop(seen);
        for (gauge, each) in self.gauges.iter().zip(Condition::ALL) {
            gauge.set(i64::from(each == condition));
        }
    }

    /// Servers of web applications are known by their URLs.
    fn what(&self) -> &'static str {
        let url = self
            .broker
            .trim_start_matches("unix+")
            .trim_start_matches("srv+");
        match url.starts_with("http") {
            true => "server",
            false => "broker",
        }
    }

    fn tell(&self, change: Change, why: &dyn Display) {
        let (pool, broker) = (&*self.pool, &*self.broker);
        let what = self.what();
        match change {
            Change::Ejected {
                time,
                failures,
                noticed,
            } => {
                self.ejections.inc();
                self.notice_seconds.observe(noticed.after.as_secs_f64());
                tracing::warn!(
                    pool,
                    broker,
                    failures,
                    reason = %why,
                    "{what} ejected for {} s, {}",
                    time.as_secs_f64(),
                    after(noticed)
                );
            }
            Change::Kept { failures } => tracing::warn!(
                pool,
                broker,
                failures,
                reason = %why,
                "{what} fails, but it is not ejected: no other is left"
            ),
            Change::Down { failures, noticed } => {
                self.notice_seconds.observe(noticed.after.as_secs_f64());
                tracing::warn!(pool, broker, failures, reason = %why, "{what} down, {}", after(noticed));
            }
            Change::Draining { noticed } => {
                self.notice_seconds.observe(noticed.after.as_secs_f64());
                tracing::info!(pool, broker, reason = %why, "{what} drains: it takes no new sessions, {}", after(noticed));
            }
            Change::Back { after } => tracing::info!(
                pool,
                broker,
                reason = %why,
                "{what} is back after {:.1} s",
                after.as_secs_f64()
            ),
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let mut states = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Arc::clone(&self.pool), Arc::clone(&self.broker));
        // Another may have been made for the same broker since: then the series are its own.
        if states
            .get(&key)
            .is_none_or(|state| state.strong_count() == 0)
        {
            states.remove(&key);
            self.series.remove();
        }
    }
}

fn after(noticed: Noticed) -> String {
    let well = match noticed.well {
        Some(well) => format!(" ({:.1} s after it was last well)", well.as_secs_f64()),
        None => String::new(),
    };
    format!("noticed after {:.3} s{well}", noticed.after.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const EJECT: Eject = Eject {
        failures: 3,
        time: Duration::from_secs(10),
        longest: Duration::from_secs(60),
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reload_finds_the_state_again_and_a_broker_that_is_gone_is_forgotten() {
        let (registry, metrics) = (Registry::default(), Metrics::new(1));
        let [pool, one, other] = ["p", "ws://a", "ws://b"].map(Name::from);
        let before = registry.state(&pool, &one, &metrics);
        for _ in 0..3 {
            before.failed(Instant::now(), &"refused", &EJECT, true);
        }
        let after = registry.state(&pool, &one, &metrics);
        assert_eq!(after.condition(), Condition::Ejected);
        drop((before, after));
        assert_eq!(
            registry.state(&pool, &one, &metrics).condition(),
            Condition::Up
        );
        let _known = registry.state(&pool, &other, &metrics);
        assert_eq!(registry.states.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_says_why_and_how_soon_it_was_noticed() {
        let (registry, metrics) = (Registry::default(), Metrics::new(1));
        let state = registry.state(&"p".into(), &"ws://a".into(), &metrics);
        let lines = Lines::default();
        let log = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || log.clone())
            .finish();
        let _logging = tracing::subscriber::set_default(subscriber);
        state.succeeded();
        tokio::time::advance(Duration::from_secs(2)).await;
        let begun = Instant::now();
        tokio::time::advance(Duration::from_millis(1500)).await;
        for _ in 0..3 {
            state.failed(begun, &"connection refused", &EJECT, true);
        }
        state.succeeded();
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for part in [
            "broker ejected for 10 s, noticed after 1.500 s (3.5 s after it was last well)",
            "failures=3 reason=connection refused",
            "broker is back after 0.0 s",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_broker_that_nobody_knows_any_more_leaves_no_series() {
        let (pool, broker) = (Name::from("p"), Name::from("mqtt://192.0.2.7:1883"));
        let (metrics, registry) = (Metrics::new(1), Registry::default());
        let told = || metrics.encode().unwrap().contains("192.0.2.7");
        let first = registry.state(&pool, &broker, &metrics);
        first.series.failed("refused");
        first.series.probed("ok");
        let again = registry.state(&pool, &broker, &metrics);
        drop(first);
        assert!(told());
        drop(again);
        assert!(!told(), "{}", metrics.encode().unwrap());
    }
}
