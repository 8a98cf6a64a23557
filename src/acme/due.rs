//! What is due: an order, or a question about a renewal.

use std::io;
use std::time::{Duration, SystemTime};

use tokio::time::{sleep, timeout};

use super::account;
use super::disk::{self, off_thread};
use super::failure::{Failure, Kind};
use super::http::{Https, RetryAfter};
use super::keeper::{Keeper, MINUTE};
use super::order::{self, Issued, Ordering};
use super::progress::{Asked, Attempt, Progress};
use super::schedule::{DAY, Window};
use super::standing::{Standing, moment};
use crate::certificates::{self, Kept, Stored};
use crate::config::acme::AcmeCertificate;

/// For a whole order, every wait of it included.
const ORDER: Duration = Duration::from_secs(300);

/// A CA that does not say when to ask again for its wish, or cannot be asked (RFC 9773 4.3.3).
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3600);

impl Keeper<'_> {
    /// Does one thing that is due; answers how long there is nothing to do.
    pub(super) async fn work(&self, standings: Vec<Standing>) -> Duration {
        let now = SystemTime::now();
        let mut next: Option<SystemTime> = None;
        for (ordered, mut standing) in self.certificates.iter().zip(standings) {
            if let Some(error) = &standing.unreadable {
                tracing::error!(file = %ordered.file.display(), error, "a file of acme.state cannot be read: nothing is ordered in its place");
                self.count(ordered, Kind::Local.name());
                continue;
            }
            self.ask_for_wish(ordered, &mut standing, now).await;
            if standing.due <= now {
                Box::pin(self.attempt(ordered, standing)).await;
                // Much may have changed.
                return Duration::ZERO;
            }
            next = Some(next.map_or(standing.due, |next| next.min(standing.due)));
        }
        let wait = next.and_then(|next| next.duration_since(now).ok());
        wait.map_or(MINUTE, |wait| wait.min(MINUTE))
    }

    /// When the CA wishes the certificate to be renewed; it may not care, or not answer.
    async fn ask_for_wish(
        &self,
        ordered: &AcmeCertificate,
        standing: &mut Standing,
        now: SystemTime,
    ) {
        let Some(identifier) = standing
            .stored
            .as_ref()
            .and_then(|stored| stored.identifier.clone())
        else {
            return;
        };
        if standing.progress.ask_at(&identifier, now) > now {
            return;
        }
        let asking = async {
            let https = self.https(&RetryAfter::default())?;
            let Some(account) = account::known(&self.disk, https).await? else {
                return Ok(None);
            };
            Ok::<_, Failure>(Some(account.renewal_info(&identifier).await?))
        };
        let (window, again) = match timeout(ORDER, asking).await {
            Ok(Ok(Some((info, again)))) => {
                let (start, end) = (info.suggested_window.start, info.suggested_window.end);
                let window = Window {
                    start: start.into(),
                    end: end.into(),
                };
                (Some(window), again.clamp(MINUTE, DAY))
            }
            Ok(Ok(None)) | Err(_) => (None, ASK_AGAIN),
            Ok(Err(failure)) => {
                tracing::debug!(
                    name = ordered.names.first(),
                    why = failure.text,
                    "the CA does not say when to renew"
                );
                (None, ASK_AGAIN)
            }
        };
        standing.progress.heard(&identifier, window, now + again);
        standing.reckon(now);
        let (path, progress) = (Progress::path(&ordered.file), standing.progress.clone());
        if let Err(error) = off_thread(move || disk::write_json(&path, &progress))
            .await
            .flatten()
        {
            tracing::warn!(%error, "what the CA said of a renewal cannot be kept");
        }
    }

    async fn attempt(&self, ordered: &AcmeCertificate, standing: Standing) {
        let names = ordered.names.join(" ");
        let mut progress = standing.progress;
        let (path, before) = (Progress::path(&ordered.file), progress.clone());
        let attempt = off_thread(move || Attempt::begin(path, before))
            .await
            .flatten();
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(error) => {
                tracing::error!(names, %error, "acme.state cannot be written: no certificate is ordered, it could not be kept");
                self.count_local();
                sleep(MINUTE).await;
                return;
            }
        };
        tracing::info!(
            names,
            directory = self.acme.directory,
            attempt = progress.failures + 1,
            "ordering a certificate"
        );
        let retry_after = RetryAfter::default();
        let ordering =
            Box::pin(self.order(ordered, standing.stored, &retry_after, attempt.asked()));
        let ordering = timeout(ORDER, ordering).await;
        let ordering = ordering.unwrap_or_else(|_| {
            let text = format!("the order took longer than {} s", ORDER.as_secs());
            Err(Failure::new(Kind::Unavailable, text))
        });
        let now = SystemTime::now();
        let result = match ordering {
            Ok(not_after) => {
                progress.succeeded(now, not_after);
                tracing::info!(names, file = %ordered.file.display(), "the CA has issued a certificate, and it is stored");
                "ok"
            }
            Err(mut failure) => {
                failure.not_before = retry_after.take();
                progress.failed(&failure, now);
                let next = moment(progress.next_attempt(now));
                tracing::warn!(
                    names,
                    failures = progress.failures,
                    next_attempt = next,
                    advice = failure.advice,
                    "no certificate could be had: {}",
                    failure.text
                );
                failure.kind.name()
            }
        };
        self.count(ordered, result);
        if let Err(error) = off_thread(move || attempt.settle(&progress))
            .await
            .flatten()
        {
            tracing::error!(%error, "how the order went cannot be kept");
        }
    }

    async fn order(
        &self,
        ordered: &AcmeCertificate,
        old: Option<Stored>,
        retry_after: &RetryAfter,
        asked: Asked,
    ) -> Result<SystemTime, Failure> {
        let ordering = || Ordering {
            ordered,
            profile: self.acme.profile.as_deref(),
            replaces: old.as_ref().and_then(|old| old.identifier.clone()),
            disk: &self.disk,
            challenges: &self.shared.challenges,
            asked: &asked,
        };
        let run = async || {
            let https = self.https(retry_after)?;
            let account = Box::pin(account::account(&self.acme, &self.disk, https)).await?;
            Box::pin(ordering().run(&account)).await
        };
        let Issued { pem, not_after } = match run().await {
            Err(failure) if failure.no_account => {
                account::set_aside(&self.disk).await;
                run().await?
            }
            ran => ran?,
        };
        let ordered = ordered.clone();
        let stored = off_thread(move || {
            disk::write(&ordered.file, pem.as_bytes())?;
            order::forget(&ordered);
            // What cannot be read again would be ordered again.
            match certificates::kept(&ordered) {
                Kept::Good(_) => Ok(()),
                Kept::Nothing => Err(io::ErrorKind::NotFound.into()),
                Kept::Damaged(problem) => Err(io::Error::other(problem.message)),
                Kept::Unreadable(error) => Err(error),
            }
        });
        stored.await.flatten().map_err(Failure::local)?;
        Ok(not_after)
    }

    fn https(&self, retry_after: &RetryAfter) -> Result<Https, Failure> {
        let tls = certificates::directory(&self.acme);
        let tls = tls.map_err(|problem| Failure::local(problem.message))?;
        Ok(Https::new(tls, retry_after.clone()))
    }
}
