//! A certificate authority for one broker, and that broker's certificate for localhost and 127.0.0.1.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

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

    /// A scripted listener's TLS, with the broker's certificate.
    pub fn acceptor(&self) -> TlsAcceptor {
        let chain = CertificateDer::pem_file_iter(&self.chain)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}
