//! Certificates from a CA (ACME, RFC 8555): ordered, proven by TLS-ALPN-01 on the gateway's own listeners, kept in a folder,
//! renewed in time. Runs beside the data path, on the control thread.
//!
//! Promises: at most one order at a time, by one of the processes that share the folder; never a second one for names whose stored
//! certificate is good; after a failure a pause that grows and outlives restarts; a stored certificate is shown whatever the CA
//! does. How a certificate comes into force is `app`'s: this only says that there is one.

mod account;
mod disk;
mod due;
mod failure;
mod http;
mod keeper;
mod order;
mod progress;
mod proofs;
mod schedule;
mod standing;

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::certificates::Challenges;
use crate::config::Config;
use crate::config::acme::{Acme, AcmeCertificate};
use crate::config::model::Speaks;
use crate::telemetry::Metrics;

use self::disk::Contents;
use self::keeper::Keeper;

pub use self::disk::{Access, prepare};
pub use self::standing::{Standing, standing};

/// Asks for what is stored to be shown; answered with whether it is.
pub type TakeOver = oneshot::Sender<bool>;

/// What the task works with.
#[derive(Debug)]
pub struct Shared {
    pub challenges: Arc<Challenges>,
    pub metrics: Arc<Metrics>,
    pub take_over: mpsc::Sender<TakeOver>,
}

/// What is to be ordered, and what of it was stored when the configuration came into force.
#[derive(Debug, Clone)]
pub struct Plan {
    acme: Option<Arc<Acme>>,
    certificates: Vec<AcmeCertificate>,
    seen: Contents,
}

impl Plan {
    /// Blocks. To be made before the certificates are read: what is stored in between is then found to be new.
    pub fn of(config: &Config) -> Self {
        // Nobody could prove a name, nor be shown a certificate, without: the check of the configuration warns of it.
        let mut listeners = config.listeners.iter();
        let certificates: Vec<_> = match listeners.any(|listener| listener.speaks == Speaks::Tls) {
            true => config.acme_certificates().cloned().collect(),
            false => Vec::new(),
        };
        Self {
            seen: disk::contents(&certificates),
            acme: config.acme.clone().map(Arc::new),
            certificates,
        }
    }

    /// Nothing to order differs, nor of whom. Where it stands in the file means nothing.
    pub fn is_same(&self, other: &Self) -> bool {
        let of_whom = match (&self.acme, &other.acme) {
            (Some(one), Some(other)) => one.is_same(other),
            (None, None) => true,
            (_, _) => false,
        };
        let files = |plan: &Self| -> Vec<_> {
            let files = plan.certificates.iter().map(|one| one.file.clone());
            files.collect()
        };
        of_whom && files(self) == files(other)
    }
}

/// Keeps the certificates of the newest plan. An order that a new plan interrupts is no failure: it is begun again where it is
/// still wished for.
pub async fn run(mut plans: watch::Receiver<Plan>, shared: Shared) -> Infallible {
    loop {
        let plan = plans.borrow_and_update().clone();
        let keeping = async {
            match &plan.acme {
                Some(acme) if !plan.certificates.is_empty() => {
                    let keeper = Keeper::new(Arc::clone(acme), &plan.certificates, &shared);
                    Box::pin(keeper.keep(plan.seen.clone())).await
                }
                Some(_) | None => std::future::pending().await,
            }
        };
        // CANCEL: what an order has changed is undone by its guards.
        tokio::select! {
            never = keeping => match never {},
            changed = plans.changed() => if changed.is_err() {
                // Nobody reloads any more: another process has taken over.
                std::future::pending().await
            },
        }
        // Of another process, for names that may not be ours any more.
        proofs::show(&shared.challenges, &[]);
        shared.metrics.acme.forget();
    }
}
