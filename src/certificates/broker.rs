//! TLS towards brokers: whom a pool trusts, and what it offers; and towards the directory of a CA, likewise.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use crate::config::acme::Acme;
use crate::config::model::{BrokerTls, Transport, Trust};
use crate::config::{Place, Problem};

use super::anyone::Anyone;
use super::chain;
use super::pem::PemFile;
use super::policy::FROM_TLS12;
use super::provider;

/// Application protocol offered to wss brokers and web applications (RFC 7301); without it some answer h2.
const WEBSOCKET_ALPN: &[u8] = b"http/1.1";

/// Brokers whose sessions are kept for resumption; as many names as a large pool has.
const RESUMABLE_BROKERS: usize = 256;

/// The TLS configuration for the brokers of one pool that are reached by `transport`.
///
/// wss and https offer `http/1.1` as application protocol, every other transport none: brokers on mqtts know no name for MQTT
/// that all agree on. TLS 1.2 and 1.3, sessions are resumed.
///
/// # Errors
/// A CA file that cannot be read or holds no certificate; a client certificate that cannot be used with its key.
pub fn broker(tls: &BrokerTls, transport: Transport) -> Result<Arc<ClientConfig>, Problem> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(FROM_TLS12)
        .map_err(|error| Problem::new(&tls.place, format!("TLS cannot be set up: {error}")))?;
    let own = Arc::clone(&provider);
    let builder = match &tls.trust {
        Trust::System => builder.with_root_certificates(system_roots()),
        Trust::Ca(file) => builder.with_root_certificates(roots_of(file, &tls.place)?),
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider))),
    };
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let key = chain::load_client(files, SystemTime::now(), &own)?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
    };
    if matches!(transport, Transport::Wss | Transport::Https) {
        config.alpn_protocols = vec![WEBSOCKET_ALPN.to_vec()];
    }
    config.resumption = Resumption::in_memory_sessions(RESUMABLE_BROKERS);
    Ok(Arc::new(config))
}

/// The TLS configuration for a CA's directory.
///
/// # Errors
/// A file of roots that cannot be read or holds no certificate.
pub fn directory(acme: &Acme) -> Result<Arc<ClientConfig>, Problem> {
    let tls = BrokerTls {
        trust: acme.trust.clone(),
        server_name: None,
        certificate: None,
        place: acme.place.clone(),
    };
    broker(&tls, Transport::Wss)
}

/// The operating system's roots, or Mozilla's as built in: a container from scratch has none.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!(%error, "a root certificate of the system was skipped");
    }
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if unusable > 0 {
        tracing::debug!(unusable, "root certificates of the system were skipped");
    }
    if roots.is_empty() {
        tracing::info!("the system has no root certificates; the built-in Mozilla set is used");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn roots_of(path: &Path, place: &Place) -> Result<RootCertStore, Problem> {
    let file = PemFile::read(path, place)?;
    if file.certificates.is_empty() {
        return Err(file.no_certificate(place));
    }
    let mut roots = RootCertStore::empty();
    for (index, certificate) in file.certificates.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            Problem::new(
                place,
                format!(
                    "certificate {} in {} cannot be a CA: {error}",
                    index + 1,
                    path.display()
                ),
            )
        })?;
    }
    Ok(roots)
}
