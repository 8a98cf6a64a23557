//! What is known of one broker's health, from the sessions that it failed and from probes. Pure: the time is passed in.
//!
//! Two things take a broker out, each by itself: sessions that fail in a row eject it for a time, probes that fail in a
//! row mark it as down. A probe sees what a few sessions may not, and sessions see what a probe may not.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::model::{Eject, Probe};

/// The share of new sessions that a broker has right after a recovery.
const COLDEST: f64 = 0.1;

/// What a broker may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Up,
    /// Left out for the failures of sessions, until one session has tried it with success.
    Ejected,
    /// Left out for the failures of probes.
    Down,
    /// It asks for no new sessions; it keeps those it has.
    Draining,
    /// `down: true`.
    Off,
}

impl Condition {
    pub const ALL: [Self; 5] = [
        Self::Up,
        Self::Ejected,
        Self::Down,
        Self::Draining,
        Self::Off,
    ];

    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Ejected => "ejected",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Off => "off",
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Good {
        /// It was a whole session: what holds for it holds for others.
        session: bool,
    },
    Draining,
    Bad,
}

/// Something that the operator should hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Ejected {
        time: Duration,
        failures: u32,
        noticed: Noticed,
    },
    /// It has earned an ejection, but no other is left.
    Kept {
        failures: u32,
    },
    Down {
        failures: u32,
        noticed: Noticed,
    },
    Draining {
        noticed: Noticed,
    },
    /// After so long.
    Back {
        after: Duration,
    },
}

/// How long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Noticed {
    /// Since the beginning of the first attempt that failed, or of the probe that told.
    pub after: Duration,
    /// Since the broker was last seen well, if it ever was.
    pub well: Option<Duration>,
}

#[derive(Debug, Default)]
pub struct Health {
    /// Of sessions.
    failed: Row,
    ejection: Option<Ejection>,
    /// Of probes.
    missed: Row,
    found: u32,
    probed: Probed,
    well: Option<Instant>,
    /// When it left `Up`.
    out: Option<Instant>,
    recovered: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Probed {
    #[default]
    Up,
    Down,
    Draining,
}

/// Failures in a row.
#[derive(Debug, Default)]
struct Row {
    count: u32,
    since: Option<Instant>,
}

impl Row {
    fn add(&mut self, begun: Instant) {
        self.count = self.count.saturating_add(1);
        self.since.get_or_insert(begun);
    }
}

#[derive(Debug)]
struct Ejection {
    begun: Instant,
    until: Instant,
    /// In a row.
    count: u32,
}

impl Health {
    pub fn condition(&self) -> Condition {
        match (self.probed, &self.ejection) {
            (Probed::Down, _) => Condition::Down,
            (Probed::Draining, _) => Condition::Draining,
            (Probed::Up, Some(_)) => Condition::Ejected,
            (Probed::Up, None) => Condition::Up,
        }
    }

    /// True when the time of an ejection is over: one session may try the broker.
    pub fn is_due(&self, now: Instant) -> bool {
        let ejection = self.ejection.as_ref();
        self.condition() == Condition::Ejected
            && ejection.is_some_and(|ejection| ejection.until <= now)
    }

    /// The part of its share that the broker may take.
    pub fn warmth(&self, now: Instant, slow_start: Duration) -> f64 {
        if self.condition() == Condition::Ejected {
            return COLDEST;
        }
        let Some(recovered) = self.recovered.filter(|_| !slow_start.is_zero()) else {
            return 1.0;
        };
        let part =
            now.saturating_duration_since(recovered).as_secs_f64() / slow_start.as_secs_f64();
        (COLDEST + (1.0 - COLDEST) * part).min(1.0)
    }

    /// A session that began to try it at `begun` failed. `others`: another broker is left to take sessions.
    pub fn failed(
        &mut self,
        now: Instant,
        begun: Instant,
        eject: &Eject,
        others: bool,
    ) -> Option<Change> {
        self.failed.add(begun);
        let failures = self.failed.count;
        let count = match &self.ejection {
            // Sessions that were on their way when it was ejected, or that had no other choice.
            Some(ejection) if now < ejection.until || begun < ejection.begun => return None,
            Some(ejection) => ejection.count + 1,
            None if eject.failures == 0 || failures < eject.failures => return None,
            None if !others => {
                return (failures == eject.failures).then_some(Change::Kept { failures });
            }
            None => 0,
        };
        let doubled = eject.time.saturating_mul(1 << count.min(20));
        let time = doubled.min(eject.longest);
        self.ejection = Some(Ejection {
            begun: now,
            until: now + time,
            count,
        });
        self.out.get_or_insert(now);
        Some(Change::Ejected {
            time,
            failures,
            noticed: self.noticed(now, self.failed.since),
        })
    }

    /// A session was answered.
    pub fn succeeded(&mut self, now: Instant) -> Option<Change> {
        self.well = Some(now);
        self.failed = Row::default();
        self.ejection.take().and_then(|_| self.back(now))
    }

    /// A probe that began at `begun` has ended.
    pub fn probed(
        &mut self,
        now: Instant,
        begun: Instant,
        sign: Sign,
        probe: &Probe,
    ) -> Option<Change> {
        let before = self.probed;
        match sign {
            Sign::Good { session } => {
                self.well = Some(now);
                self.missed = Row::default();
                self.found = self.found.saturating_add(1);
                let over = self
                    .ejection
                    .as_ref()
                    .is_some_and(|ejection| ejection.until <= now);
                if before != Probed::Up && self.found < probe.rise {
                    return None;
                }
                self.probed = Probed::Up;
                if session && over && self.found >= probe.rise {
                    self.ejection = None;
                    self.failed = Row::default();
                }
                self.back(now)
            }
            Sign::Draining => {
                self.missed = Row::default();
                self.found = 0;
                self.probed = Probed::Draining;
                self.out.get_or_insert(now);
                (before != Probed::Draining).then_some(Change::Draining {
                    noticed: self.noticed(now, Some(begun)),
                })
            }
            Sign::Bad => {
                self.found = 0;
                self.missed.add(begun);
                let failures = self.missed.count;
                if before == Probed::Down || failures < probe.fall {
                    return None;
                }
                self.probed = Probed::Down;
                self.out.get_or_insert(now);
                Some(Change::Down {
                    failures,
                    noticed: self.noticed(now, self.missed.since),
                })
            }
        }
    }

    /// To `Up`, if nothing else keeps it out.
    fn back(&mut self, now: Instant) -> Option<Change> {
        if self.condition() != Condition::Up {
            return None;
        }
        let out = self.out.take()?;
        self.recovered = Some(now);
        Some(Change::Back {
            after: now.saturating_duration_since(out),
        })
    }

    fn noticed(&self, now: Instant, since: Option<Instant>) -> Noticed {
        Noticed {
            after: since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
            well: self.well.map(|well| now.saturating_duration_since(well)),
        }
    }
}

#[cfg(test)]
mod tests;
