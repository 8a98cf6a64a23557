//! What one PEM file holds, and a sentence for what it holds instead of what was wanted.
//!
//! Blocks of any order and kind are accepted (RFC 7468); only certificates and private keys are kept.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject, SectionKind};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::config::{Place, Problem};

/// DER: a constructed SEQUENCE whose length takes more than one byte (X.690 8.9); every certificate and key is one.
const DER_START: [u8; 1] = [0x30];

/// PKCS#12: after the outer SEQUENCE comes `version INTEGER (3)` (RFC 7292 4).
const PKCS12_VERSION: [u8; 3] = [0x02, 0x01, 0x03];

/// How far into a file the PKCS#12 version can stand: the SEQUENCE's tag and up to five bytes of length.
const PKCS12_REACH: usize = 9;

/// The usable content of a PEM file.
pub(super) struct PemFile {
    path: PathBuf,
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) keys: Vec<PrivateKeyDer<'static>>,
    kinds: Vec<Kind>,
}

/// What one block, or a file without blocks, is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    PrivateKey,
    EncryptedKey,
    Csr,
    PublicKey,
    Crl,
    Other,
    Der,
    Pkcs12,
    Empty,
    NotPem,
}

impl PemFile {
    /// Reads the file; `place` is the key that named it.
    pub(super) fn read(path: &Path, place: &Place) -> Result<Self, Problem> {
        let bytes = std::fs::read(path).map_err(|error| unreadable(path, place, &error))?;
        let mut file = Self {
            path: path.to_owned(),
            certificates: Vec::new(),
            keys: Vec::new(),
            kinds: kinds(&bytes),
        };
        if file.kinds.contains(&Kind::EncryptedKey)
            && file.kinds.iter().all(|kind| *kind == Kind::EncryptedKey)
        {
            return Ok(file); // The old encrypted form (RFC 1421 headers) does not even decode.
        }
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&bytes) {
            let (kind, der) = section.map_err(|error| damaged(path, place, &error))?;
            file.keep(kind, der);
        }
        Ok(file)
    }

    /// The revocation lists of a file, at least one; a file without PEM blocks is taken for one list in DER, the form that
    /// CAs publish (RFC 5280 4.2.1.13).
    pub(super) fn revocation_lists(
        path: &Path,
        place: &Place,
    ) -> Result<Vec<CertificateRevocationListDer<'static>>, Problem> {
        let bytes = std::fs::read(path).map_err(|error| unreadable(path, place, &error))?;
        let kinds = kinds(&bytes);
        if kinds == [Kind::Der] {
            return Ok(vec![bytes.into()]);
        }
        let lists = CertificateRevocationListDer::pem_slice_iter(&bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| damaged(path, place, &error))?;
        if lists.is_empty() {
            let file = Self {
                path: path.to_owned(),
                certificates: Vec::new(),
                keys: Vec::new(),
                kinds,
            };
            let message = format!(
                "no revocation list in {}: {}",
                path.display(),
                file.contents()
            );
            return Err(Problem::new(place, message)
                .help("a revocation list begins with -----BEGIN X509 CRL-----"));
        }
        Ok(lists)
    }

    fn keep(&mut self, kind: SectionKind, der: Vec<u8>) {
        if kind == SectionKind::Certificate {
            self.certificates.push(der.into());
        } else if let Some(key) = PrivateKeyDer::from_pem(kind, der) {
            self.keys.push(key);
        }
    }

    /// The file was to hold a certificate and holds none.
    pub(super) fn no_certificate(&self, place: &Place) -> Problem {
        let path = self.path.display();
        let problem = Problem::new(
            place,
            format!("no certificate in {path}: {}", self.contents()),
        );
        if self.has(Kind::PrivateKey) || self.has(Kind::EncryptedKey) {
            return problem.help("it has a private key: were two files exchanged?");
        }
        if self.has(Kind::Csr) {
            return problem.help(
                "the request goes to the CA; put the certificate that the CA sends back here",
            );
        }
        match self.binary_help("openssl x509 -inform der", "-nokeys") {
            Some(help) => problem.help(help),
            None => problem.help("a certificate begins with -----BEGIN CERTIFICATE-----"),
        }
    }

    /// The file was to hold a private key and holds none that can be used.
    pub(super) fn no_key(&self, place: &Place) -> Problem {
        let path = self.path.display();
        if self.has(Kind::EncryptedKey) {
            return Problem::new(place, format!("the private key in {path} is encrypted"))
                .help(format!(
                    "openssl pkey -in {path} -out plain.key; then protect the file by its permissions (mode 0600)"
                ));
        }
        let problem = Problem::new(
            place,
            format!("no private key in {path}: {}", self.contents()),
        );
        if self.has(Kind::Certificate) {
            return problem.help(
                "name the key's own file, or put the key into this file behind the certificates",
            );
        }
        match self.binary_help("openssl pkey -inform der", "-nocerts -nodes") {
            Some(help) => problem.help(help),
            None => problem.help("a private key begins with -----BEGIN PRIVATE KEY-----"),
        }
    }

    fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    fn binary_help(&self, der: &str, pkcs12: &str) -> Option<String> {
        let path = self.path.display();
        if self.has(Kind::Der) {
            Some(format!("convert it: {der} -in {path} -out {path}.pem"))
        } else if self.has(Kind::Pkcs12) {
            Some(format!(
                "convert it: openssl pkcs12 -in {path} {pkcs12} -out {path}.pem"
            ))
        } else {
            None
        }
    }

    /// A sentence about what stands in the file.
    fn contents(&self) -> String {
        let mut said: Vec<&str> = Vec::new();
        for kind in &self.kinds {
            if !said.contains(&kind.noun()) {
                said.push(kind.noun());
            }
        }
        match self.kinds.first() {
            Some(Kind::Empty | Kind::NotPem) | None => said.concat(),
            Some(_) => format!("this is {}", said.join(" and ")),
        }
    }
}

