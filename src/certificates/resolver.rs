//! The certificate for a TLS handshake: by server name (RFC 6066 3), then by what the client can verify.
//!
//! An exact name goes before a wildcard; without a known name the first certificate of the configuration is used, so a
//! client always gets an answer it can explain; unless the name is one whose certificate is still to be issued: then it is
//! told that there is none, and not shown another. Names with several certificates prefer ECDSA: signing costs a tenth.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::chain::Loaded;
use super::coverage::wildcard_of;

/// What is ordered and not there yet.
#[derive(Debug, Default)]
pub(super) struct Awaited {
    pub(super) names: Vec<String>,
    /// The first certificate of the configuration is among them.
    pub(super) is_default: bool,
}

/// What all listeners of a configuration show. The one thing of a snapshot that changes: a CA has issued.
#[derive(Debug)]
pub(super) struct Resolver(ArcSwap<Table>);

impl Resolver {
    pub(super) fn new(table: Table) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    pub(super) fn exchange(&self, table: Table) {
        self.0.store(Arc::new(table));
    }
}

/// All certificates by name; built once, read at every handshake.
#[derive(Debug)]
pub(super) struct Table {
    /// DNS names and wildcards as written in the certificates; each list best first, never empty.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// The first certificate, with others that share its first name; empty while that is still to be issued.
    default: Vec<Arc<CertifiedKey>>,
    /// Names whose certificate is still to be issued.
    awaited: HashSet<String>,
}

impl Table {
    pub(super) fn new(loaded: &[Loaded], awaited: &Awaited, now: SystemTime) -> Self {
        let mut by_name: HashMap<String, Vec<(bool, Arc<CertifiedKey>)>> = HashMap::new();
        for one in loaded {
            // Only one that a CA has issued to us may have: another with its names goes before it.
            let has_ended = one.report.not_after <= now;
            for name in &one.report.names {
                let keys = by_name.entry(name.clone()).or_default();
                keys.push((has_ended, Arc::clone(&one.key)));
            }
        }
        let best_first = |mut keys: Vec<(bool, Arc<CertifiedKey>)>| {
            // Stable: file order decides among equals.
            keys.sort_by_key(|(has_ended, key)| (*has_ended, rank(key)));
            keys.into_iter().map(|(_, key)| key).collect()
        };
        let by_name: HashMap<String, Vec<_>> = by_name
            .into_iter()
            .map(|(name, keys)| (name, best_first(keys)))
            .collect();
        let first = loaded.first().filter(|_| !awaited.is_default);
        let default = first
            .and_then(|first| first.report.names.first())
            .and_then(|name| by_name.get(name).cloned())
            .unwrap_or_default();
        Self {
            by_name,
            default,
            awaited: awaited.names.iter().cloned().collect(),
        }
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let exact = name.and_then(|name| self.by_name.get(name));
        let wildcard = name
            .and_then(wildcard_of)
            .and_then(|name| self.by_name.get(&name));
        let known = [exact, wildcard].into_iter().flatten().flatten();
        let known: Vec<&Arc<CertifiedKey>> = known.collect();
        let candidates = if known.is_empty() {
            if name.is_some_and(|name| self.awaited.contains(name)) {
                return None;
            }
            self.default.iter().collect()
        } else {
            known
        };
        candidates
            .iter()
            .find(|key| key.key.choose_scheme(schemes).is_some())
            .or_else(|| candidates.first())
            .map(|key| Arc::clone(key))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.0.load();
        table.choose(client.server_name(), client.signature_schemes())
    }
}

/// Lower is better. Ed25519 is last: hardly a client accepts it.
fn rank(key: &CertifiedKey) -> u8 {
    let algorithm = key.key.algorithm();
    if algorithm == SignatureAlgorithm::ECDSA {
        0
    } else if algorithm == SignatureAlgorithm::RSA {
        1
    } else {
        2
    }
}
