//! Checks what the file says about name servers.

use std::time::Duration;

use super::check::Findings;
use super::model::Dns;
use super::raw_dns as raw;
use super::values::Span;

/// A name server is no broker: ten questions a second for each name are enough for anyone.
const SHORTEST: Duration = Duration::from_millis(100);

pub(super) fn dns(raw: raw::Dns, findings: &mut Findings<'_>) -> Dns {
    for (index, server) in raw.servers.iter().enumerate() {
        if server.0.port() == 0 {
            findings.problem(
                &format!("dns.servers[{index}]"),
                "has port 0",
                "name servers listen on port 53",
            );
        }
    }
    if raw.timeout.0.is_zero() {
        findings.problem(
            "dns.timeout",
            "0 would leave no time at all",
            "write a duration above 0: `5s`",
        );
    }
    if raw.shortest.0 < SHORTEST {
        findings.problem(
            "dns.shortest",
            format!("`{}` is too short", raw.shortest),
            format!("at least {}", Span(SHORTEST)),
        );
    }
    if raw.longest.0 < raw.shortest.0 {
        findings.problem(
            "dns.longest",
            format!("`{}` is shorter than `shortest`", raw.longest),
            format!("at least {}, which `shortest` is", raw.shortest),
        );
    }
    Dns {
        servers: raw.servers.into_iter().map(|server| server.0).collect(),
        timeout: raw.timeout.0,
        shortest: raw.shortest.0,
        longest: raw.longest.0,
    }
}
