//! What is known inside, in the words of `/status.json`.

use super::history::unix;
use super::report;
use crate::certificates::Expiry;
use crate::pool::{BrokerView, PoolView, Trouble};
use crate::telemetry::metrics::Name;
use crate::telemetry::{Ending, Notice};

pub(super) fn of_pool(pool: PoolView) -> report::Pool {
    let sessions: usize = pool.brokers.iter().map(|broker| broker.sessions).sum();
    let in_turn = |broker: &BrokerView| broker.takes_sessions && !broker.backup;
    let taking = pool.brokers.iter().filter(|broker| in_turn(broker));
    let weights: u64 = taking.map(|broker| u64::from(broker.weight)).sum();
    let part = |of: f64, whole: f64| if whole > 0.0 { of / whole } else { 0.0 };
    let broker = |broker: BrokerView| report::Broker {
        url: broker.label.to_string(),
        state: broker.state.to_owned(),
        since: unix(broker.since),
        weight: broker.weight,
        backup: broker.backup,
        sessions: broker.sessions as u64,
        max_sessions: broker.max_sessions.map(|max| max as u64),
        share: part(broker.sessions as f64, sessions as f64),
        weight_share: match in_turn(&broker) {
            true => part(f64::from(broker.weight), weights as f64),
            false => 0.0,
        },
        joined: broker.joined,
        last_error: broker.trouble.map(of_trouble),
    };
    report::Pool {
        name: pool.name.to_string(),
        balance: pool.balance.to_owned(),
        sessions: sessions as u64,
        waiting: pool.waiting as u64,
        brokers: pool.brokers.into_iter().map(broker).collect(),
    }
}

fn of_trouble(trouble: Trouble) -> report::Trouble {
    report::Trouble {
        at: unix(trouble.at),
        text: trouble.text,
    }
}

pub(super) fn of_expiry(expiry: &Expiry) -> report::Certificate {
    report::Certificate {
        kind: expiry.kind.name().to_owned(),
        names: expiry.names.clone(),
        issuer: expiry.issuer.clone(),
        file: expiry.file.display().to_string(),
        not_after: unix(expiry.not_after),
    }
}

pub(super) fn of_ending(ending: Ending) -> report::Outcome {
    let named = |name: Option<Name>| name.map(|name| name.to_string());
    report::Outcome {
        number: ending.number,
        at: unix(ending.at),
        unusual: ending.notice == Notice::Unusual,
        who: ending.who.to_owned(),
        phase: ending.phase.to_owned(),
        why: ending.why.to_owned(),
        text: ending.text,
        client: ending.client.to_string(),
        client_id: ending.client_id,
        user_name: ending.user_name,
        listener: ending.listener.to_string(),
        pool: named(ending.pool),
        broker: named(ending.broker),
        seconds: ending.seconds,
    }
}

/// A gauge of things that are there is never below zero for longer than a moment.
pub(super) fn whole(gauge: i64) -> u64 {
    u64::try_from(gauge).unwrap_or(0)
}
