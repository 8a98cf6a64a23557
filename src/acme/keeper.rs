//! Keeps the certificates of one configuration: looks, orders what is due, has it taken over. One process of those that share the
//! folder does; the others look what it has done.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::disk::{self, Contents, Disk, Lock, off_thread};
use super::failure::Kind;
use super::progress::{Progress, unix};
use super::proofs::{self, LOOK};
use super::standing::{Standing, moment, standing};
use crate::certificates::challenge::Proof;
use crate::config::acme::{Acme, AcmeCertificate};
use crate::telemetry::acme::{ByAcme, ByOrder};

/// The clock is looked at so often: it may have been set, or have run on while the machine slept.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// For the files to be read and taken over.
const TAKE_OVER: Duration = Duration::from_secs(60);

pub(super) struct Keeper<'a> {
    pub(super) acme: Arc<Acme>,
    pub(super) certificates: &'a [AcmeCertificate],
    pub(super) shared: &'a Shared,
    pub(super) disk: Disk,
}

/// What a look has found.
struct Look {
    lock: Option<Lock>,
    contents: Contents,
    /// `None` where they are known.
    standings: Option<Vec<Standing>>,
    /// Of the process that orders; without the lock alone.
    proofs: Vec<Proof>,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        acme: Arc<Acme>,
        certificates: &'a [AcmeCertificate],
        shared: &'a Shared,
    ) -> Self {
        Self {
            disk: Disk::new(&acme),
            acme,
            certificates,
            shared,
        }
    }

    /// `seen` is what is shown.
    pub(super) async fn keep(self, mut seen: Contents) -> Infallible {
        let (mut lock, mut ours) = (None, None);
        let mut said = String::new();
        // What was read last, and when it is read again though nothing has changed.
        let (mut read, mut again) = (seen.clone(), Instant::now());
        self.say_what_is_missing().await;
        loop {
            let known = (again > Instant::now()).then(|| read.clone());
            let look = match self.look(lock.take(), known).await {
                Ok(look) => look,
                Err(error) => {
                    // Once for each reason, not once a minute.
                    let error = error.to_string();
                    if said != error {
                        tracing::error!(folder = %self.disk.folder().display(), error, "acme.state cannot be used: no certificate is ordered");
                        said = error;
                    }
                    self.count_local();
                    sleep(MINUTE).await;
                    continue;
                }
            };
            said.clear();
            self.say_who_orders(&mut ours, look.lock.is_some());
            lock = look.lock;
            proofs::show(&self.shared.challenges, &look.proofs);
            let mut wait = LOOK;
            if let Some(standings) = look.standings {
                self.measure(&standings);
                if look.contents != seen && self.take_over(&standings).await {
                    seen.clone_from(&look.contents);
                }
                (read, again) = (look.contents, Instant::now() + MINUTE);
                if lock.is_some() {
                    wait = Box::pin(self.work(standings)).await;
                }
            }
            sleep(wait).await;
        }
    }

    /// On a thread that may wait for a disk. Certificates are read by the process that orders, and where they are not those that are
    /// known: the others look once a second, for proofs.
    async fn look(&self, lock: Option<Lock>, known: Option<Contents>) -> io::Result<Look> {
        let (disk, certificates) = (self.disk.clone(), self.certificates.to_vec());
        let looking = off_thread(move || {
            let lock = match lock {
                Some(lock) => Some(lock),
                None => disk.lock()?,
            };
            let now = SystemTime::now();
            // Before they are read: what changes in between is found to be different.
            let contents = disk::contents(&certificates);
            let is_new = lock.is_some() || known.as_ref() != Some(&contents);
            let standings = is_new.then(|| {
                let certificates = certificates.iter();
                certificates
                    .map(|ordered| standing(ordered, now))
                    .collect::<Vec<_>>()
            });
            let proofs = match (&lock, &standings) {
                (Some(_), Some(standings)) => {
                    set_damaged_aside(&certificates, standings);
                    Vec::new()
                }
                (_, _) => proofs::others(&disk)?,
            };
            Ok(Look {
                lock,
                contents,
                standings,
                proofs,
            })
        });
        looking.await.flatten()
    }

    fn say_who_orders(&self, before: &mut Option<bool>, ours: bool) {
        if *before == Some(ours) {
            return;
        }
        *before = Some(ours);
        let folder = self.disk.folder().display().to_string();
        match ours {
            true => tracing::info!(folder, "this process orders certificates"),
            false => tracing::info!(
                folder,
                "another process orders certificates; what it gets is shown here too"
            ),
        }
    }

    /// What is stored is to be shown. Where that fails it is tried again in a while.
    async fn take_over(&self, standings: &[Standing]) -> bool {
        let (answer, taken) = oneshot::channel();
        let asking =
            async { self.shared.take_over.send(answer).await.is_ok() && taken.await == Ok(true) };
        if !matches!(timeout(TAKE_OVER, asking).await, Ok(true)) {
            tracing::error!("a stored certificate could not be taken over; it is tried again");
            return false;
        }
        for (ordered, standing) in self.certificates.iter().zip(standings) {
            if let Some(stored) = &standing.stored {
                let until = moment(stored.report.not_after);
                tracing::info!(
                    names = ordered.names.join(" "),
                    until,
                    issuer = stored.report.issuer,
                    "shown to new connections"
                );
            }
        }
        true
    }

    async fn say_what_is_missing(&self) {
        let now = SystemTime::now();
        let certificates = self.certificates.to_vec();
        let looking = off_thread(move || {
            certificates
                .iter()
                .map(|ordered| standing(ordered, now))
                .collect::<Vec<_>>()
        });
        let Ok(standings) = looking.await else { return };
        for (ordered, standing) in self.certificates.iter().zip(standings) {
            let names = ordered.names.join(" ");
            match &standing.stored {
                None if standing.unreadable.is_some() => {}
                None => tracing::warn!(
                    names,
                    next_order = moment(standing.due.max(now)),
                    "no certificate is stored yet: clients that ask for a name without one are refused (unrecognized_name)"
                ),
                Some(stored) if stored.report.not_after <= now => {
                    tracing::error!(
                        names,
                        ended = moment(stored.report.not_after),
                        why = standing.progress.problem,
                        "the certificate has EXPIRED; it is shown all the same until there is a new one"
                    );
                }
                Some(_) => {}
            }
        }
    }

    /// A folder, or a file in it, is of no use: as loud as an order that fails.
    pub(super) fn count_local(&self) {
        for ordered in self.certificates {
            self.count(ordered, Kind::Local.name());
            let labels = ByAcme {
                name: self.name(ordered),
            };
            self.shared
                .metrics
                .acme
                .failures
                .get_or_create(&labels)
                .inc();
        }
    }

    pub(super) fn count(&self, ordered: &AcmeCertificate, result: &'static str) {
        let name = self.name(ordered);
        let labels = ByOrder { name, result };
        self.shared.metrics.acme.orders.get_or_create(&labels).inc();
    }

    /// What a certificate is called in metrics, as `certificate_not_after` calls it: its first name, or its file's, where another has
    /// that name.
    fn name(&self, ordered: &AcmeCertificate) -> Arc<str> {
        let first = ordered.names.first();
        let mut others = self
            .certificates
            .iter()
            .filter(|other| other.file != ordered.file);
        if others.any(|other| other.names.first() == first) {
            let file = ordered.file.file_stem().unwrap_or_default();
            return file.to_string_lossy().into();
        }
        first.map_or("", String::as_str).into()
    }

    fn measure(&self, standings: &[Standing]) {
        let metrics = &self.shared.metrics.acme;
        for (ordered, standing) in self.certificates.iter().zip(standings) {
            if standing.unreadable.is_some() {
                continue;
            }
            let labels = ByAcme {
                name: self.name(ordered),
            };
            let whole = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
            metrics
                .stored
                .get_or_create(&labels)
                .set(standing.stored.is_some().into());
            metrics
                .failures
                .get_or_create(&labels)
                .set(standing.progress.failures.into());
            metrics
                .next_attempt
                .get_or_create(&labels)
                .set(whole(unix(standing.due)));
            metrics
                .last_success
                .get_or_create(&labels)
                .set(whole(standing.progress.last_success()));
        }
    }
}

/// Blocks. Only the process that orders does: another may be writing.
fn set_damaged_aside(certificates: &[AcmeCertificate], standings: &[Standing]) {
    for (ordered, standing) in certificates.iter().zip(standings) {
        if let Some(problem) = &standing.damaged {
            disk::set_aside(&ordered.file, &problem.message);
        }
        if let Some(fault) = &standing.progress_fault {
            disk::set_aside(&Progress::path(&ordered.file), fault);
        }
    }
}
