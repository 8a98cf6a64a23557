//! The end of everything that belongs to clients: tasks are spawned here, sessions are members, and a drain asks the
//! members to leave at a pace, in random order, before it cuts what is left.
//!
//! INVARIANT: nothing that serves a client runs outside the tracker; `clippy.toml` forbids `tokio::spawn` elsewhere.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;

/// How fast members are asked to leave.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Members per second.
    pub rate: NonZeroU32,
    /// After this long the rest is cut.
    pub max: Duration,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Members asked to leave.
    pub asked: usize,
    /// Tasks that were still there at the end and were cut.
    pub cut: usize,
}

/// Members that may have to leave together: the sessions of one broker.
#[derive(Debug, Clone, Default)]
pub struct Group {
    leaving: Arc<AtomicBool>,
}

/// The handle that every part holds.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    tracker: TaskTracker,
    /// No new connections; idle HTTP connections end.
    closing: CancellationToken,
    /// Everything ends now.
    cut: CancellationToken,
    members: Mutex<Vec<Arc<Member>>>,
    /// A group has to leave, or somebody came into one that has to.
    news: Notify,
}

#[derive(Debug)]
struct Member {
    asked: AtomicBool,
    waker: AtomicWaker,
    group: OnceLock<Group>,
    /// Where it stands in `Shared::members`; changed only under that lock.
    at: AtomicUsize,
}

/// A session's place in the drain. Dropping it leaves.
#[derive(Debug)]
pub struct Membership {
    member: Arc<Member>,
    shared: Arc<Shared>,
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

    /// Ready when nothing new may begin.
    pub fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.shared.closing.cancelled()
    }

    pub fn is_cut(&self) -> bool {
        self.shared.cut.is_cancelled()
    }

    /// Ready when everything must end.
    pub fn cut(&self) -> WaitForCancellationFuture<'_> {
        self.shared.cut.cancelled()
    }

    pub fn join(&self) -> Membership {
        let mut members = self
            .shared
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let member = Arc::new(Member {
            asked: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            group: OnceLock::new(),
            at: AtomicUsize::new(members.len()),
        });
        members.push(Arc::clone(&member));
        Membership {
            member,
            shared: Arc::clone(&self.shared),
        }
    }

    pub fn members(&self) -> usize {
        self.shared
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The members of a group, and those who come into it from now on, have to leave: `pace` asks them. Answers how many
    /// there are.
    pub fn ask_group(&self, group: &Group) -> usize {
        group.leaving.store(true, Ordering::Release);
        self.shared.news.notify_one();
        self.leaving(|of| Arc::ptr_eq(&of.leaving, &group.leaving))
            .len()
    }

    /// The group is welcome again; who was asked to leave still leaves.
    pub fn welcome_group(&self, group: &Group) {
        group.leaving.store(false, Ordering::Release);
    }

    /// Asks the members of groups that have to leave, so many a second in random order. Ends never.
    pub async fn pace(&self, rate: NonZeroU32) {
        /// What a late timer may make up for.
        const ARREARS: Duration = Duration::from_millis(10);
        let mut next = Instant::now();
        loop {
            let mut waiting = self.leaving(|_any| true);
            if waiting.is_empty() {
                self.shared.news.notified().await;
                continue;
            }
            fastrand::shuffle(&mut waiting);
            for member in waiting {
                sleep_until(next).await;
                let stays = member.group.get().is_none_or(|group| !group.is_leaving());
                // Nobody else holds it: it has left by itself, and takes nobody's turn.
                if stays || Arc::strong_count(&member) == 1 {
                    continue;
                }
                let earliest = Instant::now().checked_sub(ARREARS).unwrap_or(next);
                next = next.max(earliest) + Duration::from_secs(1) / rate.get();
                member.ask();
            }
        }
    }

    fn leaving(&self, which: impl Fn(&Group) -> bool) -> Vec<Arc<Member>> {
        let mut waiting = self.not_yet_asked();
        waiting.retain(|member| {
            let group = member.group.get();
            group.is_some_and(|group| group.is_leaving() && which(group))
        });
        waiting
    }

    /// Nothing new begins from here on.
    pub fn close(&self) {
        self.shared.closing.cancel();
        self.shared.tracker.close();
    }

    /// Asks every member to leave, `pace.rate` a second in random order, waits for all tasks until `pace.max`, then cuts
    /// the rest. Call `close` first. Dropping the future stops the asking; `cut_now` ends it at once.
    pub async fn run(&self, pace: Pace) -> Ended {
        let deadline = Instant::now() + pace.max;
        let mut asked = 0;
        // CANCEL: the asking loses nothing that matters when the deadline or a cut wins; `wait` only waits.
        tokio::select! {
            () = async {
                self.ask(pace.rate, &mut asked).await;
                self.shared.tracker.wait().await;
            } => {}
            () = sleep_until(deadline) => {}
            () = self.cut() => {}
        }
        let cut = self.shared.tracker.len();
        self.cut_now();
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
        self.shared.cut.cancel();
    }

    async fn ask(&self, rate: NonZeroU32, asked: &mut usize) {
        /// Short enough that the asking looks even, long enough that it costs nothing.
        const TICK: Duration = Duration::from_millis(10);
        let begun = Instant::now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut waiting = self.not_yet_asked();
            if waiting.is_empty() {
                if self.members() == 0 {
                    return;
                }
                // A session may still begin from a connection that was there before the drain.
                tick.tick().await;
                continue;
            }
            fastrand::shuffle(&mut waiting);
            for member in waiting {
                // Nobody else holds it: it has left by itself, and takes nobody's turn.
                if Arc::strong_count(&member) == 1 {
                    continue;
                }
                while *asked as f64 >= begun.elapsed().as_secs_f64() * f64::from(rate.get()) {
                    tick.tick().await;
                }
                *asked += 1;
                member.ask();
            }
        }
    }

    fn not_yet_asked(&self) -> Vec<Arc<Member>> {
        let members = self
            .shared
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        members
            .iter()
            .filter(|member| !member.asked.load(Ordering::Relaxed))
            .cloned()
            .collect()
    }
}

