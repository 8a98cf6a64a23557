//! How clients will judge a chain: refused by all, refused by some, or soon.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

use crate::config::Problem;
use crate::config::model::CertificateFiles;

use super::facts::{Facts, Key};

/// A warning is given this long before the end: ACME clients renew with a third of the lifetime left, so less than two
/// weeks means that renewal has failed.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// CA/Browser Forum Baseline Requirements 6.1.5; aws-lc signs with nothing smaller.
const SMALLEST_RSA: usize = 2048;

/// What every client refuses.
pub(super) fn invalid(facts: &[Facts], files: &CertificateFiles, now: SystemTime) -> Vec<Problem> {
    let place = &files.chain_place;
    let path = files.chain.display();
    let leaf = &facts[0];
    let mut problems = Vec::new();
    problems.extend(too_early(leaf, files, now));
    if leaf.names.is_empty() && !(leaf.is_ca && facts.len() > 1) {
        problems.push(
            Problem::new(
                place,
                format!("the certificate in {path} has no subject alternative name; clients ignore its common name"),
            )
            .help("issue it again with the host names as subjectAltName (openssl: -addext subjectAltName=DNS:example.com)"),
        );
    }
    if let Key::Rsa(bits) = leaf.key
        && bits < SMALLEST_RSA
    {
        problems.push(
            Problem::new(place, format!("the certificate in {path} has an RSA key of {bits} bits; clients want {SMALLEST_RSA}"))
                .help("issue it again with an ECDSA P-256 key"),
        );
    }
    problems
}

/// Over, or not yet begun.
pub(super) fn outside_its_time(
    leaf: &Facts,
    files: &CertificateFiles,
    now: SystemTime,
) -> Option<Problem> {
    expired(leaf, files, now).or_else(|| too_early(leaf, files, now))
}

fn expired(leaf: &Facts, files: &CertificateFiles, now: SystemTime) -> Option<Problem> {
    let problem = || {
        let (path, end) = (files.chain.display(), day(leaf.not_after));
        let message = format!("the certificate in {path} expired on {end}");
        Problem::new(&files.chain_place, message).help("renew it")
    };
    (leaf.not_after <= now).then(problem)
}

fn too_early(leaf: &Facts, files: &CertificateFiles, now: SystemTime) -> Option<Problem> {
    let problem = || {
        let (path, start) = (files.chain.display(), day(leaf.not_before));
        let message = format!("the certificate in {path} is not valid before {start}");
        Problem::new(&files.chain_place, message).help("is the clock of this machine right?")
    };
    (leaf.not_before > now).then(problem)
}

/// RFC 5246 7.4.2: each certificate certifies the one before it. Links that are missing altogether are a warning.
pub(super) fn wrong_order(facts: &[Facts], files: &CertificateFiles) -> Option<Problem> {
    for (index, pair) in facts.windows(2).enumerate() {
        let (below, next) = (&pair[0], &pair[1]);
        if below.is_self_issued() || next.issued(below) {
            continue;
        }
        let issuer = facts.iter().position(|one| one.issued(below))?;
        return Some(
            Problem::new(
                &files.chain_place,
                format!(
                    "{}: wrong order: certificate {} ({}) was issued by certificate {} ({}), which must follow it",
                    files.chain.display(),
                    index + 1,
                    below.title(),
                    issuer + 1,
                    facts[issuer].title()
                ),
            )
            .help("the server's certificate stands first, then the one that issued it, and so on"),
        );
    }
    None
}

/// What some clients refuse, or all of them soon, or all of them now and only for these names.
pub(super) fn doubtful(facts: &[Facts], files: &CertificateFiles, now: SystemTime) -> Vec<Problem> {
    let path = files.chain.display();
    let warn = |message: String| Problem::new(&files.chain_place, message);
    let leaf = &facts[0];
    let mut warnings = Vec::new();
    // A name that was forgotten must not keep all others from being served when the machine starts again.
    warnings.extend(
        expired(leaf, files, now).map(|problem| {
            problem.help("renew it: it is shown all the same, and clients refuse it")
        }),
    );
    let issuer_follows = facts.get(1).is_some_and(|next| next.issued(leaf));
    if !leaf.is_self_issued() && !issuer_follows {
        warnings.push(
            warn(format!(
                "the intermediate certificate ({}) is missing in {path}: it works in desktop browsers and fails on Android and in WeChat",
                leaf.issuer
            ))
            .help("use the full chain: fullchain.pem from certbot, or append the CA's intermediate certificate"),
        );
    }
    if leaf
        .not_after
        .duration_since(now)
        .is_ok_and(|left| left < EXPIRES_SOON)
    {
        warnings.push(
            warn(format!(
                "the certificate in {path} expires on {}",
                day(leaf.not_after)
            ))
            .help("check that the renewal runs; tidegate takes the new files on reload"),
        );
    }
    let mut above = facts.iter().skip(1);
    if let Some(old) = above.find(|one| one.not_after <= now && !one.is_self_issued()) {
        warnings.push(
            warn(format!(
                "the intermediate certificate ({}) in {path} expired on {}",
                old.title(),
                day(old.not_after)
            ))
            .help("take the chain file of the last renewal"),
        );
    }
    if leaf.is_ca {
        warnings.push(
            warn(format!("the certificate in {path} is a CA certificate; some clients refuse it as a server's"))
                .help("issue a server certificate (openssl: -addext basicConstraints=CA:FALSE)"),
        );
    }
    let sha1 = facts
        .iter()
        .find(|one| one.signed_with_sha1 && !one.is_self_issued());
    if let Some(weak) = sha1 {
        warnings.push(
            warn(format!(
                "{} in {path} is signed with SHA-1, which current clients refuse",
                weak.title()
            ))
            .help("issue it again with SHA-256"),
        );
    }
    if leaf.key == Key::Ed25519 {
        warnings.push(
            warn(format!(
                "the certificate in {path} has an Ed25519 key, which no browser accepts"
            ))
            .help("use ECDSA P-256, or give a second certificate for the same names"),
        );
    }
    warnings
}

/// `2026-11-21`, UTC.
fn day(at: SystemTime) -> String {
    OffsetDateTime::from(at).date().to_string()
}
