//! Checks pools and their brokers, and applies what a broker kind means.

use std::collections::BTreeMap;

use super::check::Findings;
use super::check_announcement::{announcement, source_addresses};
use super::check_health::{Nouns, balance, eject, on_removed, probe, queue, somebody_serves};
use super::check_listeners::connect_identity;
use super::model::{
    Broker, BrokerTls, CertificateFiles, Forwarded, ForwardedPort, HostHeader, Lookup, Pool,
    Transport, Trust,
};
use super::raw;
use super::raw_announcement;
use super::raw_announcement::BrokerPath;

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
    let kind = raw.kind.row();
    let announcement = announcement(&raw, kind, &key, findings);
    let path = match &raw.path {
        Some(BrokerPath::Fixed(path)) => Path::Always(path),
        Some(BrokerPath::Keep) | None => Path::UnlessGiven(kind.path),
    };
    let brokers = brokers(raw.brokers, path, &key, findings);
    let nouns = Nouns {
        server: "broker",
        work: "sessions",
    };
    somebody_serves(&brokers, nouns, &format!("{key}.brokers"), findings);
    let tls_key = format!("{key}.tls");
    if findings.places.has(&tls_key) && !brokers.iter().any(|broker| broker.transport.is_tls()) {
        findings.warning(
            &tls_key,
            "not used: no broker of this pool is wss or mqtts",
            "remove it, or change the scheme of a broker",
        );
    }
    let tls = tls(raw.tls, &tls_key, findings);
    Pool {
        kind: raw.kind,
        balance: balance(raw.balance),
        slow_start: raw.slow_start.0,
        connect_rate: raw.connect_rate,
        queue: queue(&raw.queue, &key, findings),
        eject: eject(&raw.eject, &key, findings),
        on_removed: on_removed(raw.on_removed, &brokers, &key, findings),
        probe: probe(raw.probe, &brokers, &key, findings),
        subprotocol: raw
            .subprotocol
            .map_or_else(|| kind.subprotocol.to_owned(), |token| token.0),
        host: match raw.host.0.as_str() {
            "broker" => HostHeader::Broker,
            "client" => HostHeader::Client,
            fixed => HostHeader::Fixed(fixed.to_owned()),
        },
        forwarded: Forwarded {
            enabled: raw.forwarded.enabled,
            port: match raw.forwarded.port {
                Some(raw_announcement::ForwardedPort::Client) => ForwardedPort::Client,
                Some(raw_announcement::ForwardedPort::Listener) => ForwardedPort::Listener,
                None => kind.forwarded_port,
            },
        },
        announcement,
        source_addresses: source_addresses(&raw.source_addresses, &brokers, &key, findings),
        connect_identity: connect_identity(raw.user_name, raw.client_id),
        place: findings.places.of(&key),
        tls,
        brokers,
        name,
    }
}

/// Which path the brokers of a pool are asked for.
#[derive(Clone, Copy)]
enum Path<'a> {
    Always(&'a str),
    /// By the URL.
    UnlessGiven(&'a str),
}

fn brokers(
    raw: Vec<raw::Broker>,
    path_of_pool: Path<'_>,
    key: &str,
    findings: &mut Findings<'_>,
) -> Vec<Broker> {
    let mut known = BTreeMap::new();
    let mut brokers = Vec::with_capacity(raw.len());
    for (index, raw) in raw.into_iter().enumerate() {
        let url = raw.url;
        let key = format!("{key}.brokers[{index}].url");
        let path = match (path_of_pool, url.path) {
            (Path::Always(path), None) => path.to_owned(),
            (Path::Always(path), Some(given)) => {
                if given != path {
                    findings.warning(
                        &key,
                        format!("its path is not used: the pool's `path` is `{path}`"),
                        "keep one of them",
                    );
                }
                path.to_owned()
            }
            (Path::UnlessGiven(_), Some(path)) => path,
            (Path::UnlessGiven(path), None) => path.to_owned(),
        };
        let path_matters = url.transport.is_websocket().then(|| path.clone());
        let place = match &url.lookup {
            Lookup::Socket(socket) => socket.display().to_string(),
            Lookup::Nothing(_) | Lookup::Addresses | Lookup::Services => url.host.clone(),
        };
        let address = (place, url.port, url.transport.is_tls(), path_matters);
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
            connect_rate: raw.connect_rate,
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
        Transport::Http => "http",
        Transport::Https => "https",
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

pub(super) fn tls(raw: raw::BrokerTls, key: &str, findings: &mut Findings<'_>) -> BrokerTls {
    let ca = format!("{key}.ca");
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
    let certificate = match (raw.certificate, raw.key) {
        (Some(chain), Some(private)) => Some(CertificateFiles {
            chain: chain.0.into(),
            chain_place: findings.places.of(&format!("{key}.certificate")),
            key: private.0.into(),
            key_place: findings.places.of(&format!("{key}.key")),
        }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            let help = "a client certificate is two files: `certificate` and `key`";
            findings.problem(key, "has only one of `certificate` and `key`", help);
            None
        }
    };
    BrokerTls {
        trust,
        server_name: raw.server_name.map(|name| name.0),
        certificate,
        place: findings.places.of(match findings.places.has(&ca) {
            true => &ca,
            false => key,
        }),
    }
}
