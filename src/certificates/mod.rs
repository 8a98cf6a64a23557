//! PEM files → rustls configurations, for the clients' side (`server`) and the brokers' side (`broker`).
//!
//! Every mistake in the files is a `Problem` with the place of the key that named the file, all of them at once.
//! rustls, its provider (aws-lc-rs, always given explicitly) and X.509 are known to this folder and to nothing above it
//! but the finished `Arc<ServerConfig>` and `Arc<ClientConfig>`.

mod anyone;
mod atomic;
mod broker;
mod chain;
pub mod challenge;
mod clients;
mod coverage;
pub mod dev;
mod expiry;
mod facts;
mod pem;
mod policy;
mod resolver;
mod stored;
mod subject;
mod tickets;
mod trust;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use crate::config::model::{Certificate, Config, Speaks};
use crate::config::{Place, Problem};
use crate::tls::Noting;

use self::chain::Loaded;
use self::policy::Order;
use self::resolver::{Awaited, Resolver, Table};
use self::tickets::{Scope, Source};

pub use self::atomic::replace;
pub use self::broker::{broker, directory};
pub use self::challenge::Challenges;
pub use self::clients::naming_refused;
pub use self::expiry::{Expiry, Kind, expiries};
pub use self::policy::ClientTls;
pub use self::stored::{Kept, Stored, issued, kept};
pub use self::subject::{has_ended, holder, subject_of};
pub use self::tickets::Tickets;

/// Application protocols we answer on the clients' side, best first (RFC 7301).
const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];
const ALPN_WITHOUT_HTTP2: &[&[u8]] = &[b"http/1.1"];

/// TLS 1.3 tickets that a new browser is sent (RFC 8446 4.6.1): it resumes two connections at once (the page and its session)
/// with tickets it must not use twice. All others need one (`Hello::needs_one_ticket`).
const TICKETS: usize = 2;

/// TLS towards clients, ready for use.
#[derive(Debug)]
pub struct ServerCertificates {
    /// For listeners that do not ask for certificates.
    pub tls: ClientTls,
    /// In the order of the listeners; `None` for one without TLS.
    pub by_listener: Vec<Option<ClientTls>>,
    /// In the order of the configuration.
    pub certificates: Vec<Report>,
    /// What works today for some clients, or for a while. Places as for problems.
    pub warnings: Vec<Problem>,
    pub shown: Shown,
}

/// What an operator wants to know about one certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The chain file.
    pub path: PathBuf,
    /// Subject alternative names: DNS names in lower case, then IP addresses. Never empty.
    pub names: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    /// `ECDSA P-256`, `RSA 2048`, …
    pub key: String,
    /// Distinguished name of the issuer.
    pub issuer: String,
    /// Certificates in the chain file, the leaf included.
    pub chain_length: usize,
}

/// Reads every certificate of the configuration and builds the TLS configuration for clients.
///
/// # Errors
/// Every problem of every file, and every route whose host no certificate covers.
pub fn server(config: &Config, tickets: &Tickets) -> Result<ServerCertificates, Vec<Problem>> {
    server_at(config, tickets, SystemTime::now())
}

/// `server`, with the time that validity is judged by.
///
/// # Errors
/// As `server`.
pub fn server_at(
    config: &Config,
    tickets: &Tickets,
    now: SystemTime,
) -> Result<ServerCertificates, Vec<Problem>> {
    let provider = provider();
    let mut problems = Vec::new();
    let mut warnings = Vec::new();
    let mut files = Vec::new();
    for certificate in &config.certificates {
        files.push(match certificate {
            Certificate::Files(pair) => chain::load(pair, now, &provider, &mut warnings)
                .map_err(|found| problems.extend(found))
                .ok(),
            Certificate::Acme(_) => None,
        });
    }
    let (loaded, awaited) =
        with_stored(config, &files, now, &mut warnings).unwrap_or_else(|problem| {
            problems.push(problem);
            (Vec::new(), Awaited::default())
        });
    if let Some(acme) = &config.acme {
        problems.extend(directory(acme).err());
    }
    let verifiers = verifiers(config, now, &provider, &mut warnings, &mut problems);
    let tickets = Source::of(config.tls.ticket_keys.as_ref(), tickets)
        .map_err(|problem| problems.push(problem));
    // A host is called uncovered only when every certificate could be read: otherwise one cause makes two problems.
    if problems.is_empty() {
        problems.extend(coverage::uncovered(config, &loaded));
    }
    let (Ok(tickets), true) = (tickets, problems.is_empty()) else {
        return Err(problems);
    };
    let place = match config.certificates.first() {
        Some(Certificate::Files(files)) => files.chain_place.clone(),
        Some(Certificate::Acme(ordered)) => ordered.place.clone(),
        None => Place::default(),
    };
    let resolver = Arc::new(Resolver::new(Table::new(&loaded, &awaited, now)));
    let shared = Listening {
        config,
        resolver: &resolver,
        tickets: &tickets,
    };
    let tls = shared.tls(None, &place).map_err(|problem| vec![problem])?;
    let by_listener = shared.by_listener(verifiers, &tls)?;
    Ok(ServerCertificates {
        tls,
        by_listener,
        certificates: loaded.into_iter().map(|one| one.report).collect(),
        warnings,
        shown: Shown { resolver, files },
    })
}

