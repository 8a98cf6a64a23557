//! One certificate and its key: read, checked as clients will check it, and turned into a rustls `CertifiedKey`.
//!
//! Everything wrong with the pair is reported at once. What some clients would still accept is a warning.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};

use crate::config::model::CertificateFiles;
use crate::config::{Place, Problem};

use super::Report;
use super::facts::Facts;
use super::pem::PemFile;
use super::verdict;

/// The permission bit that lets everyone on the machine read.
const READABLE_BY_ALL: u32 = 0o004;

/// A certificate ready for use.
#[derive(Debug, Clone)]
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
        problems.extend(verdict::invalid(facts, files, now));
    }
    let (Some((certificates, facts)), Some(keys)) = (chain, keys) else {
        return Err(problems);
    };
    let leaf = &facts[0];
    let Some(key) = matching(&keys, leaf) else {
        problems.insert(0, mismatch(&keys, &facts, files));
        return Err(problems);
    };
    problems.extend(verdict::wrong_order(&facts, files));
    if !problems.is_empty() {
        return Err(problems);
    }
    warnings.extend(verdict::doubtful(&facts, files, now));
    Ok(Loaded::new(files, certificates, &facts, key))
}

/// Reads a certificate that was issued to us: what matters is that it can be shown. Its end is a warning, since one that has
/// ended says more to a client than none.
pub(super) fn load_stored(
    files: &CertificateFiles,
    now: SystemTime,
    provider: &CryptoProvider,
    warnings: &mut Vec<Problem>,
) -> Result<Loaded, Problem> {
    let (certificates, facts) = read_chain(files)?;
    let keys = read_keys(files, provider)?;
    let key = matching(&keys, &facts[0]).ok_or_else(|| mismatch(&keys, &facts, files))?;
    warnings.extend(readable_by_all(&files.key, &files.key_place));
    let ended = verdict::outside_its_time(&facts[0], files, now);
    warnings.extend(ended.map(|problem| {
        problem.help(
            "it is shown all the same; the log and `tidegate check` say why there is no new one",
        )
    }));
    Ok(Loaded::new(files, certificates, &facts, key))
}

impl Loaded {
    fn new(
        files: &CertificateFiles,
        certificates: Vec<CertificateDer<'static>>,
        facts: &[Facts],
        key: Arc<dyn SigningKey>,
    ) -> Self {
        let leaf = &facts[0];
        Self {
            key: Arc::new(CertifiedKey::new(certificates, key)),
            report: Report {
                path: files.chain.clone(),
                names: leaf.names.clone(),
                not_before: leaf.not_before,
                not_after: leaf.not_after,
                key: leaf.key.to_string(),
                issuer: leaf.issuer.clone(),
                chain_length: facts.len(),
            },
        }
    }
}

/// Reads the gateway's own certificate for brokers. The first problem, if there is one.
pub(super) fn load_client(
    files: &CertificateFiles,
    now: SystemTime,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, Problem> {
    let (certificates, facts) = read_chain(files)?;
    let keys = read_keys(files, provider)?;
    let key = matching(&keys, &facts[0]).ok_or_else(|| mismatch(&keys, &facts, files))?;
    match verdict::outside_its_time(&facts[0], files, now)
        .or_else(|| verdict::wrong_order(&facts, files))
    {
        Some(problem) => Err(problem),
        None => Ok(CertifiedKey::new(certificates, key)),
    }
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
