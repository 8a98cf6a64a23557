//! Certificates for development: a local CA, made once, and a server certificate signed by it.
//!
//! Trust the CA once, issue server certificates as often as wanted (the model of mkcert). Files that were not made here
//! are never overwritten, and a reader never sees half a file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::atomic::replace;
use super::facts::Facts;
use super::trust;

/// Names of a certificate when none are asked for.
const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const CA_CERTIFICATE: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tidegate-dev.pem";
const KEY: &str = "tidegate-dev.key";

/// Organization in every certificate made here: how a file is known to be ours.
const CA_ORGANIZATION: &str = "Tidegate development CA";
const ORGANIZATION: &str = "Tidegate development certificate";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Apple and Chrome refuse server certificates of more than 398 days; a day of margin on either side of the clock.
const LEAF_VALID: Duration = Duration::from_secs(396 * DAY.as_secs());

/// The CA is trusted by hand, so it lives long.
const CA_VALID: Duration = Duration::from_secs(3650 * DAY.as_secs());

/// Certificates begin this long ago: phones' clocks are late.
const BACKDATED: Duration = Duration::from_secs(60 * 60);

const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// What was made, and what to do with it.
#[derive(Debug, Clone)]
pub struct DevFiles {
    pub ca: PathBuf,
    pub ca_key: PathBuf,
    /// False when the CA stood there before.
    pub ca_created: bool,
    /// The server certificate, with the CA behind it: a `chain`.
    pub certificate: PathBuf,
    /// Mode 0600.
    pub key: PathBuf,
    pub names: Vec<String>,
    pub not_after: SystemTime,
    /// For people: how to trust the CA on each system, and where that does not help.
    pub trust: String,
}

