//! Checks what a pool says about choosing and health: what can never work, what is at odds with another key.

use std::time::Duration;

use super::check::Findings;
use super::model::{Balance, Broker, Eject, Lookup, OnRemoved, Probe, ProbeKind, Queue};
use super::raw_pools as raw;
use super::values::Span;

/// A client waits no longer than that for anything: MQTT.js gives up after 30 s.
const LONGEST_AGE: Duration = Duration::from_secs(60);

/// Ten probes a second of each broker are enough for anyone.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

pub(super) fn balance(raw: raw::Balance) -> Balance {
    match raw {
        raw::Balance::RoundRobin => Balance::RoundRobin,
        raw::Balance::LeastSessions => Balance::LeastSessions,
        raw::Balance::RandomOfTwo => Balance::RandomOfTwo,
        raw::Balance::ClientAddress => Balance::ClientAddress,
        raw::Balance::ClientId => Balance::ClientId,
        raw::Balance::UserName => Balance::UserName,
    }
}

pub(super) fn queue(raw: &raw::Queue, key: &str, findings: &mut Findings<'_>) -> Queue {
    if raw.age.0 > LONGEST_AGE {
        findings.problem(
            &format!("{key}.queue.age"),
            format!("`{}` is longer than any client waits", raw.age),
            "at most `1m`; clients give up after 4 to 60 seconds",
        );
    }
    Queue {
        length: raw.length as usize,
        age: raw.age.0,
    }
}

pub(super) fn eject(raw: &raw::Eject, key: &str, findings: &mut Findings<'_>) -> Eject {
    if raw.time.0.is_zero() {
        findings.problem(
            &format!("{key}.eject.time"),
            "0 would leave a broker out for no time at all",
            "write a duration above 0, or `failures: 0` to eject none",
        );
    }
    if raw.longest.0 < raw.time.0 {
        findings.problem(
            &format!("{key}.eject.longest"),
            format!("`{}` is shorter than `time`", raw.longest),
            format!("at least {}, which `time` is", raw.time),
        );
    }
    Eject {
        failures: raw.failures,
        time: raw.time.0,
        longest: raw.longest.0,
    }
}

pub(super) fn on_removed(
    raw: raw::OnRemoved,
    brokers: &[Broker],
    key: &str,
    findings: &mut Findings<'_>,
) -> OnRemoved {
    let is_asked = |broker: &Broker| match broker.lookup {
        Lookup::Addresses | Lookup::Services => true,
        Lookup::Nothing(_) | Lookup::Socket(_) => false,
    };
    match raw {
        raw::OnRemoved::Keep => OnRemoved::Keep,
        raw::OnRemoved::Drain => {
            if !brokers.iter().any(is_asked) {
                findings.warning(
                    &format!("{key}.on_removed"),
                    "not used: no broker of this pool is found by a name",
                    "remove it, or name brokers by names that a name server knows",
                );
            }
            OnRemoved::Drain
        }
    }
}

pub(super) fn probe(
    raw: raw::Probe,
    brokers: &[Broker],
    key: &str,
    findings: &mut Findings<'_>,
) -> Probe {
    let key = format!("{key}.probe");
    probe_times(&raw, &key, findings);
    let asked = raw.url.is_some() || brokers.iter().all(|broker| broker.probe_url.is_some());
    if raw.kind == ProbeKind::Http && !asked {
        findings.problem(
            &key,
            "kind `http` needs a `url`",
            "EMQX: `url: \"http://{host}:18083/api/v5/load_rebalance/availability_check\"`",
        );
    }
    if matches!(raw.kind, ProbeKind::Tcp | ProbeKind::Mqtt) && raw.url.is_some() {
        findings.warning(
            &format!("{key}.url"),
            "not used: only kind `http` asks a URL",
            "remove it, or write `kind: http`",
        );
    }
    if raw.password.is_some() && raw.user_name.is_none() {
        findings.problem(
            &format!("{key}.password"),
            "stands without a `user_name`",
            "MQTT 3.1.1 knows no password without a user name: add one",
        );
    }
    Probe {
        kind: raw.kind,
        interval: raw.interval.0,
        timeout: raw.timeout.0,
        rise: raw.rise,
        fall: raw.fall,
        client_id: raw.client_id.0,
        user_name: raw.user_name.map(|name| name.0),
        password: raw.password,
        url: raw.url,
    }
}

fn probe_times(raw: &raw::Probe, key: &str, findings: &mut Findings<'_>) {
    if raw.interval.0 < SHORTEST_INTERVAL {
        findings.problem(
            &format!("{key}.interval"),
            format!("`{}` is too short", raw.interval),
            format!("at least {}", Span(SHORTEST_INTERVAL)),
        );
    }
    if raw.timeout.0.is_zero() {
        findings.problem(
            &format!("{key}.timeout"),
            "0 would leave no time at all",
            "write a duration above 0: `2s`",
        );
    }
}

/// What those are called who serve, and what they take.
#[derive(Clone, Copy)]
pub(super) struct Nouns {
    pub server: &'static str,
    pub work: &'static str,
}

/// A pool must have a broker that takes sessions, and one that does so before its backups; so must an application.
pub(super) fn somebody_serves(
    brokers: &[Broker],
    Nouns { server, work }: Nouns,
    key: &str,
    findings: &mut Findings<'_>,
) {
    if brokers.is_empty() {
        return;
    }
    if brokers.iter().all(|broker| broker.weight == 0) {
        findings.problem(
            key,
            format!("no {server} takes {work}: every `weight` is 0"),
            "give one of them a weight of at least 1",
        );
    } else if brokers.iter().all(|broker| broker.backup) {
        findings.problem(
            key,
            format!("every {server} is a `backup`: of which?"),
            format!("remove `backup` from those that {work} shall go to"),
        );
    } else if brokers
        .iter()
        .all(|broker| broker.weight == 0 || broker.down)
    {
        findings.problem(
            key,
            format!("no {server} takes {work}: each has `down: true` or `weight: 0`"),
            "leave one of them in",
        );
    }
}
