//! Checks limits, timeouts and drain: what is too small, too large, or at odds with another.

use std::num::NonZeroUsize;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};

use super::check::Findings;
use super::model::{Drain, Limits, Timeouts};
use super::raw_bounds as raw;
use super::values::{Count, Size, Span};

/// Where MQTT itself ends: 5 bytes of fixed header and the largest Remaining Length (MQTT 5 1.5.5).
const MAX_PACKET: usize = 268_435_460;

/// hyper refuses to read heads with less.
const MIN_HEAD: usize = 8 << 10;
const MAX_HEAD: usize = 1 << 20;

/// Fits the CONNECT of a client with a name of ordinary length.
const MIN_CONNECT: usize = 256;
const MIN_FRAME: usize = 1 << 10;

/// A client id is an MQTT string (MQTT 5 1.5.4).
const MAX_CLIENT_ID: usize = 65_535;

/// Open files that are not connections: listeners, epoll, logs, certificates being read, probes.
const RESERVED_FILES: u64 = 200;

/// Clients that are sent away faster do nothing but come back.
const SHORTEST_AGE: Duration = Duration::from_secs(1);

/// Where the system names no limit on open files.
const MAX_CONNECTIONS: u64 = 1 << 20;

pub(super) fn limits(raw: &raw::Limits, findings: &mut Findings<'_>) -> Limits {
    let packet = bounded("packet", raw.packet, MIN_FRAME, MAX_PACKET, findings);
    Limits {
        connections: count(raw.connections),
        streams: raw.streams,
        handshakes: count(raw.handshakes),
        handshake_age: above_zero("limits.handshake_age", raw.handshake_age, findings),
        request_head: bounded(
            "request_head",
            raw.request_head,
            MIN_HEAD,
            MAX_HEAD,
            findings,
        ),
        connect: within_packet("connect", raw.connect, MIN_CONNECT, packet, findings),
        packet,
        frame: within_packet("frame", raw.frame, MIN_FRAME, packet, findings),
        client_id: bounded("client_id", raw.client_id, 1, MAX_CLIENT_ID, findings),
    }
}

/// `auto` is what the hard limit on open files allows: every connection may open a second one to a broker.
fn count(count: Count) -> NonZeroUsize {
    let count = match count {
        Count::Exactly(count) => count,
        Count::Auto => {
            let hard = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard);
            let connections = (hard.saturating_sub(RESERVED_FILES) / 2).min(MAX_CONNECTIONS);
            usize::try_from(connections).unwrap_or(usize::MAX)
        }
    };
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

fn bounded(
    name: &str,
    size: Size,
    least: usize,
    most: usize,
    findings: &mut Findings<'_>,
) -> usize {
    if !(least..=most).contains(&size.0) {
        let message = format!(
            "`{size}` is too {}",
            if size.0 < least { "small" } else { "large" }
        );
        findings.problem(
            &format!("limits.{name}"),
            message,
            format!("from {} to {}", Size(least), Size(most)),
        );
    }
    size.0
}

/// A default that is larger than a small `packet` shrinks with it; a value in the file must fit.
fn within_packet(
    name: &str,
    size: Size,
    least: usize,
    packet: usize,
    findings: &mut Findings<'_>,
) -> usize {
    let key = format!("limits.{name}");
    if size.0 > packet && !findings.places.has(&key) {
        return packet;
    }
    if size.0 > packet && packet <= MAX_PACKET {
        let help = format!("at most `packet`, which is {}", Size(packet));
        findings.problem(&key, format!("`{size}` is larger than any packet"), help);
    } else if size.0 < least {
        findings.problem(
            &key,
            format!("`{size}` is too small"),
            format!("at least {}", Size(least)),
        );
    }
    size.0
}

pub(super) fn timeouts(raw: &raw::Timeouts, findings: &mut Findings<'_>) -> Timeouts {
    let mut some = |name: &str, span: Span| above_zero(&format!("timeouts.{name}"), span, findings);
    let timeouts = Timeouts {
        tls: some("tls", raw.tls),
        request: some("request", raw.request),
        connect: some("connect", raw.connect),
        broker_connect: some("broker_connect", raw.broker_connect),
        connack: some("connack", raw.connack),
        join: some("join", raw.join),
        idle_margin: raw.idle_margin.0,
        ping: some("ping", raw.ping),
        write: some("write", raw.write),
    };
    let one = timeouts.broker_connect.max(timeouts.connack);
    if timeouts.join < one && !timeouts.join.is_zero() {
        let help = format!(
            "at least {}: the longer of `broker_connect` and `connack`",
            Span(one)
        );
        findings.warning(
            "timeouts.join",
            "ends before the first broker had its time",
            help,
        );
    }
    timeouts
}

pub(super) fn drain(raw: &raw::Drain, findings: &mut Findings<'_>) -> Drain {
    let known = [1001, 1012];
    if !known.contains(&raw.close_code) {
        let message = format!("`{}` does not say that a server goes away", raw.close_code);
        findings.problem("drain.close_code", message, "allowed: 1001, 1012");
    }
    let age = raw.max_session_age;
    if age.is_some_and(|age| age.0 < SHORTEST_AGE) {
        let help = format!("at least {}; leave it out for any age", Span(SHORTEST_AGE));
        findings.problem("drain.max_session_age", "is too short", help);
    }
    let max = above_zero("drain.max", raw.max, findings);
    let needed = raw.announce.0 + max;
    if let Some(grace) = raw.grace.filter(|grace| grace.0 < needed) {
        let message = format!("`{grace}` is over before a drain is");
        let help = format!(
            "`announce` and `max` may take {}: grant more, or lower them",
            Span(needed)
        );
        findings.warning("drain.grace", message, help);
    }
    if raw
        .server_reference
        .as_ref()
        .is_some_and(|text| text.0.is_empty())
    {
        findings.problem(
            "drain.server_reference",
            "names no server",
            "name one as its clients know it, `other.example.com:443`, or leave the key out",
        );
    }
    Drain {
        announce: raw.announce.0,
        rate: raw.rate,
        max,
        close_code: raw.close_code,
        server_reference: raw.server_reference.as_ref().map(|text| text.0.clone()),
        max_session_age: age.map(|age| age.0),
        grace: raw.grace.map(|grace| grace.0),
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
