//! What an X.509 certificate says, as far as a server cares (RFC 5280).

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// `sha1WithRSAEncryption` and `ecdsa-with-SHA1` (RFC 3279 2.2.1, 2.2.3).
const SHA1_SIGNATURES: [&str; 2] = ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1"];

/// Curves by object identifier (RFC 5480 2.1.1.1).
const CURVES: [(&str, &str); 3] = [
    ("1.2.840.10045.3.1.7", "P-256"),
    ("1.3.132.0.34", "P-384"),
    ("1.3.132.0.35", "P-521"),
];

/// RFC 8410 3.
const ED25519: &str = "1.3.101.112";

/// The facts of one certificate.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// DNS names in lower case, then IP addresses.
    pub(super) names: Vec<String>,
    pub(super) subject: String,
    pub(super) issuer: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// DER of the public key with its algorithm.
    pub(super) public_key: Vec<u8>,
    pub(super) key: Key,
    pub(super) is_ca: bool,
    pub(super) signed_with_sha1: bool,
    subject_der: Vec<u8>,
    issuer_der: Vec<u8>,
}

/// The kind of a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// Size in bits.
    Rsa(usize),
    Ecdsa(&'static str),
    Ed25519,
    Other(String),
}

impl Facts {
    /// `None` when the bytes are not a certificate.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            names: names(&certificate),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            not_before: instant(certificate.validity().not_before.timestamp()),
            not_after: instant(certificate.validity().not_after.timestamp()),
            public_key: certificate.public_key().raw.to_vec(),
            key: Key::of(&certificate),
            is_ca: certificate.is_ca(),
            signed_with_sha1: SHA1_SIGNATURES.contains(
                &certificate
                    .signature_algorithm
                    .algorithm
                    .to_id_string()
                    .as_str(),
            ),
            subject_der: certificate.subject().as_raw().to_vec(),
            issuer_der: certificate.issuer().as_raw().to_vec(),
        })
    }

    /// Issuer and subject are one: nothing stands above this certificate.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }

    /// The names match; the signature is for the clients to check.
    pub(super) fn issued(&self, other: &Self) -> bool {
        self.subject_der == other.issuer_der
    }

    /// What to call this certificate in a message: its names, or its subject.
    pub(super) fn title(&self) -> String {
        match self.names.as_slice() {
            [] if self.subject.is_empty() => "without a name".to_owned(),
            [] => self.subject.clone(),
            names => names.join(", "),
        }
    }
}

impl Key {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        let info = certificate.public_key();
        let algorithm = info.algorithm.algorithm.to_id_string();
        if algorithm == ED25519 {
            return Self::Ed25519;
        }
        if let Ok(PublicKey::RSA(rsa)) = info.parsed() {
            return Self::Rsa(rsa.key_size());
        }
        let curve = info
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.as_oid().ok())
            .map(|oid| oid.to_id_string());
        match CURVES
            .iter()
            .find(|(oid, _)| curve.as_deref() == Some(*oid))
        {
            Some((_, name)) => Self::Ecdsa(name),
            None => Self::Other(curve.unwrap_or(algorithm)),
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa(bits) => write!(out, "RSA {bits}"),
            Self::Ecdsa(curve) => write!(out, "ECDSA {curve}"),
            Self::Ed25519 => write!(out, "Ed25519"),
            Self::Other(oid) => write!(out, "unknown ({oid})"),
        }
    }
}

/// Subject alternative names (RFC 5280 4.2.1.6); the subject's common name is not one of them (RFC 9525 2).
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let mut dns = Vec::new();
    let mut addresses = Vec::new();
    for name in &extension.value.general_names {
        if let GeneralName::DNSName(name) = name {
            dns.push(name.to_ascii_lowercase());
        } else if let GeneralName::IPAddress(bytes) = name {
            addresses.extend(address(bytes).map(|address| address.to_string()));
        }
    }
    dns.append(&mut addresses);
    dns
}

pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Seconds since 1970, which may be negative.
fn instant(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moved = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moved.unwrap_or(SystemTime::UNIX_EPOCH)
}
