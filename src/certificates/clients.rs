//! Verification of clients' certificates: whose are believed, and which were taken back (RFC 5280 5).
//!
//! SECURITY: without an answer the answer is no. A certificate whose CA has no revocation list is refused where the
//! listener has lists at all; only a list that is out of date is still used, since refusing every device at once because a
//! file was not renewed is the larger harm. That is a warning at load.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::X509Version;

use crate::config::model::{ClientCertificates, CrlFile};
use crate::config::{Place, Problem};

use super::facts::Facts;
use super::pem::PemFile;
use super::subject::holder;
use super::tickets::Scope;

/// Reads the files and builds the verifier.
pub(super) fn verifier(
    asked: &ClientCertificates,
    now: SystemTime,
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<Problem>,
) -> Result<(Arc<dyn ClientCertVerifier>, Scope), Vec<Problem>> {
    let authorities = authorities(&asked.ca, &asked.ca_place)?;
    let mut problems = Vec::new();
    let mut lists = Vec::new();
    for file in &asked.crl {
        match revocation_lists(file, &authorities, now, warnings) {
            Ok(found) => lists.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    if !lists.is_empty() {
        warnings.extend(uncovered(&authorities, &lists, &asked.ca_place));
    }
    let failed = |error: &dyn std::fmt::Display| {
        let message = format!("client certificates cannot be verified: {error}");
        vec![Problem::new(&asked.ca_place, message)]
    };
    let scope = scope(asked.required, &authorities, &lists);
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| failed(&error))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(lists);
    let builder = match asked.required {
        true => builder,
        false => builder.allow_unauthenticated(),
    };
    let verifier = builder.build().map_err(|error| failed(&error))?;
    Ok((Arc::new(Naming(verifier)), scope))
}

/// The same for the same CAs and lists, in whatever files. Where a certificate is required, no ticket of a client without one
/// may do.
fn scope(required: bool, authorities: &[CertificateDer<'_>], lists: &[List]) -> Scope {
    let mut digests: Vec<_> = authorities
        .iter()
        .map(|der| digest(&SHA256, der))
        .chain(lists.iter().map(|der| digest(&SHA256, der)))
        .collect();
    digests.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
    let mut all = Context::new(&SHA256);
    all.update(&[u8::from(required)]);
    for digest in digests {
        all.update(digest.as_ref());
    }
    all.finish().as_ref().to_vec()
}

/// The certificates of the file; all of them CAs.
fn authorities(path: &Path, place: &Place) -> Result<Vec<CertificateDer<'static>>, Vec<Problem>> {
    let file = PemFile::read(path, place).map_err(|problem| vec![problem])?;
    if file.certificates.is_empty() {
        return Err(vec![file.no_certificate(place)]);
    }
    let wrong = file
        .certificates
        .iter()
        .enumerate()
        .filter_map(|(index, der)| {
            let what = match Facts::read(der) {
                Some(facts) if facts.is_ca => return None,
                Some(facts) => format!("({}) is not a CA", facts.title()),
                None => "is damaged: it is not X.509".to_owned(),
            };
            let number = index + 1;
            let problem = Problem::new(
                place,
                format!("certificate {number} in {} {what}", path.display()),
            );
            Some(problem.help(
                "name the CA that issues your clients' certificates, not one that it has issued",
            ))
        });
    let problems: Vec<Problem> = wrong.collect();
    match problems.is_empty() {
        true => Ok(file.certificates),
        false => Err(problems),
    }
}

type List = CertificateRevocationListDer<'static>;

/// The lists of one file, each signed by one of the authorities.
fn revocation_lists(
    file: &CrlFile,
    authorities: &[CertificateDer<'static>],
    now: SystemTime,
    warnings: &mut Vec<Problem>,
) -> Result<Vec<List>, Problem> {
    let lists = PemFile::revocation_lists(&file.path, &file.place)?;
    let shown = file.path.display();
    for der in &lists {
        let Ok((_, list)) = CertificateRevocationList::from_der(der) else {
            return Err(Problem::new(
                &file.place,
                format!("the revocation list in {shown} is damaged"),
            ));
        };
        // RFC 5280 5.1.2.1: a list of today has extensions, and so version 2.
        if list.version() != Some(X509Version::V2) {
            return Err(Problem::new(
                &file.place,
                format!("the revocation list in {shown} is of version 1, which cannot be used"),
            )
            .help("`crlnumber = FILE` in the CA's configuration makes `openssl ca -gencrl` write version 2"));
        }
        if !authorities
            .iter()
            .any(|authority| has_signed(authority, &list))
        {
            let issuer = list.issuer();
            return Err(Problem::new(
                &file.place,
                format!("the revocation list in {shown} is not signed by a CA of this listener; its issuer is {issuer}"),
            )
            .help("add the certificate of that CA to `ca`, or name the list of a CA that is there"));
        }
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let end = list.next_update().map(|end| end.timestamp());
        if let Some(end) = end.filter(|end| u64::try_from(*end).map_or(true, |end| end <= now)) {
            let when = list
                .next_update()
                .map(|end| end.to_string())
                .unwrap_or_else(|| end.to_string());
            warnings.push(
                Problem::new(&file.place, format!("the revocation list in {shown} is out of date since {when}"))
                    .help("it is still used; fetch a new one from the CA, or newer revocations are missed"),
            );
        }
    }
    Ok(lists)
}

fn has_signed(authority: &CertificateDer<'_>, list: &CertificateRevocationList<'_>) -> bool {
    let Ok((_, authority)) = X509Certificate::from_der(authority) else {
        return false;
    };
    authority.subject().as_raw() == list.issuer().as_raw()
        && list.verify_signature(authority.public_key()).is_ok()
}

/// Authorities whose certificates are all refused, because nobody says which of them are revoked.
fn uncovered(
    authorities: &[CertificateDer<'static>],
    lists: &[List],
    place: &Place,
) -> Vec<Problem> {
    let covers = |authority: &CertificateDer<'_>| {
        lists.iter().any(|list| {
            CertificateRevocationList::from_der(list)
                .is_ok_and(|(_, list)| has_signed(authority, &list))
        })
    };
    let uncovered = authorities.iter().filter(|authority| !covers(authority));
    let warning = |authority| {
        let name = Facts::read(authority)
            .map(|facts| facts.title())
            .unwrap_or_default();
        Problem::new(
            place,
            format!(
                "no revocation list of the CA {name}: every certificate that it issued is refused"
            ),
        )
        .help("add its list to `crl`; it may be an empty one")
    };
    uncovered.map(warning).collect()
}

tokio::task_local! {
    /// Who was refused in the handshake that this task does now.
    static REFUSED: Arc<OnceLock<String>>;
}

/// Runs a handshake; also answers the subject of the client's certificate where that was refused. rustls tells an error
/// without the certificate, and an error of our own would cost the client its exact alert.
pub async fn naming_refused<T>(handshake: impl Future<Output = T>) -> (T, Option<String>) {
    let refused = Arc::new(OnceLock::new());
    let ended = REFUSED.scope(Arc::clone(&refused), handshake).await;
    (ended, refused.get().cloned())
}

/// The verifier of rustls, which also tells whom it refuses.
#[derive(Debug)]
struct Naming(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Naming {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now);
        if verified.is_err() {
            let subject =
                holder(end_entity).map_or_else(|| "unreadable".to_owned(), |holder| holder.subject);
            // Outside `naming_refused` nobody wants to know.
            drop(REFUSED.try_with(|refused| refused.set(subject)));
        }
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
