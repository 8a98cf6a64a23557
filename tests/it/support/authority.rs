//! A certificate authority for one broker, and that broker's certificate for localhost and 127.0.0.1.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// A certificate for localhost and 127.0.0.1 as text: chain and key.
pub struct Pair {
    pub chain: String,
    pub key: String,
}

/// The three files a TLS listener and its clients need.
pub struct Authority {
    pub ca: PathBuf,
    pub chain: PathBuf,
    pub key: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
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
        let made = Self {
            ca: folder.join("ca.pem"),
            chain: folder.join("broker.pem"),
            key: folder.join("broker.key"),
            issuer: authority,
        };
        let pair = made.pair();
        fs::write(&made.ca, made.issuer.pem()).unwrap();
        fs::write(&made.chain, pair.chain).unwrap();
        fs::write(&made.key, pair.key).unwrap();
        made
    }

    /// A new certificate, with a key of its own.
    pub fn pair(&self) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Pair {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        }
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
