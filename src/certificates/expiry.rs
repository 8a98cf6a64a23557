//! When the files that a configuration names come to their end: certificates shown to clients and to brokers, CAs,
//! revocation lists. For metrics and people; whether the files are right was judged before.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::config::Place;
use crate::config::model::{Config, Trust};

use super::Report;
use super::facts::Facts;
use super::pem::PemFile;

/// What a file is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Shown to clients.
    Server,
    /// Issues clients' certificates.
    ClientCa,
    RevocationList,
    /// Shown to brokers.
    BrokerClient,
    /// Issues brokers' certificates.
    BrokerCa,
}

impl Kind {
    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::ClientCa => "client_ca",
            Self::RevocationList => "revocation_list",
            Self::BrokerClient => "broker_client",
            Self::BrokerCa => "broker_ca",
        }
    }
}

/// One end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    pub kind: Kind,
    /// Its names, or its subject; the issuer of a revocation list.
    pub names: Vec<String>,
    pub issuer: String,
    pub file: PathBuf,
    /// `next update` of a revocation list.
    pub not_after: SystemTime,
}

/// Of every file; those of `server` were read already.
pub fn expiries(config: &Config, server: &[Report]) -> Vec<Expiry> {
    let mut all: Vec<Expiry> = server.iter().map(of_report).collect();
    for listener in &config.listeners {
        let Some(asked) = &listener.client_certificates else {
            continue;
        };
        all.extend(certificates(Kind::ClientCa, &asked.ca));
        for list in &asked.crl {
            all.extend(revocation_lists(&list.path));
        }
    }
    for pool in &config.pools {
        if let Trust::Ca(path) = &pool.tls.trust {
            all.extend(certificates(Kind::BrokerCa, path));
        }
        if let Some(shown) = &pool.tls.certificate {
            // The leaf; what issued it is the broker's to know.
            all.extend(
                certificates(Kind::BrokerClient, &shown.chain)
                    .into_iter()
                    .take(1),
            );
        }
    }
    // Listeners and pools name the same files.
    let mut once: Vec<Expiry> = Vec::with_capacity(all.len());
    for expiry in all {
        if !once.contains(&expiry) {
            once.push(expiry);
        }
    }
    once
}

fn of_report(report: &Report) -> Expiry {
    Expiry {
        kind: Kind::Server,
        names: report.names.clone(),
        issuer: report.issuer.clone(),
        file: report.path.clone(),
        not_after: report.not_after,
    }
}

/// Empty where the file cannot be read: it could a moment ago, and the next load says what it has.
fn certificates(kind: Kind, path: &Path) -> Vec<Expiry> {
    let Ok(file) = PemFile::read(path, &Place::default()) else {
        return Vec::new();
    };
    let facts = file.certificates.iter().filter_map(Facts::read);
    facts
        .map(|facts| Expiry {
            kind,
            names: match facts.names.is_empty() {
                true => vec![facts.title()],
                false => facts.names.clone(),
            },
            issuer: facts.issuer,
            file: path.to_owned(),
            not_after: facts.not_after,
        })
        .collect()
}

/// Those that say when they are to be replaced.
fn revocation_lists(path: &Path) -> Vec<Expiry> {
    let Ok(lists) = PemFile::revocation_lists(path, &Place::default()) else {
        return Vec::new();
    };
    let expiry = |der: &[u8]| {
        let (_, list) = CertificateRevocationList::from_der(der).ok()?;
        let end = u64::try_from(list.next_update()?.timestamp()).ok()?;
        let issuer = list.issuer().to_string();
        Some(Expiry {
            kind: Kind::RevocationList,
            names: vec![issuer.clone()],
            issuer,
            file: path.to_owned(),
            not_after: SystemTime::UNIX_EPOCH + Duration::from_secs(end),
        })
    };
    lists.iter().filter_map(|der| expiry(der)).collect()
}
