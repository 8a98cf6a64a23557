//! How the process stops taking part: not ready, announce, stop accepting, ask sessions to leave at a pace, cut the rest.
//!
//! Begun by a signal, after which the process ends; by `tidegate drain`, after which it stays until it is stopped, since a
//! supervisor would start it again; or by a new process that has taken over.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at};
use tokio_util::sync::CancellationToken;

use super::Stopper;
use super::desk::Desk;
use super::listen::Doors;
use crate::admin::Health;
use crate::admin::commands::Phase;
use crate::gateway::Gateway;
use crate::lifecycle::{Ended, Supervisor};

/// How often the log hears how far a drain is.
const PROGRESS: Duration = Duration::from_secs(10);

/// For the end behind a drain: tasks that were cut, threads, the log.
const MARGIN: Duration = Duration::from_secs(5);

/// What a drain works on.
pub(super) struct Draining<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) health: &'a Health,
    pub(super) supervisor: &'a Supervisor,
    pub(super) doors: &'a Doors,
    /// Another process has taken over.
    pub(super) handed_over: &'a CancellationToken,
    /// Who comes from now on waits for the next process: those who are here need not be sent away.
    pub(super) sockets_live_on: bool,
    pub(super) desk: &'a Desk,
    pub(super) phase: watch::Sender<Phase>,
}

/// Who wishes that it begins.
enum Begun {
    /// The process is to end.
    Stop,
    /// `tidegate drain`
    Asked,
    /// Likewise to end, and nobody is to be refused.
    HandedOver,
}

impl Draining<'_> {
    /// Waits until somebody wishes a drain, and answers when the process is to end.
    pub(super) async fn run(
        self,
        stop: &mut impl Stopper,
        drains: &mut mpsc::Receiver<Option<NonZeroU32>>,
    ) -> Ended {
        let ended = self.until_the_end(stop, drains).await;
        self.desk.close().await;
        ended
    }

    async fn until_the_end(
        &self,
        stop: &mut impl Stopper,
        drains: &mut mpsc::Receiver<Option<NonZeroU32>>,
    ) -> Ended {
        let sessions = || self.gateway.drain.members();
        // CANCEL: all three only wait, and `recv` loses nothing. Whoever has handed over does nothing else, whatever came at the
        // same moment.
        let begun = tokio::select! {
            biased;
            () = self.handed_over.cancelled() => {
                self.desk.close().await;
                Begun::HandedOver
            }
            why = stop.next() => {
                tracing::info!(why, sessions = sessions(), "stopping");
                Begun::Stop
            }
            Some(rate) = drains.recv() => {
                self.wish_rate(rate);
                tracing::info!(sessions = sessions(), "drain asked for");
                Begun::Asked
            }
        };
        // To the end of the process: one that is drained and stays there has no listeners any more.
        let _not_ready = self.health.readiness.block("drain");
        let mut ends = !matches!(begun, Begun::Asked);
        // To a supervisor it is the new process that counts now.
        if matches!(begun, Begun::Stop) {
            self.tell_stopping();
        }
        let draining = self.drain(&begun);
        tokio::pin!(draining);
        let mut ended = None;
        loop {
            // CANCEL: the drain is polled on; the others only wait, and `recv` loses nothing.
            tokio::select! {
                now = &mut draining, if ended.is_none() => {
                    if ends {
                        return now;
                    }
                    ended = Some(now);
                }
                why = stop.next() => match ended {
                    Some(ended) => return ended,
                    None if ends => {
                        tracing::warn!(why, "stopping at once");
                        self.gateway.drain.cut_now();
                    }
                    None => {
                        tracing::info!(why, "stopping when the drain is done");
                        ends = true;
                        self.tell_stopping();
                    }
                },
                Some(rate) = drains.recv() => self.wish_rate(rate),
            }
        }
    }

    /// systemd, that is: it may wait longer than its own limit says.
    fn tell_stopping(&self) {
        let snapshot = self.gateway.snapshot.load();
        let longest = snapshot.drain.announce + snapshot.drain.max + MARGIN;
        self.supervisor.stopping("stopping", longest);
    }

    fn wish_rate(&self, rate: Option<NonZeroU32>) {
        if let Some(rate) = rate {
            tracing::info!(rate, "the drain's rate was set");
            self.gateway.drain.set_rate(rate);
        }
    }

    async fn drain(&self, begun: &Begun) -> Ended {
        let (metrics, drain) = (&self.gateway.metrics, &self.gateway.drain);
        metrics.draining.set(1);
        let rules = self.gateway.snapshot.load().drain.clone();
        let handed_over = matches!(begun, Begun::HandedOver);
        if !handed_over {
            self.phase.send_replace(Phase::Announced);
            // CANCEL: a sleep and a wait; a cut ends the announcement too.
            tokio::select! {
                () = tokio::time::sleep(rules.announce) => {}
                () = drain.cut() => {}
            }
        }
        self.phase.send_replace(Phase::Draining);
        match handed_over || self.sockets_live_on {
            true => drain.hand_over(),
            false => drain.close(),
        }
        self.doors.shut();
        let sessions = drain.members();
        let rate = drain.progress().rate;
        let seconds = sessions as f64 / f64::from(rate.get());
        tracing::info!(sessions, rate, "draining, about {seconds:.1} s");
        let ended = self.tell_progress(rules.max).await;
        metrics.drain_asked.inc_by(ended.asked as u64);
        metrics.drain_cut.inc_by(ended.cut as u64);
        metrics.draining.set(0);
        tracing::info!(asked = ended.asked, cut = ended.cut, "drained");
        self.phase.send_replace(Phase::Drained);
        ended
    }

    async fn tell_progress(&self, longest: Duration) -> Ended {
        let running = self.gateway.drain.run(longest);
        tokio::pin!(running);
        let mut tick = interval_at(Instant::now() + PROGRESS, PROGRESS);
        loop {
            // CANCEL: the drain is polled on, a tick that is lost comes again.
            tokio::select! {
                ended = &mut running => return ended,
                _ = tick.tick() => {
                    let progress = self.gateway.drain.progress();
                    let (sessions, waiting) = (progress.members, progress.waiting);
                    let seconds = progress.seconds();
                    tracing::info!(sessions, waiting, rate = progress.rate, "draining, about {seconds:.1} s left");
                }
            }
        }
    }
}
