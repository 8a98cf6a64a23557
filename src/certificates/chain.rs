//! One certificate and its key: read, checked as clients will check it, and turned into a rustls `CertifiedKey`.
//!
//! Everything wrong with the pair is reported at once. What some clients would still accept is a warning.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use time::OffsetDateTime;

use crate::config::model::CertificateFiles;
use crate::config::{Place, Problem};

use super::Report;
use super::facts::{Facts, Key};
use super::pem::PemFile;

/// A warning is given this long before the end: ACME clients renew with a third of the lifetime left, so less than two
/// weeks means that renewal has failed.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// CA/Browser Forum Baseline Requirements 6.1.5; aws-lc signs with nothing smaller.
const SMALLEST_RSA: usize = 2048;

/// The permission bit that lets everyone on the machine read.
const READABLE_BY_ALL: u32 = 0o004;

/// A certificate ready for use.
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) report: Report,
}

/// Reads and checks one pair of files.
pub(super) fn load(
    files: &CertificateFiles,
    now: SystemTime,
    provider: &CryptoProvider,
    warnings: &mut Vec<Problem>,
) -> Result<Loaded, Vec<Problem>> {
    let mut problems = Vec::new();
    let chain = read_chain(files)
        .map_err(|problem| problems.push(problem))
        .ok();
    let keys = read_keys(files, provider)
        .map_err(|problem| problems.push(problem))
        .ok();
    if keys.is_some() {
        warnings.extend(readable_by_all(&files.key, &files.key_place));
    }
    if let Some((_, facts)) = &chain {
        problems.extend(invalid(facts, files, now));
    }
    let (Some((certificates, facts)), Some(keys)) = (chain, keys) else {
        return Err(problems);
    };
    let leaf = &facts[0];
    let Some(key) = matching(&keys, leaf) else {
        problems.insert(0, mismatch(&keys, &facts, files));
        return Err(problems);
    };
    problems.extend(wrong_order(&facts, files));
    if !problems.is_empty() {
        return Err(problems);
    }
    warnings.extend(doubtful(&facts, files, now));
    let report = Report {
        path: files.chain.clone(),
        names: leaf.names.clone(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        key: leaf.key.to_string(),
        issuer: leaf.issuer.clone(),
        chain_length: facts.len(),
    };
    let key = Arc::new(CertifiedKey::new(certificates, key));
    Ok(Loaded { key, report })
}

type Chain = (Vec<CertificateDer<'static>>, Vec<Facts>);

/// The chain and what it says; both have the same length, at least 1.
fn read_chain(files: &CertificateFiles) -> Result<Chain, Problem> {
    let file = PemFile::read(&files.chain, &files.chain_place)?;
    if file.certificates.is_empty() {
        return Err(file.no_certificate(&files.chain_place));
    }
    let mut facts = Vec::new();
    for (index, der) in file.certificates.iter().enumerate() {
        let one = Facts::read(der).ok_or_else(|| {
            Problem::new(
                &files.chain_place,
                format!(
                    "certificate {} in {} is damaged: it is not X.509",
                    index + 1,
                    files.chain.display()
                ),
            )
        })?;
        facts.push(one);
    }
    Ok((file.certificates, facts))
}

/// Every key of the file; at least one.
fn read_keys(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<Vec<Arc<dyn SigningKey>>, Problem> {
    let file = PemFile::read(&files.key, &files.key_place)?;
    if file.keys.is_empty() {
        return Err(file.no_key(&files.key_place));
    }
    file.keys
        .into_iter()
        .map(|key| signing_key(key, files, provider))
        .collect()
}

fn signing_key(
    key: PrivateKeyDer<'static>,
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<Arc<dyn SigningKey>, Problem> {
    provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| {
            Problem::new(
                &files.key_place,
                format!(
                    "the private key in {} cannot be used: {error}",
                    files.key.display()
                ),
            )
            .help("use ECDSA P-256 or P-384, or RSA with 2048 bits or more")
        })
}

/// The key that belongs to the certificate.
fn matching(keys: &[Arc<dyn SigningKey>], certificate: &Facts) -> Option<Arc<dyn SigningKey>> {
    let fits = |key: &&Arc<dyn SigningKey>| {
        key.public_key()
            .is_some_and(|public| public.as_ref() == certificate.public_key)
    };
    keys.iter().find(fits).map(Arc::clone)
}

/// No key fits the first certificate: the order is wrong, or the files do not belong together.
fn mismatch(keys: &[Arc<dyn SigningKey>], facts: &[Facts], files: &CertificateFiles) -> Problem {
    let leaf = facts.iter().position(|one| matching(keys, one).is_some());
    if let Some(leaf) = leaf {
        return Problem::new(
            &files.chain_place,
            format!(
                "{}: wrong order: the first certificate is {}, the server's own certificate ({}) is number {}",
                files.chain.display(),
                facts[0].title(),
                facts[leaf].title(),
                leaf + 1
            ),
        )
        .help("the server's certificate stands first, then the one that issued it, and so on");
    }
    Problem::new(
        &files.key_place,
        format!(
            "the private key in {} does not belong to the certificate in {} ({})",
            files.key.display(),
            files.chain.display(),
            facts[0].title()
        ),
    )
    .help("take both from the same issue or renewal; a renewed certificate usually has a new key")
}

/// What every client refuses.
fn invalid(facts: &[Facts], files: &CertificateFiles, now: SystemTime) -> Vec<Problem> {
    let place = &files.chain_place;
    let path = files.chain.display();
    let leaf = &facts[0];
    let mut problems = Vec::new();
    if leaf.not_after <= now {
        problems.push(
            Problem::new(
                place,
                format!(
                    "the certificate in {path} expired on {}",
                    day(leaf.not_after)
                ),
            )
            .help("renew it"),
        );
    }
    if leaf.not_before > now {
        problems.push(
            Problem::new(
                place,
                format!(
                    "the certificate in {path} is not valid before {}",
                    day(leaf.not_before)
                ),
            )
            .help("is the clock of this machine right?"),
        );
    }
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

/// RFC 5246 7.4.2: each certificate certifies the one before it. Links that are missing altogether are a warning.
fn wrong_order(facts: &[Facts], files: &CertificateFiles) -> Option<Problem> {
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

/// What some clients refuse, or all of them soon.
fn doubtful(facts: &[Facts], files: &CertificateFiles, now: SystemTime) -> Vec<Problem> {
    let path = files.chain.display();
    let warn = |message: String| Problem::new(&files.chain_place, message);
    let leaf = &facts[0];
    let mut warnings = Vec::new();
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

/// SECURITY: whoever can read the key can be this server.
fn readable_by_all(path: &Path, place: &Place) -> Option<Problem> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & READABLE_BY_ALL != 0).then(|| {
        Problem::new(
            place,
            format!("everyone on this machine can read the private key {} (mode {:04o})", path.display(), mode & 0o7777),
        )
        .help("chmod 640 and the group that tidegate runs as; in a Kubernetes secret volume defaultMode: 0440")
    })
}

/// `2026-11-21`, UTC.
fn day(at: SystemTime) -> String {
    OffsetDateTime::from(at).date().to_string()
}