impl Group {
    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Acquire)
    }
}

impl Member {
    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Membership {
    /// From now on it leaves when this group has to. Once.
    pub fn enter(&self, group: &Group) {
        let entered = self.member.group.set(group.clone());
        if entered.is_ok() && group.is_leaving() {
            self.shared.news.notify_one();
        }
    }

    /// Ready when this member is asked to leave.
    pub fn poll_asked(&self, cx: &Context<'_>) -> Poll<()> {
        if self.member.asked.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.member.waker.register(cx.waker());
        // It may have been asked between the look and the registration.
        if self.member.asked.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self
            .shared
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let at = self.member.at.load(Ordering::Relaxed);
        members.swap_remove(at);
        if let Some(moved) = members.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rate: u32, max: u64) -> Pace {
        Pace {
            rate: NonZeroU32::new(rate).unwrap(),
            max: Duration::from_secs(max),
        }
    }

    fn start(drain: &Drain, count: usize) {
        for _ in 0..count {
            let membership = drain.join();
            drain.spawn(async move { std::future::poll_fn(|cx| membership.poll_asked(cx)).await });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_leave_at_the_rate() {
        let drain = Drain::default();
        start(&drain, 1000);
        drain.close();
        let begun = Instant::now();
        let ended = drain.run(pace(200, 60)).await;
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(
            ended,
            Ended {
                asked: 1000,
                cut: 0
            }
        );
        assert!((4.75..5.25).contains(&took), "took {took} s");
        assert_eq!(drain.members(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_leaves_at_the_rate_and_the_others_stay() {
        let drain = Drain::default();
        let (going, staying) = (Group::default(), Group::default());
        for number in 0..200 {
            let membership = drain.join();
            membership.enter(if number % 2 == 0 { &going } else { &staying });
            drain.spawn(async move { std::future::poll_fn(|cx| membership.poll_asked(cx)).await });
        }
        let pacing = drain.clone();
        let pace = async move { pacing.pace(NonZeroU32::new(100).unwrap()).await };
        tokio::pin!(pace);
        let mut left = async |members: usize| {
            let begun = Instant::now();
            let leaving = async {
                while drain.members() > members {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                () = leaving => begun.elapsed().as_secs_f64(),
                () = &mut pace => unreachable!(),
            }
        };
        assert_eq!(drain.ask_group(&going), 100);
        let took = left(100).await;
        assert!((0.95..1.05).contains(&took), "took {took} s");
        // Who comes later leaves too.
        let late = drain.join();
        late.enter(&going);
        drain.spawn(async move { std::future::poll_fn(|cx| late.poll_asked(cx)).await });
        left(100).await;
        drain.welcome_group(&going);
        let welcome = drain.join();
        welcome.enter(&going);
        assert_eq!(drain.ask_group(&staying), 100);
        left(1).await;
        assert!(!welcome.member.asked.load(Ordering::Relaxed));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_leave_is_cut_at_the_deadline() {
        let drain = Drain::default();
        start(&drain, 5);
        let stubborn = drain.clone();
        drain.spawn(async move { stubborn.cut().await });
        drain.close();
        let begun = Instant::now();
        assert_eq!(drain.run(pace(1000, 7)).await, Ended { asked: 5, cut: 1 });
        assert_eq!(begun.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn members_that_left_by_themselves_take_nobodys_turn() {
        let drain = Drain::default();
        let all: Vec<_> = (0..1000).map(|_| drain.join()).collect();
        drain.spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(all);
        });
        drain.close();
        let begun = Instant::now();
        let ended = drain.run(pace(10, 60)).await;
        assert!(ended.asked <= 12, "{ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn members_leave_by_themselves_in_any_order() {
        let drain = Drain::default();
        let mut all: Vec<_> = (0..10).map(|_| drain.join()).collect();
        for at in [9, 0, 4, 0, 5] {
            drop(all.swap_remove(at));
        }
        assert_eq!(drain.members(), 5);
        drop(all);
        assert_eq!(drain.members(), 0);
    }
}
