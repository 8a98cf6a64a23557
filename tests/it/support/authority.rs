//! A certificate authority for one broker, and that broker's certificate for localhost and 127.0.0.1.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// The three files a TLS listener and its clients need.
pub struct Authority {
    pub ca: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// Makes them in `folder`.
    pub fn make(folder: &Path) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // rcgen gives every certificate the same name, and OpenSSL takes one that its namesake issued for self-signed.
        authority
            .distinguished_name
            .push(DnType::CommonName, "Tidegate test authority");
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();

        let made = Self {
            ca: folder.join("ca.pem"),
            chain: folder.join("broker.pem"),
            key: folder.join("broker.key"),
        };
        fs::write(&made.ca, authority.pem()).unwrap();
        fs::write(&made.chain, certificate.pem()).unwrap();
        fs::write(&made.key, key.serialize_pem()).unwrap();
        made
    }
}
