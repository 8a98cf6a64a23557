//! Certificates that the gateway orders itself, from a real CA that comes to see each name.

mod faults;
mod orders;
mod sharing;
mod state;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::support::ca::Ca;
use crate::support::eventually;
use crate::support::gateway::pool_of;
use crate::support::program::Program;

/// Whoever the server says it is: which certificate it shows is the question.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _above: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is tried".into()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // What rustls has for it reads no certificate with a critical extension that it does not know.
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let provider = aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A handshake for this name that offers these protocols.
async fn greet(
    address: SocketAddr,
    name: &str,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    greet_over(tcp, name, protocols).await
}

async fn greet_over<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    stream: S,
    name: &str,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<S>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn leaf<S>(stream: &TlsStream<S>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// What an ordinary client of this name is shown.
async fn shown(address: SocketAddr, name: &str) -> std::io::Result<CertificateDer<'static>> {
    Ok(leaf(&greet(address, name, &[b"http/1.1"]).await?))
}

/// Waits until the CA's certificate is shown for this name.
async fn issued(address: SocketAddr, name: &str) -> CertificateDer<'static> {
    let mut last = None;
    let is_issued = async || {
        last = shown(address, name).await.ok().filter(is_from_ca);
        last.is_some()
    };
    assert!(
        eventually(is_issued).await,
        "no certificate of the CA for {name}"
    );
    last.unwrap()
}

fn is_from_ca(leaf: &CertificateDer<'static>) -> bool {
    let (_, certificate) = X509Certificate::from_der(leaf).unwrap();
    certificate.issuer().to_string().contains("Pebble")
}

fn names(leaf: &CertificateDer<'static>) -> Vec<String> {
    let (_, certificate) = X509Certificate::from_der(leaf).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let names = names.value.general_names.iter().map(ToString::to_string);
    let mut names: Vec<_> = names
        .map(|name| name.replace("DNSName(", "").replace(')', ""))
        .collect();
    names.sort();
    names
}

/// The alert that a client was refused with.
fn alert(error: &std::io::Error) -> rustls::AlertDescription {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("no alert: {error}"),
    }
}

/// A CA, a folder for the state, and a configuration that orders these names.
struct Setting {
    ca: Ca,
    folder: TempDir,
}

impl Setting {
    async fn new() -> Self {
        Self {
            ca: Ca::open().await,
            folder: TempDir::with_prefix("tidegate-acme-").unwrap(),
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// One certificate for each of the lists.
    fn yaml(&self, certificates: &[&[&str]]) -> String {
        let certificates: Vec<_> = certificates
            .iter()
            .map(|names| format!("{{ acme: [{}] }}", names.join(", ")))
            .collect();
        format!(
            "certificates: [{}]\n{}{}",
            certificates.join(", "),
            self.ca.section(&self.state()),
            pool_of(&["mqtt://127.0.0.1:1".to_owned()])
        )
    }

    /// The files below the state whose name has this in it.
    fn files(&self, part: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        gather(&self.state(), &mut found);
        found.retain(|path| path.to_string_lossy().contains(part));
        found
    }

    /// Where the certificate of these names is kept.
    fn file(&self, names: &[&str]) -> PathBuf {
        let yaml = format!(
            "listeners: [{{ address: \"[::]:443\" }}]\n{}",
            self.yaml(&[names])
        );
        let loaded = tidegate::config::parse(Path::new("test.yaml"), &yaml).unwrap();
        loaded
            .config
            .acme_certificates()
            .next()
            .unwrap()
            .file
            .clone()
    }
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            gather(&path, found);
        }
        found.push(path);
    }
}

async fn metric_is(program: &Program, name: &str, labels: &[&str], value: f64) {
    program.admin.metric_becomes(name, labels, value).await;
}
