//! How the orders of one certificate went, kept over restarts: a CA's limits do not care how often we were started.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use instant_acme::CertificateIdentifier;
use serde::{Deserialize, Serialize};

use super::disk;
use super::failure::{Failure, Kind};
use super::schedule::{self, DAY, Window};

/// Seconds since 1970.
type Unix = u64;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    /// In a row.
    pub(super) failures: u32,
    /// Of them, those that a CA counts: the others must not make their pauses longer, nor hide them.
    counted: u32,
    /// Since the last that a CA counts.
    unavailable: u32,
    next_attempt: Unix,
    /// Of the last failure.
    pub(super) problem: Option<String>,
    last_success: Unix,
    wish: Option<Wish>,
}

/// What the CA has said of a renewal (RFC 9773).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Wish {
    /// The certificate that it is about.
    certificate: String,
    start: Unix,
    end: Unix,
    ask_again: Unix,
}

impl Progress {
    pub(super) fn path(certificate: &Path) -> PathBuf {
        certificate.with_extension("json")
    }

    /// No attempt before this. A time that no pause could reach is one from a clock that was wrong.
    pub(super) fn next_attempt(&self, now: SystemTime) -> SystemTime {
        let next = time(self.next_attempt);
        match next.duration_since(now) {
            Ok(wait) if wait > schedule::LONGEST + DAY => now,
            Ok(_) | Err(_) => next,
        }
    }

    pub(super) fn last_success(&self) -> Unix {
        self.last_success
    }

    pub(super) fn failed(&mut self, failure: &Failure, now: SystemTime) {
        self.failures = self.failures.saturating_add(1);
        let alike = match failure.kind {
            Kind::Unavailable => &mut self.unavailable,
            Kind::RateLimited | Kind::Refused | Kind::Unproven | Kind::Local => {
                self.unavailable = 0;
                &mut self.counted
            }
        };
        *alike = alike.saturating_add(1);
        let pause = now + schedule::pause(failure.kind, *alike);
        let asked = failure
            .not_before
            .unwrap_or(now)
            .min(now + schedule::LONGEST);
        self.next_attempt = unix(pause.max(asked));
        self.problem = Some(failure.text.clone());
    }

    /// A CA whose certificates are due for renewal as they come must not be asked without end.
    pub(super) fn succeeded(&mut self, now: SystemTime, not_after: SystemTime) {
        let lifetime = not_after.duration_since(now).unwrap_or_default();
        *self = Self {
            last_success: unix(now),
            next_attempt: unix(now + (lifetime / 10).min(DAY)),
            ..Self::default()
        };
    }

    /// When the CA is to be asked about the renewal of that certificate.
    pub(super) fn ask_at(
        &self,
        certificate: &CertificateIdentifier<'_>,
        now: SystemTime,
    ) -> SystemTime {
        match self.wish_for(certificate) {
            // A day is the longest; what is further is from a clock that was wrong.
            Some(wish) if time(wish.ask_again) <= now + 2 * DAY => time(wish.ask_again),
            Some(_) | None => now,
        }
    }

    pub(super) fn window(&self, certificate: &CertificateIdentifier<'_>) -> Option<Window> {
        let wish = self.wish_for(certificate)?;
        let (start, end) = (time(wish.start), time(wish.end));
        (wish.end > 0).then_some(Window { start, end })
    }

    /// `None`: it could not be asked, or has no wish; what it said before stays.
    pub(super) fn heard(
        &mut self,
        certificate: &CertificateIdentifier<'_>,
        window: Option<Window>,
        ask_again: SystemTime,
    ) {
        let window = window.or_else(|| self.window(certificate));
        let edge = |edge: fn(Window) -> SystemTime| window.map_or(0, |window| unix(edge(window)));
        self.wish = Some(Wish {
            certificate: certificate.to_string(),
            start: edge(|window| window.start),
            end: edge(|window| window.end),
            ask_again: unix(ask_again),
        });
    }

    fn wish_for(&self, certificate: &CertificateIdentifier<'_>) -> Option<&Wish> {
        let wish = self.wish.as_ref()?;
        (wish.certificate == certificate.to_string()).then_some(wish)
    }
}

/// An attempt that runs. Until it is settled the file says that it failed: a process that dies in each attempt must not ask the CA
/// each time it is started. One that is dropped, because the process drains or has a new configuration, never was, unless the CA has
/// been asked to look by then: it may count what it finds.
#[derive(Debug)]
pub(super) struct Attempt {
    path: PathBuf,
    before: Option<Progress>,
    asked: Asked,
}

