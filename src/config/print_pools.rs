//! A pool of the effective configuration, for `print`.

use serde::Serialize;
use serde_json::{Value, json};

use super::announcement::{AskedPath, ProxyVersion};
use super::model::{
    Broker, BrokerTls, ConnectClientId, ConnectUserName, ForwardedPort, HostHeader, OnRemoved,
    Pool, Probe, Trust,
};
use super::values::{Size, Span};

pub(super) fn pool(pool: &Pool) -> Value {
    let brokers = pool.brokers.iter().map(broker);
    let host = match &pool.host {
        HostHeader::Broker => "broker",
        HostHeader::Client => "client",
        HostHeader::Fixed(value) => value,
    };
    let port = match pool.forwarded.port {
        ForwardedPort::Listener => "listener",
        ForwardedPort::Client => "client",
    };
    let user_name = match pool.connect_identity.user_name {
        ConnectUserName::Client => "client",
        ConnectUserName::CertificateCommonName => "certificate_common_name",
        ConnectUserName::CertificateSubject => "certificate_subject",
    };
    let client_id = match pool.connect_identity.client_id {
        ConnectClientId::Client => "client",
        ConnectClientId::CertificateCommonName => "certificate_common_name",
    };
    let announcement = &pool.announcement;
    // Where no broker speaks TLS the section would be read with a warning, so only what somebody wrote is shown.
    let is_used = pool.brokers.iter().any(|broker| broker.transport.is_tls())
        || pool.tls.trust != Trust::System
        || pool.tls.certificate.is_some()
        || pool.tls.server_name.is_some();
    let tls = is_used.then(|| tls(&pool.tls));
    json!({
        "kind": pool.kind,
        "balance": pool.balance.name(),
        "slow_start": Span(pool.slow_start).to_string(),
        "connect_rate": pool.connect_rate,
        "queue": { "length": pool.queue.length, "age": Span(pool.queue.age).to_string() },
        "eject": {
            "failures": pool.eject.failures,
            "time": Span(pool.eject.time).to_string(),
            "longest": Span(pool.eject.longest).to_string(),
        },
        "on_removed": match pool.on_removed {
            OnRemoved::Keep => "keep",
            OnRemoved::Drain => "drain",
        },
        "probe": probe(&pool.probe),
        "host": host,
        "subprotocol": pool.subprotocol,
        "forwarded": { "enabled": pool.forwarded.enabled, "port": port },
        "path": match &announcement.path {
            AskedPath::Broker => None,
            AskedPath::Client => Some("keep"),
            AskedPath::Fixed(path) => Some(path.as_str()),
        },
        "proxy_protocol": match announcement.proxy_protocol {
            None => "off",
            Some(ProxyVersion::V1) => "v1",
            Some(ProxyVersion::V2) => "v2",
            Some(ProxyVersion::V2Crc32c) => "v2_crc32c",
        },
        "headers": passed(&announcement.headers),
        "cookies": passed(&announcement.cookies),
        "certificate_header": announcement.certificate_header,
        "request_head": Size(announcement.request_head).to_string(),
        "source_addresses": pool.source_addresses,
        "user_name": user_name,
        "client_id": client_id,
        "tls": tls,
        "brokers": brokers.collect::<Value>(),
    })
}

pub(super) fn tls(tls: &BrokerTls) -> Value {
    let ca = match &tls.trust {
        Trust::Ca(file) => Some(file),
        Trust::System | Trust::Anyone => None,
    };
    let certificate = tls.certificate.as_ref();
    json!({
        "ca": ca,
        "verify": tls.trust != Trust::Anyone,
        "server_name": tls.server_name,
        "certificate": certificate.map(|files| &files.chain),
        "key": certificate.map(|files| &files.key),
    })
}

/// A pool without ws brokers would be warned of the section, so only what somebody wrote is shown.
fn passed<T: Serialize>(names: &[T]) -> Option<Value> {
    (!names.is_empty()).then(|| json!({ "pass": names }))
}

fn broker(broker: &Broker) -> Value {
    json!({
        "url": broker.url,
        "weight": broker.weight,
        "backup": broker.backup,
        "down": broker.down,
        "max_sessions": broker.max_sessions,
        "connect_rate": broker.connect_rate,
        "probe_url": broker.probe_url.as_ref().map(|url| &url.text),
    })
}

fn probe(probe: &Probe) -> Value {
    json!({
        "kind": probe.kind,
        "interval": Span(probe.interval).to_string(),
        "timeout": Span(probe.timeout).to_string(),
        "rise": probe.rise,
        "fall": probe.fall,
        "client_id": probe.client_id,
        "user_name": probe.user_name,
        "password": probe.password.as_ref().map(ToString::to_string),
        "url": probe.url.as_ref().map(|url| &url.text),
    })
}
