//! One order, from the names to the certificate (RFC 8555 7.4).

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    NewOrder, Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};

use super::disk::{self, Disk, off_thread};
use super::failure::{Failure, Kind};
use super::progress::Asked;
use super::proofs::Exhibition;
use crate::certificates::challenge::Proof;
use crate::certificates::{self, Challenges};
use crate::config::acme::AcmeCertificate;

/// How often a CA is asked whether it is done: soon at first, `Retry-After` is obeyed.
const ASK: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.6)
    .timeout(Duration::from_secs(100));

/// What an order was for.
pub(super) struct Issued {
    /// Key and chain.
    pub(super) pem: String,
    pub(super) not_after: SystemTime,
}

pub(super) struct Ordering<'a> {
    pub(super) ordered: &'a AcmeCertificate,
    pub(super) profile: Option<&'a str>,
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
    pub(super) disk: &'a Disk,
    pub(super) challenges: &'a Arc<Challenges>,
    pub(super) asked: &'a Asked,
}

/// An order that is about to be finished, and the key that its certificate is for: the CA may have issued, and counted, what we did
/// not get.
#[derive(Serialize, Deserialize)]
struct Unfinished {
    url: String,
    key: String,
}

impl Ordering<'_> {
    pub(super) async fn run(self, account: &Account) -> Result<Issued, Failure> {
        let names = self.ordered.names.iter().cloned();
        let identifiers: Vec<_> = names.map(Identifier::Dns).collect();
        if let Some((mut order, key)) = self.resume(account).await? {
            tracing::info!(
                names = self.ordered.names.join(" "),
                "an order that was left off is finished"
            );
            return self.finish_or_forget(&mut order, key).await;
        }
        let mut order = self.begin(account, &identifiers).await?;
        if order.state().status == OrderStatus::Pending {
            self.prove(&mut order).await?;
        }
        let key = KeyPair::generate().map_err(Failure::local)?;
        let unfinished = Unfinished {
            url: order.url().to_owned(),
            key: key.serialize_pem(),
        };
        let path = unfinished_path(self.ordered);
        let written = off_thread(move || disk::write_json(&path, &unfinished)).await;
        written.flatten().map_err(Failure::local)?;
        self.finish_or_forget(&mut order, key).await
    }

    /// An order that the CA refuses to finish is not worth to be kept.
    async fn finish_or_forget(&self, order: &mut Order, key: KeyPair) -> Result<Issued, Failure> {
        let finished = self.finish(order, key).await;
        if finished
            .as_ref()
            .is_err_and(|failure| failure.kind != Kind::Unavailable)
        {
            self.start_anew::<Infallible>().await?;
        }
        finished
    }

    /// `None` where there is none that can be.
    async fn resume(&self, account: &Account) -> Result<Option<(Order, KeyPair)>, Failure> {
        let path = unfinished_path(self.ordered);
        let read = off_thread(move || disk::read_json::<Unfinished>(&path)).await;
        let unfinished = match read.flatten() {
            Ok(Some(unfinished)) => unfinished,
            Ok(None) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return self.start_anew().await;
            }
            Err(error) => return Err(Failure::local(error)),
        };
        let mut order = match account.order(unfinished.url).await {
            Ok(order) => order,
            Err(Error::Api(problem)) => {
                tracing::debug!(%problem, "the CA does not know the order that was left off");
                return self.start_anew().await;
            }
            Err(error) => return Err(error.into()),
        };
        match (order.state().status, KeyPair::from_pem(&unfinished.key)) {
            (OrderStatus::Ready | OrderStatus::Processing | OrderStatus::Valid, Ok(key)) => {
                Ok(Some((order, key)))
            }
            (_, _) => self.start_anew().await,
        }
    }

    async fn start_anew<T>(&self) -> Result<Option<T>, Failure> {
        let ordered = self.ordered.clone();
        off_thread(move || forget(&ordered))
            .await
            .map_err(Failure::local)?;
        Ok(None)
    }

    async fn begin(&self, account: &Account, names: &[Identifier]) -> Result<Order, Failure> {
        let new = || {
            let order = NewOrder::new(names);
            match self.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        let Some(old) = &self.replaces else {
            return Ok(account.new_order(&new()).await?);
        };
        match account.new_order(&new().replaces(old.clone())).await {
            Ok(order) => Ok(order),
            // To say what it replaces is a courtesy (RFC 9773 5): a CA that does not want to hear it must not keep us from renewing.
            Err(error) if is_about_replacing(&error) => {
                tracing::debug!(%error, "the CA does not take the certificate that is replaced");
                Ok(account.new_order(&new()).await?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Shows the CA that the names lead here.
    async fn prove(&self, order: &mut Order) -> Result<(), Failure> {
        let mut proofs = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            // Proven lately.
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let name = authorization.identifier().to_string();
            // A name that we did not order has no place in a file name either.
            let is_ours = self.ordered.names.contains(&name);
            let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
            let Some(challenge) = challenge.filter(|_| is_ours) else {
                let text = format!("the CA offers no tls-alpn-01 for {name}");
                return Err(Failure::new(Kind::Refused, text));
            };
            let digest = challenge.key_authorization().digest();
            proofs.push(Proof::make(&name, digest.as_ref()).map_err(Failure::local)?);
        }
        let count = proofs.len();
        let exhibition = Exhibition::open(self.disk, self.challenges, proofs).await?;
        tracing::info!(
            names = self.ordered.names.join(" "),
            count,
            "the CA is asked to look at port 443 of the names"
        );
        self.asked.set();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) {
                challenge.set_ready().await?;
            }
        }
        match order.poll_ready(&ASK).await {
            Ok(OrderStatus::Ready | OrderStatus::Valid) => {
                tracing::info!(
                    names = self.ordered.names.join(" "),
                    "the CA has seen that the names lead here"
                );
                Ok(())
            }
            not_ready => {
                let found = faults(order).await;
                let mut failure = match not_ready {
                    _ if !found.is_empty() => Failure::unproven(&found),
                    Err(error) => error.into(),
                    Ok(_) => Failure::unproven(&[]),
                };
                let asked = exhibition.pending().map_or(0, |pending| pending.asked());
                if failure.kind == Kind::Unproven && asked == 0 {
                    failure
                        .text
                        .push_str("; the CA has not come to this process");
                }
                Err(failure)
            }
        }
    }

    async fn finish(&self, order: &mut Order, key: KeyPair) -> Result<Issued, Failure> {
        let names = self.ordered.names.as_slice();
        let mut params = CertificateParams::new(names).map_err(Failure::local)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).map_err(Failure::local)?;
        // Of one that was left off the CA may have the request.
        if order.state().status == OrderStatus::Ready {
            order.finalize_csr(request.der()).await?;
        }
        let chain = order.poll_certificate(&ASK).await?;
        let public_key = key.subject_public_key_info();
        let not_after = certificates::issued(&chain, &public_key, names).map_err(|fault| {
            Failure::new(
                Kind::Refused,
                format!("the CA's certificate is of no use: {fault}"),
            )
        })?;
        Ok(Issued {
            pem: format!("{}{chain}", key.serialize_pem()),
            not_after,
        })
    }
}

fn unfinished_path(ordered: &AcmeCertificate) -> PathBuf {
    ordered.file.with_extension("order")
}

/// Blocks. The order that was left off is done, or lost.
pub(super) fn forget(ordered: &AcmeCertificate) {
    let path = unfinished_path(ordered);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(file = %path.display(), %error, "an order that is over cannot be forgotten");
        }
        Ok(()) | Err(_) => {}
    }
}

fn is_about_replacing(error: &Error) -> bool {
    match error {
        Error::Api(problem) => {
            let word = problem.r#type.as_deref().unwrap_or_default();
            word.ends_with(":alreadyReplaced")
                || word.ends_with(":malformed")
                || problem.status == Some(409)
        }
        Error::Unsupported(_) => true,
        Error::Other(error) => error.to_string().starts_with("replaces field mismatch"),
        _ => false,
    }
}

/// What the CA says of each name that it did not find here.
async fn faults(order: &mut Order) -> Vec<(String, Problem)> {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else {
            continue;
        };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let errors = authorization.challenges.iter();
        let errors = errors.filter_map(|challenge| challenge.error.clone());
        found.extend(errors.map(|error| (name.clone(), error)));
    }
    found
}
