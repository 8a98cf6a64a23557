//! Checks what a route says about a web application. Its servers become a pool like any other: found, chosen and ejected by
//! the same code.

use std::collections::BTreeMap;
use std::time::Duration;

use super::announcement::{Announcement, AskedPath};
use super::application_url::ApplicationUrl;
use super::check::Findings;
use super::check_health::{Nouns, eject, probe, somebody_serves};
use super::check_pools::tls;
use super::model::{
    Application, ApplicationTimeouts, Balance, Broker, BrokerKind, BrokerTls, ConnectIdentity,
    Eject, Forwarded, ForwardedPort, HostHeader, KeepAlive, Lookup, OnRemoved, Pool, Queue,
};
use super::raw_applications as raw;
use super::raw_pools;
use super::values::Span;

/// `name` is the route's host and path: the application's in logs and metrics.
pub(super) fn application(
    raw: raw::Proxy,
    name: String,
    key: &str,
    findings: &mut Findings<'_>,
) -> Application {
    let key = format!("{key}.proxy");
    let raw = match raw {
        raw::Proxy::To(application) => *application,
        raw::Proxy::Url(url) => raw::Application::at(url),
    };
    let servers = servers(raw.to.0, &key, findings);
    let nouns = Nouns {
        server: "server",
        work: "requests",
    };
    somebody_serves(&servers, nouns, &format!("{key}.to"), findings);
    let tls_key = format!("{key}.tls");
    if findings.places.has(&tls_key) && !servers.iter().any(|server| server.transport.is_tls()) {
        findings.warning(
            &tls_key,
            "not used: no server of this application is https",
            "remove it, or change the scheme of a server",
        );
    }
    let host = match raw.host.0.as_str() {
        "application" => HostHeader::Broker,
        "client" => HostHeader::Client,
        fixed => HostHeader::Fixed(fixed.to_owned()),
    };
    let keep_alive = KeepAlive {
        connections: raw.keep_alive.connections as usize,
        idle: above_zero(
            &format!("{key}.keep_alive.idle"),
            raw.keep_alive.idle,
            findings,
        ),
    };
    let timeouts = timeouts(&raw.timeouts, &key, findings);
    let tls = tls(raw.tls, &tls_key, findings);
    let eject = raw_pools::Eject {
        failures: raw.eject.failures,
        time: raw.eject.time,
        longest: raw.eject.longest,
    };
    let eject = self::eject(&eject, &key, findings);
    Application {
        path: raw.path,
        host: host.clone(),
        request_body: raw.request_body.map(|size| size.0 as u64),
        timeouts,
        keep_alive,
        servers: pool(name, raw.balance, host, eject, tls, servers, &key, findings),
    }
}

impl raw::Application {
    /// What the short form stands for.
    fn at(url: ApplicationUrl) -> Self {
        Self {
            to: raw::Servers(vec![raw::Server::at(url)]),
            balance: raw::ApplicationBalance::default(),
            path: raw::ApplicationPath::default(),
            host: raw::host_of_client(),
            request_body: None,
            timeouts: raw::ApplicationTimeouts::default(),
            keep_alive: raw::KeepAlive::default(),
            eject: raw::ApplicationEject::default(),
            tls: super::raw::BrokerTls::default(),
        }
    }
}

fn servers(raw: Vec<raw::Server>, key: &str, findings: &mut Findings<'_>) -> Vec<Broker> {
    let mut known = BTreeMap::new();
    let mut servers = Vec::with_capacity(raw.len());
    for (index, server) in raw.into_iter().enumerate() {
        let listed = format!("{key}.to[{index}]");
        let url = server.url;
        let place = match &url.lookup {
            Lookup::Socket(socket) => socket.display().to_string(),
            Lookup::Nothing(_) | Lookup::Addresses | Lookup::Services => url.host.clone(),
        };
        if let Some(line) = known.insert((place, url.port), findings.line(&listed)) {
            findings.problem(
                &listed,
                format!("the same server as in line {line}"),
                "name it once; `weight` gives it a larger share",
            );
        }
        servers.push(Broker {
            url: url.text,
            transport: url.transport,
            host: url.host,
            port: url.port,
            lookup: url.lookup,
            path: String::new(),
            weight: server.weight,
            backup: server.backup,
            down: server.down,
            max_sessions: server.max_requests,
            connect_rate: None,
            probe_url: None,
            place: findings.places.of(&listed),
        });
    }
    servers
}

fn timeouts(
    raw: &raw::ApplicationTimeouts,
    key: &str,
    findings: &mut Findings<'_>,
) -> ApplicationTimeouts {
    let mut some =
        |name: &str, span: Span| above_zero(&format!("{key}.timeouts.{name}"), span, findings);
    ApplicationTimeouts {
        connect: some("connect", raw.connect),
        head: some("head", raw.head),
        stall: some("stall", raw.stall),
    }
}

/// What only brokers have is left at rest: no rate, no queue, no probe, no PROXY header.
#[expect(clippy::too_many_arguments, reason = "the parts of one value")]
fn pool(
    name: String,
    balance: raw::ApplicationBalance,
    host: HostHeader,
    eject: Eject,
    tls: BrokerTls,
    servers: Vec<Broker>,
    key: &str,
    findings: &mut Findings<'_>,
) -> Pool {
    Pool {
        name,
        kind: BrokerKind::Generic,
        balance: match balance {
            raw::ApplicationBalance::RoundRobin => Balance::RoundRobin,
            raw::ApplicationBalance::LeastRequests => Balance::LeastSessions,
            raw::ApplicationBalance::RandomOfTwo => Balance::RandomOfTwo,
            raw::ApplicationBalance::ClientAddress => Balance::ClientAddress,
        },
        // A server that is empty gets many requests, but each is short: its share evens out by itself.
        slow_start: Duration::ZERO,
        connect_rate: 0,
        queue: Queue {
            length: 0,
            age: Duration::ZERO,
        },
        eject,
        on_removed: OnRemoved::Keep,
        probe: probe(raw_pools::Probe::default(), &[], key, findings),
        tls,
        subprotocol: String::new(),
        host,
        forwarded: Forwarded {
            enabled: true,
            port: ForwardedPort::Listener,
        },
        announcement: Announcement {
            proxy_protocol: None,
            path: AskedPath::Client,
            headers: Vec::new(),
            cookies: Vec::new(),
            request_head: 0,
            certificate_header: None,
        },
        source_addresses: Vec::new(),
        connect_identity: ConnectIdentity::default(),
        place: findings.places.of(key),
        brokers: servers,
    }
}

fn above_zero(key: &str, span: Span, findings: &mut Findings<'_>) -> Duration {
    if span.0.is_zero() {
        findings.problem(
            key,
            "0 would leave no time at all",
            "write a duration above 0: `10s`",
        );
    }
    span.0
}