/// Why no development certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    #[error("{} cannot be read", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be written", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{} was not made by `tidegate cert dev` and is left alone; use another folder", path.display())]
    NotOurs { path: PathBuf },
    #[error("{} stands without {}; move it away to make a new CA", present.display(), missing.display())]
    HalfCa { present: PathBuf, missing: PathBuf },
    #[error("{} is not a usable CA: {reason}; move it and its key away to make a new one", path.display())]
    UnusableCa { path: PathBuf, reason: &'static str },
    #[error("`{name}` is neither a host name (`example.test`, `*.example.test`) nor an IP address")]
    Name { name: String },
    #[error("the certificate cannot be made")]
    Generate(#[from] rcgen::Error),
}

/// Makes a server certificate for `names` (localhost, 127.0.0.1 and ::1 when empty) in the folder `out`.
///
/// The CA in `out` (`ca.pem`, `ca.key`) is used when it stands there and made otherwise. ECDSA P-256; the server
/// certificate is valid for 396 days at most, never longer than its CA.
///
/// # Errors
/// A bad name, a folder that cannot be written, a CA that cannot be used, or a file in the way that is not ours.
/// Nothing has been overwritten then.
pub fn dev(out: &Path, names: &[String]) -> Result<DevFiles, DevError> {
    let names = checked(names)?;
    let certificate = out.join(CERTIFICATE);
    let key = out.join(KEY);
    must_be_ours(&certificate, &key)?;
    fs::create_dir_all(out).map_err(|source| write_error(out, source))?;
    let now = SystemTime::now();
    let ca = Ca::open_or_create(out, now)?;

    let leaf_key = KeyPair::generate()?;
    let not_after = (now + LEAF_VALID).min(ca.not_after);
    let leaf = leaf(&names, now, not_after)?.signed_by(&leaf_key, &ca.issuer)?;
    write(&key, leaf_key.serialize_pem().as_bytes(), PRIVATE)?;
    let chain = format!("{}{}", leaf.pem(), ca.pem);
    write(&certificate, chain.as_bytes(), PUBLIC)?;
    Ok(DevFiles {
        trust: trust::instructions(&ca.path),
        ca: ca.path,
        ca_key: out.join(CA_KEY),
        ca_created: ca.created,
        certificate,
        key,
        names,
        not_after,
    })
}

/// The names asked for, in lower case.
fn checked(names: &[String]) -> Result<Vec<String>, DevError> {
    if names.is_empty() {
        return Ok(DEFAULT_NAMES.map(str::to_owned).to_vec());
    }
    let mut checked: Vec<String> = Vec::new();
    for name in names {
        let lower = name.to_ascii_lowercase();
        let host = lower.strip_prefix("*.").unwrap_or(&lower);
        if ServerName::try_from(host).is_err() {
            return Err(DevError::Name { name: name.clone() });
        }
        if !checked.contains(&lower) {
            checked.push(lower);
        }
    }
    Ok(checked)
}

/// Refuses to touch a certificate from elsewhere, and a key whose certificate is gone.
fn must_be_ours(certificate: &Path, key: &Path) -> Result<(), DevError> {
    let path = if certificate.exists() {
        let ours = CertificateDer::from_pem_file(certificate)
            .ok()
            .and_then(|der| Facts::read(&der))
            .is_some_and(|facts| facts.subject.contains(ORGANIZATION));
        if ours {
            return Ok(());
        }
        certificate
    } else if key.exists() {
        key
    } else {
        return Ok(());
    };
    Err(DevError::NotOurs {
        path: path.to_owned(),
    })
}

/// The CA of one folder.
struct Ca {
    path: PathBuf,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    not_after: SystemTime,
    created: bool,
}

impl Ca {
    fn open_or_create(out: &Path, now: SystemTime) -> Result<Self, DevError> {
        let path = out.join(CA_CERTIFICATE);
        let key = out.join(CA_KEY);
        match (path.exists(), key.exists()) {
            (true, true) => Self::open(path, &key, now),
            (false, false) => Self::create(path, &key, now),
            (true, false) => Err(DevError::HalfCa {
                present: path,
                missing: key,
            }),
            (false, true) => Err(DevError::HalfCa {
                present: key,
                missing: path,
            }),
        }
    }

    fn open(path: PathBuf, key: &Path, now: SystemTime) -> Result<Self, DevError> {
        let pem = read(&path)?;
        let unusable = |reason| DevError::UnusableCa {
            path: path.clone(),
            reason,
        };
        let facts = CertificateDer::from_pem_slice(pem.as_bytes())
            .ok()
            .and_then(|der| Facts::read(&der))
            .ok_or_else(|| unusable("it holds no certificate"))?;
        let key = KeyPair::from_pem(&read(key)?)?;
        if !facts.is_ca {
            return Err(unusable("its certificate is not a CA certificate"));
        }
        if facts.public_key != key.subject_public_key_info() {
            return Err(unusable("its key does not belong to it"));
        }
        if facts.not_after <= now {
            return Err(unusable("it has expired"));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key)?;
        Ok(Self {
            path,
            pem,
            issuer,
            not_after: facts.not_after,
            created: false,
        })
    }

    fn create(path: PathBuf, key_path: &Path, now: SystemTime) -> Result<Self, DevError> {
        let key = KeyPair::generate()?;
        let not_after = now + CA_VALID;
        let params = authority(&key, now, not_after);
        let pem = params.self_signed(&key)?.pem();
        write(key_path, key.serialize_pem().as_bytes(), PRIVATE)?;
        write(&path, pem.as_bytes(), PUBLIC)?;
        let issuer = Issuer::new(params, key);
        Ok(Self {
            path,
            pem,
            issuer,
            not_after,
            created: true,
        })
    }
}

fn authority(key: &KeyPair, now: SystemTime, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two CAs on one machine must differ by name: browsers look issuers up by it.
    let tail: String = key
        .public_key_raw()
        .iter()
        .rev()
        .take(3)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, CA_ORGANIZATION);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{CA_ORGANIZATION} {tail}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - BACKDATED).into();
    params.not_after = not_after.into();
    params
}

fn leaf(
    names: &[String],
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, ORGANIZATION);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - BACKDATED).into();
    params.not_after = not_after.into();
    Ok(params)
}

fn read(path: &Path) -> Result<String, DevError> {
    fs::read_to_string(path).map_err(|source| DevError::Read {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), DevError> {
    replace(path, bytes, mode).map_err(|source| write_error(path, source))
}

fn write_error(path: &Path, source: io::Error) -> DevError {
    DevError::Write {
        path: path.to_owned(),
        source,
    }
}