/// Whether the CA has been asked to look.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked(Arc<AtomicBool>);

impl Asked {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Attempt {
    /// Blocks. Where nothing can be written nothing must be ordered: the certificate could not be kept.
    pub(super) fn begin(path: PathBuf, before: Progress) -> io::Result<Self> {
        let mut died = before.clone();
        let failure = Failure::new(Kind::Local, "the process left off while it was ordering");
        died.failed(&failure, SystemTime::now());
        disk::write_json(&path, &died)?;
        Ok(Self {
            path,
            before: Some(before),
            asked: Asked::default(),
        })
    }

    pub(super) fn asked(&self) -> Asked {
        self.asked.clone()
    }

    /// Blocks.
    pub(super) fn settle(mut self, after: &Progress) -> io::Result<()> {
        self.before = None;
        disk::write_json(&self.path, after)
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.asked.0.load(Ordering::Relaxed) {
            return;
        }
        if let Some(before) = self.before.take()
            && let Err(error) = disk::write_json(&self.path, &before)
        {
            tracing::warn!(file = %self.path.display(), %error, "an interrupted order cannot be forgotten");
        }
    }
}

fn time(seconds: Unix) -> SystemTime {
    let since = Duration::from_secs(seconds.min(Unix::from(u32::MAX)));
    SystemTime::UNIX_EPOCH + since
}

pub(super) fn unix(at: SystemTime) -> Unix {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_the_ca_is_kept_and_a_clock_that_was_wrong_is_not() {
        let now = time(2_000_000_000);
        let mut progress = Progress::default();
        let mut failure = Failure::new(Kind::RateLimited, "limited");
        failure.not_before = Some(now + 3 * DAY);
        progress.failed(&failure, now);
        assert_eq!(progress.next_attempt(now), now + 3 * DAY);
        failure.not_before = Some(now + 1000 * DAY);
        progress.failed(&failure, now);
        assert_eq!(progress.next_attempt(now), now + schedule::LONGEST);
        // The clock goes back by years: what was written then says nothing.
        assert_eq!(progress.next_attempt(now - 500 * DAY), now - 500 * DAY);
        assert_eq!(progress.failures, 2);
        progress.succeeded(now, now + 90 * DAY);
        assert_eq!(progress.next_attempt(now), now + DAY);
        assert_eq!((progress.failures, progress.problem), (0, None));
    }

    #[test]
    fn what_a_ca_counts_has_pauses_of_its_own() {
        let now = time(2_000_000_000);
        let mut progress = Progress::default();
        let minutes = |progress: &Progress| {
            progress
                .next_attempt(now)
                .duration_since(now)
                .unwrap()
                .as_secs()
                / 60
        };
        for _ in 0..8 {
            progress.failed(&Failure::new(Kind::Unavailable, "down"), now);
        }
        assert!(minutes(&progress) >= 20);
        progress.failed(&Failure::new(Kind::Unproven, "elsewhere"), now);
        assert!((5..=6).contains(&minutes(&progress)));
        // A CA that is down in between does not make it forget.
        progress.failed(&Failure::new(Kind::Unavailable, "down"), now);
        assert_eq!(minutes(&progress), 0);
        progress.failed(&Failure::new(Kind::Unproven, "elsewhere"), now);
        assert!((15..=18).contains(&minutes(&progress)));
        assert_eq!(progress.failures, 11);
    }

    #[test]
    fn an_attempt_counts_as_failed_until_it_is_settled_and_not_at_all_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let read = || disk::read_json::<Progress>(&path).unwrap().unwrap();
        let attempt = Attempt::begin(path.clone(), Progress::default()).unwrap();
        assert_eq!(read().failures, 1);
        drop(attempt);
        assert_eq!(read(), Progress::default());
        let attempt = Attempt::begin(path.clone(), Progress::default()).unwrap();
        attempt.asked().set();
        drop(attempt);
        assert_eq!(read().failures, 1, "the CA may have counted it");
        let attempt = Attempt::begin(path.clone(), Progress::default()).unwrap();
        let mut after = Progress::default();
        after.succeeded(time(5), time(50));
        attempt.settle(&after).unwrap();
        assert_eq!(read(), after);
    }
}
