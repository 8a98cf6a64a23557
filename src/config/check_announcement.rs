//! Checks how a pool tells its brokers who a client is, and where its connections come from.

use std::net::IpAddr;

use super::announcement::{Announcement, AskedPath, ProxyVersion, is_ours};
use super::check::Findings;
use super::kinds::Kind;
use super::model::{Broker, Lookup};
use super::names::Token;
use super::raw;
use super::raw_announcement::{BrokerPath, ProxyProtocol, SourceAddress};
use super::values::Size;

/// Room for what the handshake itself needs; more than any broker takes.
const HEAD: std::ops::RangeInclusive<usize> = (1 << 10)..=(64 << 10);

pub(super) fn announcement(
    raw: &raw::Pool,
    kind: &Kind,
    key: &str,
    findings: &mut Findings<'_>,
) -> Announcement {
    let certificate_header = raw
        .certificate_header
        .as_ref()
        .map(|name| name.0.to_ascii_lowercase());
    if let Some(name) = &certificate_header
        && is_ours(name)
        && name != "x-ssl-client-cn"
    {
        findings.problem(
            &format!("{key}.certificate_header"),
            format!("`{name}` already has a meaning"),
            "x-ssl-client-cn is the name that VerneMQ expects",
        );
    }
    let request_head = raw.request_head.map_or(kind.request_head, |size| size.0);
    if !HEAD.contains(&request_head) {
        let help = format!("from {} to {}", Size(*HEAD.start()), Size(*HEAD.end()));
        findings.problem(
            &format!("{key}.request_head"),
            format!("`{}` is no length for it", Size(request_head)),
            help,
        );
    }
    let websocket = |broker: &raw::Broker| broker.url.transport.is_websocket();
    let unused = ["path", "headers", "cookies", "certificate_header"]
        .map(|name| format!("{key}.{name}"))
        .into_iter()
        .find(|key| findings.places.has(key))
        .filter(|_| !raw.brokers.iter().any(websocket));
    if let Some(key) = unused {
        findings.warning(
            &key,
            "not used: no broker of this pool is ws or wss",
            "MQTT over TCP knows no paths and headers; `proxy_protocol` tells who the client is",
        );
    }
    Announcement {
        proxy_protocol: proxy_protocol(raw.proxy_protocol, kind, key, findings),
        path: match &raw.path {
            None => AskedPath::Broker,
            Some(BrokerPath::Keep) => AskedPath::Client,
            Some(BrokerPath::Fixed(path)) => AskedPath::Fixed(path.clone()),
        },
        headers: headers(
            &raw.headers.pass,
            certificate_header.as_deref(),
            key,
            findings,
        ),
        cookies: raw
            .cookies
            .pass
            .iter()
            .map(|cookie| cookie.0.clone())
            .collect(),
        request_head,
        certificate_header,
    }
}

fn proxy_protocol(
    raw: ProxyProtocol,
    kind: &Kind,
    key: &str,
    findings: &mut Findings<'_>,
) -> Option<ProxyVersion> {
    let version = match raw {
        ProxyProtocol::Off => return None,
        ProxyProtocol::V1 => ProxyVersion::V1,
        ProxyProtocol::V2 => ProxyVersion::V2,
        ProxyProtocol::V2Crc32c => ProxyVersion::V2Crc32c,
    };
    if kind.proxy_protocol.is_none() {
        findings.warning(
            &format!("{key}.proxy_protocol"),
            format!("{} is not known to read it", kind.name),
            "`off`, unless yours does",
        );
    }
    Some(version)
}

fn headers(
    raw: &[Token],
    certificate: Option<&str>,
    key: &str,
    findings: &mut Findings<'_>,
) -> Vec<String> {
    let mut names = Vec::with_capacity(raw.len());
    for (index, name) in raw.iter().enumerate() {
        let name = name.0.to_ascii_lowercase();
        let key = format!("{key}.headers.pass[{index}]");
        let certifies = certificate.is_some_and(|header| header == name.replace('_', "-"));
        if name == "cookie" {
            findings.problem(
                &key,
                "cookies have a list of their own",
                "name them in `cookies: {pass: [...]}`",
            );
        } else if is_ours(&name) || certifies {
            let help = "remove it: a client could claim to be anyone";
            findings.problem(
                &key,
                format!("`{name}` is the gateway's own and never taken from a client"),
                help,
            );
        }
        names.push(name);
    }
    names
}

pub(super) fn source_addresses(
    raw: &[SourceAddress],
    brokers: &[Broker],
    key: &str,
    findings: &mut Findings<'_>,
) -> Vec<IpAddr> {
    let mut known: Vec<IpAddr> = Vec::with_capacity(raw.len());
    for (index, SourceAddress(address)) in raw.iter().enumerate() {
        let key = format!("{key}.source_addresses[{index}]");
        if known.contains(address) {
            findings.problem(
                &key,
                format!("`{address}` stands there twice"),
                "keep one of them",
            );
        }
        known.push(*address);
    }
    let socket = brokers
        .iter()
        .find(|broker| matches!(broker.lookup, Lookup::Socket(_)));
    if let Some(broker) = socket.filter(|_| !known.is_empty()) {
        findings.problem(
            &format!("{key}.source_addresses"),
            format!("no address leads to the Unix socket {}", broker.url),
            "remove it, or give that broker a pool of its own",
        );
        return known;
    }
    let lonely = brokers.iter().find(|broker| {
        let Ok(target) = broker.host.parse::<IpAddr>() else {
            return false;
        };
        !known.is_empty()
            && !known
                .iter()
                .any(|source| source.is_ipv4() == target.is_ipv4())
    });
    if let Some(broker) = lonely {
        findings.warning(
            &format!("{key}.source_addresses"),
            format!("none is of the same family as {}", broker.url),
            "connections to it come from any address",
        );
    }
    known
}
