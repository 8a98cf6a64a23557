//! Which host names a certificate is good for (RFC 9525 6.3), for the SNI choice and for the check of the routes.

use std::collections::HashSet;

use crate::config::Problem;
use crate::config::model::{Config, Speaks};

use super::chain::Loaded;

/// The wildcard name that covers `host`, if one can: the leftmost label replaced by `*`.
pub(super) fn wildcard_of(host: &str) -> Option<String> {
    let (_, parent) = host.split_once('.')?;
    Some(format!("*.{parent}"))
}

/// One problem for each route that is reached by TLS under a host that no certificate names.
pub(super) fn uncovered(config: &Config, loaded: &[Loaded]) -> Vec<Problem> {
    let speaks_tls = config
        .listeners
        .iter()
        .any(|listener| listener.speaks == Speaks::Tls);
    if !speaks_tls {
        return Vec::new();
    }
    let shown = loaded.iter().flat_map(|one| &one.report.names);
    let ordered = config.acme_certificates().flat_map(|one| &one.names);
    let mut names: Vec<&str> = shown.chain(ordered).map(String::as_str).collect();
    let mut known = HashSet::new();
    names.retain(|name| known.insert(*name));
    let mut problems = Vec::new();
    for route in &config.routes {
        let Some(host) = route.host.as_deref() else {
            continue;
        };
        if !covers(&names, host) {
            problems.push(
                Problem::new(
                    &route.place,
                    message(host, &names, config.certificates.len()),
                )
                .help("add a certificate for the host, or issue this one again with it"),
            );
        }
    }
    problems
}

/// A route's host may itself be a wildcard; only the same wildcard covers it.
fn covers(names: &[&str], host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let wildcard = wildcard_of(host).filter(|_| !host.starts_with("*."));
    names
        .iter()
        .any(|name| *name == bare || wildcard.as_deref() == Some(*name))
}

fn message(host: &str, names: &[&str], certificates: usize) -> String {
    let names = names.join(", ");
    if certificates == 1 {
        format!("the certificate does not cover host {host}; names it has: {names}")
    } else {
        format!("no certificate covers host {host}; names they have: {names}")
    }
}
