//! Checks pools and their brokers, and applies what a broker kind means.

use std::collections::BTreeMap;

use super::check::Findings;
use super::check_health::{balance, eject, probe, queue, somebody_serves};
use super::model::{
    Broker, BrokerKind, BrokerTls, Forwarded, ForwardedPort, HostHeader, Pool, Transport, Trust,
};
use super::raw;

/// The row of defaults of one broker kind. Sources: each broker's own schema and documentation.
struct KindDefaults {
    path: &'static str,
    forwarded_port: ForwardedPort,
}

fn defaults(kind: BrokerKind) -> KindDefaults {
    let (path, forwarded_port) = match kind {
        BrokerKind::Emqx => ("/mqtt", ForwardedPort::Client),
        BrokerKind::Rabbitmq => ("/ws", ForwardedPort::Listener),
        BrokerKind::Generic
        | BrokerKind::Mosquitto
        | BrokerKind::Vernemq
        | BrokerKind::Hivemq
        | BrokerKind::Nanomq
        | BrokerKind::Artemis => ("/mqtt", ForwardedPort::Listener),
    };
    KindDefaults {
        path,
        forwarded_port,
    }
}

/// In file order.
pub(super) fn pools(raw: BTreeMap<String, raw::Pool>, findings: &mut Findings<'_>) -> Vec<Pool> {
    let mut raw: Vec<(String, raw::Pool)> = raw.into_iter().collect();
    raw.sort_by_key(|(name, _)| {
        let place = findings.places.of(&format!("pools.{name}"));
        (place.line, place.column)
    });
    raw.into_iter()
        .map(|(name, raw)| pool(name, raw, findings))
        .collect()
}

fn pool(name: String, raw: raw::Pool, findings: &mut Findings<'_>) -> Pool {
    let key = format!("pools.{name}");
    let kind = defaults(raw.kind);
    let brokers = brokers(raw.brokers, kind.path, &key, findings);
    somebody_serves(&brokers, &key, findings);
    let tls = tls(raw.tls, &brokers, &key, findings);
    Pool {
        kind: raw.kind,
        balance: balance(raw.balance),
        slow_start: raw.slow_start.0,
        connect_rate: raw.connect_rate,
        queue: queue(&raw.queue, &key, findings),
        eject: eject(&raw.eject, &key, findings),
        probe: probe(raw.probe, &brokers, &key, findings),
        subprotocol: raw.subprotocol.0,
        host: match raw.host.0.as_str() {
            "broker" => HostHeader::Broker,
            "client" => HostHeader::Client,
            fixed => HostHeader::Fixed(fixed.to_owned()),
        },
        forwarded: Forwarded {
            enabled: raw.forwarded.enabled,
            port: match raw.forwarded.port {
                Some(raw::ForwardedPort::Client) => ForwardedPort::Client,
                Some(raw::ForwardedPort::Listener) => ForwardedPort::Listener,
                None => kind.forwarded_port,
            },
        },
        place: findings.places.of(&key),
        tls,
        brokers,
        name,
    }
}

fn brokers(
    raw: Vec<raw::Broker>,
    default_path: &str,
    key: &str,
    findings: &mut Findings<'_>,
) -> Vec<Broker> {
    let mut known = BTreeMap::new();
    let mut brokers = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let url = raw.url;
        let key = format!("{key}.brokers[{index}].url");
        let path = url.path.unwrap_or_else(|| default_path.to_owned());
        let path_matters = url.transport.is_websocket().then(|| path.clone());
        let address = (
            url.host.clone(),
            url.port,
            url.transport.is_tls(),
            path_matters,
        );
        if let Some(line) = known.insert(address, findings.line(&key)) {
            findings.problem(
                &key,
                format!("the same broker as in line {line}"),
                "name it once; `weight` gives it a larger share",
            );
        }
        if let Some((suspicion, help)) = suspicion(url.transport, url.port) {
            findings.warning(&key, suspicion, help);
        }
        brokers.push(Broker {
            url: url.text,
            transport: url.transport,
            host: url.host,
            port: url.port,
            lookup: url.lookup,
            path,
            weight: raw.weight,
            backup: raw.backup,
            down: raw.down,
            max_sessions: raw.max_sessions,
            probe_url: raw.probe_url,
            place: findings.places.of(&key),
        });
    }
    brokers
}

/// A scheme on a port where brokers usually speak something else. Any port may be mapped to any other, so it is no problem.
fn suspicion(transport: Transport, port: u16) -> Option<(String, String)> {
    let usual = match port {
        1883 => (Transport::Mqtt, "MQTT over TCP"),
        8883 => (Transport::Mqtts, "MQTT over TLS"),
        8083 | 9001 => (Transport::Ws, "WebSocket without TLS"),
        8084 => (Transport::Wss, "WebSocket over TLS"),
        8884 if transport == Transport::Mqtts => {
            let message =
                "port 8884 is an old misprint: brokers speak MQTT over TLS on 8883".to_owned();
            return Some((message, "did you mean `:8883`?".to_owned()));
        }
        _ => return None,
    };
    let scheme = |transport: Transport| match transport {
        Transport::Ws => "ws",
        Transport::Wss => "wss",
        Transport::Mqtt => "mqtt",
        Transport::Mqtts => "mqtts",
    };
    let (expected, speech) = usual;
    (expected != transport).then(|| {
        let message = format!(
            "brokers usually speak {speech} on port {port}, not {}",
            scheme(transport)
        );
        (
            message,
            format!("did you mean `{}://`, or another port?", scheme(expected)),
        )
    })
}

fn tls(
    raw: raw::BrokerTls,
    brokers: &[Broker],
    key: &str,
    findings: &mut Findings<'_>,
) -> BrokerTls {
    let key = format!("{key}.tls");
    if findings.places.has(&key) && !brokers.iter().any(|broker| broker.transport.is_tls()) {
        findings.warning(
            &key,
            "not used: no broker of this pool is wss or mqtts",
            "remove it, or change the scheme of a broker",
        );
    }
    let trust = match (raw.ca, raw.verify) {
        (Some(ca), true) => Trust::Ca(ca.0.into()),
        (None, true) => Trust::System,
        (None, false) => Trust::Anyone,
        (Some(ca), false) => {
            findings.problem(
                &format!("{key}.verify"),
                "`false` makes `ca` meaningless",
                "keep one: `ca` to know the broker, `verify: false` to trust anyone",
            );
            Trust::Ca(ca.0.into())
        }
    };
    BrokerTls {
        trust,
        server_name: raw.server_name.map(|name| name.0),
        place: findings.places.of(&key),
    }
}
