//! Certificates that a CA has issued to us, as they are kept in `acme.state`: key and chain in one file.
//!
//! INVARIANT: what is stored is shown, whatever its age, until there is something better. A file that cannot be read is told and
//! counts as none.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use instant_acme::CertificateIdentifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::acme::AcmeCertificate;
use crate::config::model::CertificateFiles;
use crate::config::{Place, Problem};

use super::chain::{self, Loaded};
use super::facts::Facts;
use super::{Report, provider};

/// A stored certificate, as far as its renewal goes.
#[derive(Debug, Clone)]
pub struct Stored {
    pub report: Report,
    /// What the CA knows it by (RFC 9773 4.1); `None` where it does not say who has issued it.
    pub identifier: Option<CertificateIdentifier<'static>>,
}

/// What there is of one certificate.
#[derive(Debug)]
pub enum Kept {
    Nothing,
    Good(Stored),
    /// It is read, and is of no use.
    Damaged(Problem),
    /// Nobody knows: the disk, or the permissions. To take it for nothing would be to order again what may be there.
    Unreadable(io::Error),
}

/// The certificate of exactly these names.
pub fn kept(ordered: &AcmeCertificate) -> Kept {
    match std::fs::read(&ordered.file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Kept::Nothing,
        Err(error) => return Kept::Unreadable(error),
        Ok(_) => {}
    }
    let files = files(&ordered.file, &ordered.place);
    match chain::load_stored(&files, SystemTime::now(), &provider(), &mut Vec::new()) {
        Ok(one) => Kept::Good(Stored {
            identifier: identifier(&ordered.file),
            report: one.report,
        }),
        Err(problem) => Kept::Damaged(problem),
    }
}

fn identifier(file: &Path) -> Option<CertificateIdentifier<'static>> {
    let leaf = CertificateDer::from_pem_file(file).ok()?;
    let identifier = CertificateIdentifier::try_from(&leaf).ok()?;
    Some(identifier.into_owned())
}

/// Whether what a CA has issued is what was ordered: for that key and these names, in PEM. Answers when it ends.
///
/// # Errors
/// What is wrong with it.
pub fn issued(chain: &str, public_key: &[u8], names: &[String]) -> Result<SystemTime, String> {
    let leaf = CertificateDer::from_pem_slice(chain.as_bytes());
    let leaf = leaf.map_err(|error| error.to_string())?;
    let facts = Facts::read(&leaf).ok_or("it is not X.509")?;
    if facts.public_key != public_key {
        return Err("it is for another key".to_owned());
    }
    match names.iter().find(|name| !facts.names.contains(name)) {
        Some(name) => Err(format!("it lacks {name}")),
        None => Ok(facts.not_after),
    }
}

/// The certificate of these names; or, while there is none, others of the same CA that have some of them: an operator who adds
/// a name must not lose the old ones for as long as the new one takes.
///
/// # Errors
/// It may be there, and cannot be read.
pub(super) fn load(
    ordered: &AcmeCertificate,
    now: SystemTime,
    provider: &CryptoProvider,
    warnings: &mut Vec<Problem>,
) -> Result<Vec<Loaded>, Problem> {
    match kept(ordered) {
        Kept::Nothing => {}
        Kept::Good(_) => {
            let own = files(&ordered.file, &ordered.place);
            return chain::load_stored(&own, now, provider, warnings).map(|one| vec![one]);
        }
        Kept::Damaged(problem) => warnings.push(
            problem.help("it is not used: the file is set aside, and another one is ordered"),
        ),
        Kept::Unreadable(error) => {
            let file = ordered.file.display();
            return Err(
                Problem::new(&ordered.place, format!("{file} cannot be read: {error}")).help(
                    "let the user that tidegate runs as read it; delete it only to order another",
                ),
            );
        }
    }
    let mut others: Vec<Loaded> = neighbours(&ordered.file)
        .iter()
        .filter_map(|file| {
            let files = files(file, &ordered.place);
            chain::load_stored(&files, now, provider, &mut Vec::new()).ok()
        })
        .collect();
    others.sort_by_key(|one| std::cmp::Reverse(one.report.not_after));
    let mut missing: Vec<&String> = ordered.names.iter().collect();
    others.retain(|one| {
        let before = missing.len();
        missing.retain(|name| !one.report.names.contains(name));
        missing.len() < before
    });
    Ok(others)
}

fn neighbours(file: &Path) -> Vec<std::path::PathBuf> {
    let entries = file
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok());
    let paths = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut paths: Vec<_> = paths
        .filter(|path| path != file && path.extension().is_some_and(|kind| kind == "pem"))
        .collect();
    paths.sort();
    paths
}

fn files(file: &Path, place: &Place) -> CertificateFiles {
    CertificateFiles {
        chain: file.to_owned(),
        chain_place: place.clone(),
        key: file.to_owned(),
        key_place: place.clone(),
    }
}
