//! The end of everything that belongs to clients: tasks are spawned here, sessions are members, and members are asked to
//! leave at one pace, in random order, whoever wishes it: a stop, a broker that is taken out, a session's age.
//!
//! INVARIANT: nothing that serves a client runs outside the tracker; `clippy.toml` forbids `tokio::spawn` elsewhere.

mod members;
mod turns;

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use self::members::Members;
pub use self::members::{Asked, Group, Membership};
use self::turns::Turns;

/// How often members are looked at for their age.
const AGES: Duration = Duration::from_secs(1);

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Members asked to leave.
    pub asked: usize,
    /// Tasks that were still there at the end and were cut, but for those of members that had been asked.
    pub cut: usize,
}

/// How far the asking has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    pub members: usize,
    /// Members whose turn is still to come.
    pub waiting: usize,
    /// Members per second.
    pub rate: NonZeroU32,
}

impl Progress {
    /// Until the last of those that wait now has had its turn.
    pub fn seconds(&self) -> f64 {
        self.waiting as f64 / f64::from(self.rate.get())
    }
}

/// The handle that every part holds.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    tracker: TaskTracker,
    /// Those who accept: what one of them has in hand when the drain begins is not in `tracker` yet.
    doors: TaskTracker,
    /// No new connections; idle HTTP connections end.
    closing: CancellationToken,
    /// Everything ends now.
    cut: CancellationToken,
    were_cut: OnceLock<usize>,
    handed_over: AtomicBool,
    members: Mutex<Members>,
    turns: Turns,
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drain {
    /// Runs a client's task on the current runtime. It is dropped where it stands when the drain is over.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // The tracker's `spawn` needs no join handle: a panic ends this task alone and is reported by the hook.
        drop(self.shared.tracker.spawn(task));
    }

    pub fn is_closing(&self) -> bool {
        self.shared.closing.is_cancelled()
    }

    /// True when sessions that would begin now are to be refused.
    pub fn is_refusing(&self) -> bool {
        self.is_closing() && !self.shared.handed_over.load(Ordering::Relaxed)
    }

    /// Ready when nothing new may begin.
    pub fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.shared.closing.cancelled()
    }

    /// Cancelled by `close`, or earlier by whoever holds it.
    pub fn until_closing(&self) -> CancellationToken {
        self.shared.closing.child_token()
    }

    pub fn is_cut(&self) -> bool {
        self.shared.cut.is_cancelled()
    }

    /// Held by whoever accepts, until he has heard of `closing`: the end waits for him.
    pub fn door(&self) -> TaskTrackerToken {
        self.shared.doors.token()
    }

    /// Ready when everything must end.
    pub fn cut(&self) -> WaitForCancellationFuture<'_> {
        self.shared.cut.cancelled()
    }

    /// A new member; `longest` is the age at which it is asked to leave, at the latest.
    pub fn join(&self, longest: Option<Duration>) -> Membership {
        // Up to a fifth earlier: those that came together are not to leave together.
        let due = longest.map(|age| Instant::now() + age.mul_f64(1.0 - 0.2 * fastrand::f64()));
        let mut members = self.shared.members();
        let member = members.add(due);
        if members.all_leave {
            self.shared.turns.queue([&member], Asked::Stop);
        }
        drop(members);
        Membership {
            member,
            shared: Arc::clone(&self.shared),
        }
    }

    pub fn members(&self) -> usize {
        self.shared.members().all().len()
    }

    pub fn progress(&self) -> Progress {
        Progress {
            members: self.members(),
            waiting: self.shared.turns.waiting(),
            rate: self.shared.turns.rate(),
        }
    }

    /// For every drain that runs, and for those to come.
    pub fn set_rate(&self, rate: NonZeroU32) {
        self.shared.turns.set_rate(rate);
    }

    /// Nothing new begins from here on.
    pub fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tracker.close();
        self.shared.doors.close();
    }

    /// As `close`, but another process takes new connections, now or soon: those that are here still become sessions, and leave
    /// in their turn.
    pub fn hand_over(&self) {
        self.shared.handed_over.store(true, Ordering::Relaxed);
        self.close();
    }

    /// Puts the members of a group, and those who come into it from now on, among those who are asked to leave. Answers
    /// how many there are.
    pub fn ask_group(&self, group: &Group) -> usize {
        let members = self.shared.members();
        group.set_leaving(true);
        let of_it = members.all().iter().filter(|member| member.is_of(group));
        self.shared.turns.queue(of_it, Asked::Group)
    }

    /// The group is welcome again; who was asked to leave still leaves.
    pub fn welcome_group(&self, group: &Group) {
        let _members = self.shared.members();
        group.set_leaving(false);
    }

    /// Asks every member to leave in its turn, waits for all tasks at most `longest`, then cuts the rest. Call `close` first, and
    /// have `pace` run. `cut_now` ends it at once.
    pub async fn run(&self, longest: Duration) -> Ended {
        let deadline = Instant::now() + longest;
        let before = self.shared.turns.asked();
        {
            let mut members = self.shared.members();
            members.all_leave = true;
            self.shared.turns.queue(members.all(), Asked::Stop);
        }
        // CANCEL: all three only wait.
        tokio::select! {
            () = async {
                self.shared.doors.wait().await;
                self.shared.tracker.wait().await;
            } => {}
            () = sleep_until(deadline) => {}
            () = self.cut() => {}
        }
        let asked = self.shared.turns.asked() - before;
        self.cut_now();
        let cut = self.shared.were_cut.get().copied().unwrap_or(0);
        // Tasks hear of the cut at their next wake-up and end without waiting for anyone.
        let ended = tokio::time::timeout(Duration::from_secs(2), self.shared.tracker.wait()).await;
        if ended.is_err() {
            tracing::error!(
                tasks = self.shared.tracker.len(),
                "tasks did not end when they were cut"
            );
        }
        Ended { asked, cut }
    }

    /// Ends everything at once.
    pub fn cut_now(&self) {
        self.shared.closing.cancel();
        self.shared.tracker.close();
        self.shared.doors.close();
        // Counted before they hear of it, by whoever is first. Who was asked has had its turn, and most often says goodbye.
        self.shared.were_cut.get_or_init(|| {
            let asked = self.shared.members().asked();
            self.shared.tracker.len().saturating_sub(asked)
        });
        self.shared.cut.cancel();
    }

    /// Gives the turns, and finds the members that are due by their age. Runs as long as the process; ends never.
    pub async fn pace(&self) {
        tokio::join!(
            self.shared.turns.give(&self.shared.closing),
            self.find_aged()
        );
    }

    async fn find_aged(&self) {
        let mut tick = tokio::time::interval(AGES);
        loop {
            let now = tick.tick().await;
            let mut members = self.shared.members();
            self.shared.turns.queue(members.aged(now), Asked::Age);
        }
    }
}

#[cfg(test)]
mod tests;
