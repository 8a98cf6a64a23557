//! Where clients come in, and what they are shown: addresses, certificates, TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::acme::AcmeCertificate;
use crate::config::networks::Networks;
use crate::config::problem::Place;

/// One listening address.
#[derive(Debug, Clone)]
pub struct Listener {
    pub address: SocketAddr,
    /// Label in logs and metrics; the address unless named.
    pub name: String,
    pub speaks: Speaks,
    /// Clients are offered HTTP/2. Only with `Speaks::Tls`.
    pub http2: bool,
    /// Who must begin with a PROXY header; `None` where nobody does.
    pub proxy_protocol: Option<Networks>,
    /// `None` where clients are not asked for a certificate. Only with `Speaks::Tls`.
    pub client_certificates: Option<ClientCertificates>,
    pub place: Place,
}

/// Whose certificates clients may, or must, show.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// A client without one is refused.
    pub required: bool,
    /// PEM.
    pub ca: PathBuf,
    pub ca_place: Place,
    pub crl: Vec<CrlFile>,
}

/// A certificate revocation list, PEM or DER.
#[derive(Debug, Clone)]
pub struct CrlFile {
    pub path: PathBuf,
    pub place: Place,
}

/// What a listener expects as the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// TLS, then HTTP with the routes. The default.
    Tls,
    /// HTTP without TLS with the routes (`plain: routes`): behind another TLS end, or on a private network.
    Plain,
    /// HTTP without TLS, every request answered by a redirect to https (`plain: redirect`).
    PlainRedirect,
}

/// A certificate for clients, and where it comes from.
#[derive(Debug, Clone)]
pub enum Certificate {
    Files(CertificateFiles),
    Acme(AcmeCertificate),
}

/// A certificate chain (leaf first) and its private key, both PEM.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub chain_place: Place,
    /// May be the same file as `chain`.
    pub key: PathBuf,
    pub key_place: Place,
}

/// TLS towards clients.
#[derive(Debug, Clone)]
pub struct TlsPolicy {
    pub strictness: Strictness,
    pub minimum: TlsVersion,
    /// Secrets that replicas share; `None`: the process makes its own.
    pub ticket_keys: Option<TicketKeysFile>,
    /// Told with every answer over TLS; `None` tells nothing.
    pub hsts: Option<Hsts>,
}

/// Strict-Transport-Security (RFC 6797).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    pub max_age: Duration,
    pub include_subdomains: bool,
    /// Only with a year and `include_subdomains`.
    pub preload: bool,
}

#[derive(Debug, Clone)]
pub struct TicketKeysFile {
    pub path: PathBuf,
    pub place: Place,
}

/// Which clients are served over TLS 1.2 (`tls.policy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    Modern,
    Compatible,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    Tls12,
    Tls13,
}
