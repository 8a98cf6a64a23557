//! Checks certificates, those that are ordered among them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::acme::{self, Acme, AcmeCertificate, Eab};
use super::check::Findings;
use super::model::{Certificate, CertificateFiles, Listener, Speaks, Trust};
use super::raw_acme as raw;

/// Where the state is unless the file or systemd names another place.
const STATE: &str = "/var/lib/tidegate/acme";

/// What Let's Encrypt, and others after it, put into one certificate.
const MOST_NAMES: usize = 100;

pub(super) fn certificates(
    raw: Vec<raw::Certificate>,
    acme: Option<&Acme>,
    listeners: &[Listener],
    findings: &mut Findings<'_>,
) -> Vec<Certificate> {
    let tls = listeners
        .iter()
        .find(|listener| listener.speaks == Speaks::Tls);
    match (tls, raw.first()) {
        (Some(listener), None) => findings.problem(
            &listener.place.key,
            "speaks TLS, but there are no `certificates`",
            "add `certificates` with `chain` and `key` or with `acme`, or `plain: routes` where something in front ends TLS",
        ),
        (None, Some(_)) => findings.warning(
            "certificates",
            "not used: no listener speaks TLS",
            "remove `plain` from a listener",
        ),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let mut known = BTreeMap::new();
    let mut certificates = Vec::with_capacity(raw.len());
    for (index, one) in raw.into_iter().enumerate() {
        let key = format!("certificates[{index}]");
        if one.acme.is_empty() {
            certificates.extend(files(one, &key, findings).map(Certificate::Files));
            continue;
        }
        if one.chain.is_some() || one.key.is_some() {
            findings.problem(
                &key,
                "has `acme` beside the files of a certificate",
                "keep one: what is ordered by `acme` is kept in `acme.state`",
            );
        }
        let Some(ordered) = ordered(one, acme, &key, findings) else {
            continue;
        };
        if let Some(line) = known.insert(ordered.file.clone(), ordered.place.line) {
            findings.problem(
                &ordered.place.key,
                format!("these names already have a certificate in line {line}"),
                "remove one of them",
            );
        }
        certificates.push(Certificate::Acme(ordered));
    }
    if acme.is_some() && known.is_empty() {
        findings.warning(
            "acme",
            "not used: no certificate has `acme`",
            "write `- acme: [example.com]` below `certificates`",
        );
    }
    certificates
}

fn files(
    one: raw::Certificate,
    key: &str,
    findings: &mut Findings<'_>,
) -> Option<CertificateFiles> {
    let (chain, private) = match (one.chain, one.key) {
        (Some(chain), Some(private)) => (chain, private),
        (None, None) => {
            let help = "name a certificate's files (`chain`, `key`), or the names of one to order: `acme: [example.com]`";
            findings.problem(key, "is empty", help);
            return None;
        }
        (None, Some(_)) => {
            let help = "PEM file: the certificate, then every intermediate";
            findings.problem(&format!("{key}.chain"), "missing", help);
            return None;
        }
        (Some(_), None) => {
            let help = "PEM file: the private key";
            findings.problem(&format!("{key}.key"), "missing", help);
            return None;
        }
    };
    Some(CertificateFiles {
        chain: chain.0.into(),
        chain_place: findings.places.of(&format!("{key}.chain")),
        key: private.0.into(),
        key_place: findings.places.of(&format!("{key}.key")),
    })
}

/// `None` where nobody is to be asked.
fn ordered(
    one: raw::Certificate,
    acme: Option<&Acme>,
    key: &str,
    findings: &mut Findings<'_>,
) -> Option<AcmeCertificate> {
    let mut names: Vec<String> = Vec::with_capacity(one.acme.len());
    for (index, name) in one.acme.into_iter().enumerate() {
        if names.contains(&name.0) {
            let message = format!("`{name}` stands here twice");
            findings.problem(&format!("{key}.acme[{index}]"), message, "remove one");
        } else {
            names.push(name.0);
        }
    }
    if names.len() > MOST_NAMES {
        let message = format!("has {} names", names.len());
        let help = format!("CAs put {MOST_NAMES} into one certificate: write several");
        findings.problem(&format!("{key}.acme"), message, help);
    }
    let Some(acme) = acme else {
        let help = "add `acme: { agree_tos: true }` to the file, once you have read https://letsencrypt.org/repository/";
        findings.problem(
            &format!("{key}.acme"),
            "no `acme` section says of whom to order, and that you agree to the CA's terms",
            help,
        );
        return None;
    };
    Some(AcmeCertificate {
        file: acme::file(&acme.folder(), &names),
        names,
        place: findings.places.of(&format!("{key}.acme")),
    })
}

/// `state_directory` is systemd's `$STATE_DIRECTORY` (systemd.exec(5)).
pub(super) fn acme(
    raw: Option<raw::Acme>,
    state_directory: Option<&str>,
    findings: &mut Findings<'_>,
) -> Option<Acme> {
    let raw = raw?;
    if raw.agree_tos != Some(true) {
        findings.problem(
            "acme.agree_tos",
            format!(
                "nothing is ordered before you agree to the terms of the CA: {}",
                raw.directory.terms()
            ),
            "read them, then write `agree_tos: true`",
        );
    }
    let eab = raw.eab.map(|eab| Eab {
        key_id: eab.key_id,
        mac_key: eab.mac_key,
        place: findings.places.of("acme.eab.mac_key"),
    });
    let place = findings.places.of("acme");
    Some(Acme {
        directory: raw.directory.url(),
        email: raw.email.map(|email| email.0),
        state: raw
            .state
            .map_or_else(|| usual_state(state_directory), |folder| folder.0.into()),
        state_place: findings.places.of("acme.state"),
        trust: raw
            .ca
            .map_or(Trust::System, |file| Trust::Ca(file.0.into())),
        place: match findings.places.has("acme.ca") {
            true => findings.places.of("acme.ca"),
            false => place,
        },
        eab,
        profile: raw.profile.map(|profile| profile.0),
    })
}

/// The first of several (`StateDirectory=` may name more than one).
fn usual_state(state_directory: Option<&str>) -> PathBuf {
    let first = state_directory.and_then(|folders| folders.split(':').next());
    match first.filter(|folder| !folder.is_empty()) {
        Some(folder) => Path::new(folder).join("acme"),
        None => STATE.into(),
    }
}
