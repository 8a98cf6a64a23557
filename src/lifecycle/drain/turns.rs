//! Members that wait to be asked to leave, and the one pace at which they are, in random order, whoever wishes it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::members::{Asked, Member};

/// Members per second until somebody says otherwise: the default of `drain.rate`.
const RATE: u32 = 500;

/// How long a pacer that was held up may take to make up for it. More would be a burst.
const ARREARS: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Turns {
    /// Locked behind `Shared::members`, never before it. At most as many as there are members.
    waiting: Mutex<Vec<(Arc<Member>, Asked)>>,
    /// Somebody waits, or the rate has changed.
    news: Notify,
    rate: AtomicU32,
    asked: AtomicUsize,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            news: Notify::default(),
            rate: AtomicU32::new(RATE),
            asked: AtomicUsize::new(0),
        }
    }
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Vec<(Arc<Member>, Asked)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Members whose turn is still to come.
    pub(super) fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// Members that were asked so far.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Members per second.
    pub(super) fn rate(&self) -> NonZeroU32 {
        NonZeroU32::new(self.rate.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }

    pub(super) fn set_rate(&self, rate: NonZeroU32) {
        self.rate.store(rate.get(), Ordering::Relaxed);
        self.news.notify_one();
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.rate().get()
    }

    /// Those of them who do not wait yet. Answers how many.
    pub(super) fn queue<'a>(
        &self,
        members: impl IntoIterator<Item = &'a Arc<Member>>,
        why: Asked,
    ) -> usize {
        let mut waiting = self.lock();
        let before = waiting.len();
        let new = members.into_iter().filter(|member| member.enqueue());
        waiting.extend(new.map(|member| (Arc::clone(member), why)));
        let added = waiting.len() - before;
        drop(waiting);
        if added > 0 {
            self.news.notify_one();
        }
        added
    }

    /// Asks one after the other, at the rate. Ends never. From `closing` on, all of them are told that it is a stop.
    pub(super) async fn give(&self, closing: &CancellationToken) {
        let mut next = Instant::now();
        loop {
            if self.lock().is_empty() {
                self.news.notified().await;
                // What was not used while nobody waited is gone.
                next = next.max(Instant::now());
                continue;
            }
            let now = Instant::now();
            if next > now {
                // CANCEL: both only wait.
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.news.notified() => {}
                }
                // At another rate the next turn may be nearer.
                next = next.min(Instant::now() + self.interval());
                continue;
            }
            // Who has left by itself takes nobody's turn.
            if self.ask_one(closing) {
                let earliest = now.checked_sub(ARREARS).unwrap_or(now);
                next = next.max(earliest) + self.interval();
            }
        }
    }

    /// Asks one of those who wait, anyone. `false` when that one has left by itself.
    fn ask_one(&self, closing: &CancellationToken) -> bool {
        let mut waiting = self.lock();
        if waiting.is_empty() {
            return false;
        }
        let (member, mut why) = {
            let at = fastrand::usize(..waiting.len());
            waiting.swap_remove(at)
        };
        drop(waiting);
        // Nobody else holds it.
        if Arc::strong_count(&member) == 1 {
            return false;
        }
        // What is told is what is true now: another server may have been named for the stop.
        if closing.is_cancelled() {
            why = Asked::Stop;
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        member.ask(why);
        true
    }
}