impl Kind {
    fn of_label(label: &str) -> Self {
        match label {
            "CERTIFICATE" => Self::Certificate,
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => Self::PrivateKey,
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Csr,
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::PublicKey,
            "X509 CRL" => Self::Crl,
            _ => Self::Other,
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Certificate => "a certificate",
            Self::PrivateKey => "a private key",
            Self::EncryptedKey => "an encrypted private key",
            Self::Csr => "a certificate signing request (CSR)",
            Self::PublicKey => "a public key",
            Self::Crl => "a certificate revocation list",
            Self::Other => "a PEM block of another kind",
            Self::Der => "binary (DER), not PEM",
            Self::Pkcs12 => "a PKCS#12 bundle (.p12, .pfx), not PEM",
            Self::Empty => "the file is empty",
            Self::NotPem => "the file has no PEM block (-----BEGIN …-----)",
        }
    }
}

/// The kinds of all blocks, in order; at least one.
fn kinds(bytes: &[u8]) -> Vec<Kind> {
    if bytes.trim_ascii().is_empty() {
        return vec![Kind::Empty];
    }
    if bytes.starts_with(&DER_START) {
        let head = &bytes[..bytes.len().min(PKCS12_REACH)];
        let pkcs12 = head
            .windows(PKCS12_VERSION.len())
            .any(|at| at == PKCS12_VERSION);
        return vec![if pkcs12 { Kind::Pkcs12 } else { Kind::Der }];
    }
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let label = line
            .strip_prefix("-----BEGIN ")
            .and_then(|rest| rest.strip_suffix("-----"));
        if let Some(label) = label {
            found.push(Kind::of_label(label));
        } else if line.starts_with("Proc-Type:") && line.ends_with("ENCRYPTED") {
            found.pop(); // RFC 1421 4.6.1.1: the block that just began is encrypted
            found.push(Kind::EncryptedKey);
        }
    }
    if found.is_empty() {
        found.push(Kind::NotPem);
    }
    found
}

fn unreadable(path: &Path, place: &Place, error: &io::Error) -> Problem {
    let path = path.display();
    if error.kind() == ErrorKind::NotFound {
        return Problem::new(place, format!("no such file: {path}"));
    }
    let problem = Problem::new(place, format!("{path} cannot be read: {error}"));
    if error.kind() == ErrorKind::PermissionDenied {
        return problem
            .help("let the user or group that tidegate runs as read it (mode 0640), not everyone");
    }
    problem
}

fn damaged(path: &Path, place: &Place, error: &pem::Error) -> Problem {
    Problem::new(place, format!("{} is damaged PEM: {error}", path.display()))
        .help("copy the file again, whole and as text")
}