/// Those of the operator's files, with those that a CA has issued to us, in the order of the configuration.
fn with_stored(
    config: &Config,
    files: &[Option<Loaded>],
    now: SystemTime,
    warnings: &mut Vec<Problem>,
) -> Result<(Vec<Loaded>, Awaited), Problem> {
    let (mut loaded, mut awaited) = (Vec::new(), Awaited::default());
    for (index, (certificate, file)) in config.certificates.iter().zip(files).enumerate() {
        let Certificate::Acme(ordered) = certificate else {
            loaded.extend(file.clone());
            continue;
        };
        let found = stored::load(ordered, now, &provider(), warnings)?;
        awaited.is_default |= index == 0 && found.is_empty();
        let is_there = |name: &&String| found.iter().any(|one| one.report.names.contains(name));
        let missing = ordered.names.iter().filter(|name| !is_there(name));
        awaited.names.extend(missing.cloned());
        loaded.extend(found);
    }
    Ok((loaded, awaited))
}

/// What the listeners show, to be brought up to date when a CA has issued. Nothing else of a configuration has a part in it: a fault
/// in another file must not keep a new certificate from being shown.
#[derive(Debug)]
pub struct Shown {
    resolver: Arc<Resolver>,
    /// The operator's own, as they were read; in the order of the configuration.
    files: Vec<Option<Loaded>>,
}

impl Shown {
    /// Reads what is stored, and shows it. `config` is the one that this came from.
    ///
    /// # Errors
    /// A file that cannot be read: what was shown is shown on.
    pub fn renew(&self, config: &Config) -> Result<(Vec<Report>, Vec<Problem>), Problem> {
        let (now, mut warnings) = (SystemTime::now(), Vec::new());
        let (loaded, awaited) = with_stored(config, &self.files, now, &mut warnings)?;
        self.resolver.exchange(Table::new(&loaded, &awaited, now));
        let reports = loaded.into_iter().map(|one| one.report).collect();
        Ok((reports, warnings))
    }
}

/// Who is believed, and a digest of it.
type Verifier = (Arc<dyn ClientCertVerifier>, Scope);

/// In the order of the listeners; `None` for one that asks for no certificate.
fn verifiers(
    config: &Config,
    now: SystemTime,
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<Problem>,
    problems: &mut Vec<Problem>,
) -> Vec<Option<Verifier>> {
    let mut verifiers = Vec::with_capacity(config.listeners.len());
    for listener in &config.listeners {
        let verifier = listener
            .client_certificates
            .as_ref()
            .map(|asked| clients::verifier(asked, now, provider, warnings));
        verifiers.push(verifier.and_then(|read| read.map_err(|found| problems.extend(found)).ok()));
    }
    verifiers
}

/// What the listeners of one configuration share.
struct Listening<'a> {
    config: &'a Config,
    resolver: &'a Arc<Resolver>,
    tickets: &'a Source,
}

impl Listening<'_> {
    /// `shared` is for listeners that ask for no certificate.
    fn by_listener(
        &self,
        verifiers: Vec<Option<Verifier>>,
        shared: &ClientTls,
    ) -> Result<Vec<Option<ClientTls>>, Vec<Problem>> {
        let listeners = self.config.listeners.iter().zip(verifiers);
        let configs = listeners.map(|(listener, verifier)| match verifier {
            _ if listener.speaks != Speaks::Tls => Ok(None),
            None if listener.http2 => Ok(Some(shared.clone())),
            verifier => {
                let own = match verifier {
                    None => Ok(shared.clone()),
                    verifier => self.tls(verifier, &listener.place),
                };
                let own = own.map_err(|problem| vec![problem])?;
                Ok(Some(own.with(|tls| {
                    tls.alpn_protocols = alpn(listener.http2);
                })))
            }
        });
        configs.collect()
    }

    fn tls(&self, verifier: Option<Verifier>, place: &Place) -> Result<ClientTls, Problem> {
        let (verifier, scope) =
            verifier.unwrap_or_else(|| (WebPkiClientVerifier::no_client_auth(), Scope::default()));
        let ordered = |order| self.ordered(order, &verifier, &scope, place);
        Ok(ClientTls::new(
            ordered(Order::Usual)?,
            ordered(Order::ChaCha)?,
        ))
    }

    fn ordered(
        &self,
        order: Order,
        verifier: &Arc<dyn ClientCertVerifier>,
        scope: &Scope,
        place: &Place,
    ) -> Result<ServerConfig, Problem> {
        let failed = |error| Problem::new(place, format!("TLS cannot be set up: {error}"));
        let mut tls = ServerConfig::builder_with_provider(policy::provider(order))
            .with_protocol_versions(policy::versions(self.config.tls.minimum))
            .map_err(failed)?
            .with_client_cert_verifier(Arc::clone(verifier))
            .with_cert_resolver(Noting::new(Arc::<Resolver>::clone(self.resolver)));
        tls.alpn_protocols = alpn(true);
        // Resumption by tickets only: nothing is kept for clients that are away.
        tls.ticketer = self.tickets.ticketer(scope.clone());
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = TICKETS;
        // SECURITY: 0-RTT data can be replayed (RFC 8446 8), and an upgrade or a CONNECT must not be.
        tls.max_early_data_size = 0;
        policy::apply(self.config.tls.strictness, &mut tls);
        Ok(tls)
    }
}

fn alpn(http2: bool) -> Vec<Vec<u8>> {
    let names = if http2 { ALPN } else { ALPN_WITHOUT_HTTP2 };
    names.iter().map(|name| name.to_vec()).collect()
}

/// For all but the handshakes of clients: aws-lc-rs with the post-quantum group X25519MLKEM768 first (the
/// `prefer-post-quantum` feature of rustls).
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
