//! How one certificate stands: what is stored, how its orders went, when the next one is due. Read without the CA.

use std::io;
use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::disk;
use super::progress::Progress;
use super::schedule;
use crate::certificates::{Kept, Stored, kept};
use crate::config::Problem;
use crate::config::acme::AcmeCertificate;

#[derive(Debug, Clone)]
pub struct Standing {
    pub stored: Option<Stored>,
    /// The stored file cannot be used.
    pub(super) damaged: Option<Problem>,
    pub(super) progress: Progress,
    pub(super) progress_fault: Option<String>,
    /// Nobody knows what is there: nothing may be ordered, and nothing set aside.
    pub(super) unreadable: Option<String>,
    /// The next order; in the past: now.
    pub due: SystemTime,
}

/// Blocks.
pub fn standing(ordered: &AcmeCertificate, now: SystemTime) -> Standing {
    let mut unreadable = None;
    let (stored, damaged) = match kept(ordered) {
        Kept::Nothing => (None, None),
        Kept::Good(stored) => (Some(stored), None),
        Kept::Damaged(problem) => (None, Some(problem)),
        Kept::Unreadable(error) => {
            unreadable = Some(error.to_string());
            (None, None)
        }
    };
    let (progress, fault) = match disk::read_json(&Progress::path(&ordered.file)) {
        Ok(progress) => (progress.unwrap_or_default(), None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            (Progress::default(), Some(error.to_string()))
        }
        Err(error) => {
            unreadable = Some(error.to_string());
            (Progress::default(), None)
        }
    };
    let mut standing = Standing {
        stored,
        damaged,
        progress,
        progress_fault: fault,
        unreadable,
        due: now,
    };
    standing.reckon(now);
    standing
}

impl Standing {
    /// When the next order is due.
    pub(super) fn reckon(&mut self, now: SystemTime) {
        let allowed = self.progress.next_attempt(now);
        self.due = match &self.stored {
            // Whoever deletes a good one wants another.
            None if self.progress.failures == 0 => now,
            None => allowed,
            Some(stored) => {
                let wished = stored.identifier.as_ref();
                let window = wished.and_then(|identifier| self.progress.window(identifier));
                schedule::renewal(stored, window).max(allowed)
            }
        };
    }

    /// What `tidegate check` says of it.
    pub fn told(&self, now: SystemTime) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(error) = &self.unreadable {
            return vec![format!("CANNOT BE READ: {error}")];
        }
        match (&self.stored, &self.damaged) {
            (Some(stored), _) => {
                let report = &stored.report;
                let ended = match report.not_after <= now {
                    true => "EXPIRED",
                    false => "good until",
                };
                lines.push(format!(
                    "{}, {ended} {}",
                    report.key,
                    moment(report.not_after)
                ));
            }
            (None, Some(problem)) => lines.push(format!("DAMAGED: {}", problem.message)),
            (None, None) => lines
                .push("none is stored yet: its clients are refused until there is one".to_owned()),
        }
        let failures = self.progress.failures;
        if let Some(problem) = &self.progress.problem {
            lines.push(format!(
                "{failures} orders have failed in a row, the last one: {problem}"
            ));
        }
        let next = match self.due <= now {
            true => "when the gateway runs".to_owned(),
            false => moment(self.due),
        };
        lines.push(format!("next order {next}"));
        lines
    }
}

/// `2026-11-21T07:00:00Z`
pub(super) fn moment(at: SystemTime) -> String {
    let at = OffsetDateTime::from(at).replace_nanosecond(0);
    at.ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}
