//! Proofs for a CA that a name leads here (TLS-ALPN-01, RFC 8737): a certificate that is shown to whoever offers `acme-tls/1` and
//! nothing else, and to nobody else.
//!
//! SECURITY: they have a TLS configuration of their own. It asks for no client certificate, and for that very reason hands out no
//! tickets: what begins under it can go on under no other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::{Asked, Noting};

use super::policy::FROM_TLS12;
use super::provider;

/// RFC 8737 6.2.
const PROTOCOL: &[u8] = b"acme-tls/1";

/// Why a proof cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    #[error("its certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("its certificate cannot be read: {0}")]
    Read(#[from] rustls::pki_types::pem::Error),
    #[error("its certificate cannot be used: {0}")]
    Use(#[from] rustls::Error),
}

/// A certificate and its key that prove one name, in PEM: processes that share the state show each other's.
#[derive(Debug, Clone)]
pub struct Proof {
    pub name: String,
    pub pem: String,
}

impl Proof {
    /// `digest` is the SHA-256 of the key authorization.
    ///
    /// # Errors
    /// A name that no certificate can have.
    pub fn make(name: &str, digest: &[u8]) -> Result<Self, ChallengeError> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params
            .custom_extensions
            .push(CustomExtension::new_acme_identifier(digest));
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            name: name.to_owned(),
            pem: format!("{}{}", key.serialize_pem(), certificate.pem()),
        })
    }

    fn key(&self) -> Result<CertifiedKey, ChallengeError> {
        let certificate = CertificateDer::from_pem_slice(self.pem.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(self.pem.as_bytes())?;
        let key = provider().key_provider.load_private_key(key)?;
        Ok(CertifiedKey::new(vec![certificate], key))
    }
}

/// What is to be proven now; most of the time nothing.
#[derive(Debug, Default)]
pub struct Challenges(ArcSwapOption<Pending>);

/// Proofs that a CA is about to look at.
#[derive(Debug)]
pub struct Pending {
    pub tls: Arc<ServerConfig>,
    names: HashSet<String>,
    asked: AtomicUsize,
}

impl Challenges {
    /// From now on these and no others.
    ///
    /// # Errors
    /// A proof that cannot be read; nothing has changed then.
    pub fn show(&self, proofs: &[Proof]) -> Result<(), ChallengeError> {
        if proofs.is_empty() {
            self.0.store(None);
            return Ok(());
        }
        let mut keys = HashMap::new();
        for proof in proofs {
            keys.insert(proof.name.clone(), Arc::new(proof.key()?));
        }
        let names = keys.keys().cloned().collect();
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(FROM_TLS12)?
            .with_no_client_auth()
            .with_cert_resolver(Noting::new(Arc::new(ByName(keys))));
        tls.alpn_protocols = vec![PROTOCOL.to_vec()];
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        tls.max_early_data_size = 0;
        self.0.store(Some(Arc::new(Pending {
            tls: Arc::new(tls),
            names,
            asked: AtomicUsize::new(0),
        })));
        Ok(())
    }

    pub fn pending(&self) -> Option<Arc<Pending>> {
        self.0.load_full()
    }
}

impl Pending {
    /// Whether a CA asks for one of the proofs. RFC 8737 3: that protocol and no other.
    pub fn is_asked_by(&self, asked: &Asked) -> bool {
        let name = asked.name.as_ref();
        let is_it =
            asked.protocols == [PROTOCOL] && name.is_some_and(|name| self.names.contains(name));
        if is_it {
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        is_it
    }

    /// How often a CA has come here.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct ByName(HashMap<String, Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get(hello.server_name()?).map(Arc::clone)
    }
}
