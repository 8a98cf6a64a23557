//! The end of everything that belongs to clients: tasks are spawned here, sessions are members, and members are asked to
//! leave at one pace, in random order, whoever wishes it: a stop, a broker that is taken out, a session's age.
//!
//! INVARIANT: nothing that serves a client runs outside the tracker; `clippy.toml` forbids `tokio::spawn` elsewhere.

use std::future::Future;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Members per second until somebody says otherwise: the default of `drain.rate`.
const RATE: u32 = 500;

/// How long a pacer that was held up may take to make up for it. More would be a burst.
const ARREARS: Duration = Duration::from_millis(250);

/// How often members are looked at for their age, and how many at a time: at least so many, or a tenth.
const AGES: Duration = Duration::from_secs(1);
const AGED_AT_ONCE: usize = 1000;

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Members asked to leave.
    pub asked: usize,
    /// Tasks that were still there at the end and were cut.
    pub cut: usize,
}

/// Why a member is asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Asked {
    /// The process stops.
    Stop = 1,
    /// Its group has to leave.
    Group = 2,
    Age = 3,
}

impl Asked {
    fn of(word: u8) -> Option<Self> {
        [Self::Stop, Self::Group, Self::Age]
            .into_iter()
            .find(|asked| *asked as u8 == word)
    }
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

#[derive(Debug)]
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
    /// Those who wait to be asked. Locked behind `members`, never before it. At most as many as there are members.
    turns: Mutex<Vec<(Arc<Member>, Asked)>>,
    /// Somebody waits, or the rate has changed.
    news: Notify,
    rate: AtomicU32,
    asked: AtomicUsize,
}

#[derive(Debug, Default)]
struct Members {
    list: Vec<Arc<Member>>,
    /// A stop: who joins from now on has to leave as well.
    all_leave: bool,
    /// Where the next look for ages begins.
    looked: usize,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            tracker: TaskTracker::default(),
            doors: TaskTracker::default(),
            closing: CancellationToken::default(),
            cut: CancellationToken::default(),
            were_cut: OnceLock::new(),
            handed_over: AtomicBool::new(false),
            members: Mutex::default(),
            turns: Mutex::default(),
            news: Notify::default(),
            rate: AtomicU32::new(RATE),
            asked: AtomicUsize::new(0),
        }
    }
}

#[derive(Debug)]
struct Member {
    /// 0, or an `Asked`.
    asked: AtomicU8,
    /// It is, or was, among the turns.
    queued: AtomicBool,
    waker: AtomicWaker,
    group: OnceLock<Group>,
    /// When its age is reached.
    due: Option<Instant>,
    /// Where it stands in `Members::list`; changed only under that lock.
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

    /// True when sessions that would begin now are to be refused.
    pub fn is_refusing(&self) -> bool {
        self.is_closing() && !self.shared.handed_over.load(Ordering::Relaxed)
    }

    /// Ready when nothing new may begin.
    pub fn closing(&self) -> WaitForCancellationFuture<'_> {
        self.shared.closing.cancelled()
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
        let member = Arc::new(Member {
            asked: AtomicU8::new(0),
            queued: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            group: OnceLock::new(),
            due,
            at: AtomicUsize::new(members.list.len()),
        });
        members.list.push(Arc::clone(&member));
        if members.all_leave {
            self.shared.queue([&member], Asked::Stop);
        }
        drop(members);
        Membership {
            member,
            shared: Arc::clone(&self.shared),
        }
    }

    pub fn members(&self) -> usize {
        self.shared.members().list.len()
    }

    pub fn progress(&self) -> Progress {
        Progress {
            members: self.members(),
            waiting: self.shared.turns().len(),
            rate: self.shared.rate(),
        }
    }

    /// For every drain that runs, and for those to come.
    pub fn set_rate(&self, rate: NonZeroU32) {
        self.shared.rate.store(rate.get(), Ordering::Relaxed);
        self.shared.news.notify_one();
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
        group.leaving.store(true, Ordering::Relaxed);
        let is_of_it = |member: &&Arc<Member>| {
            let of = member.group.get();
            of.is_some_and(|of| Arc::ptr_eq(&of.leaving, &group.leaving))
        };
        self.shared
            .queue(members.list.iter().filter(is_of_it), Asked::Group)
    }

    /// The group is welcome again; who was asked to leave still leaves.
    pub fn welcome_group(&self, group: &Group) {
        let _members = self.shared.members();
        group.leaving.store(false, Ordering::Relaxed);
    }

    /// Asks every member to leave in its turn, waits for all tasks at most `longest`, then cuts the rest. Call `close` first, and
    /// have `pace` run. `cut_now` ends it at once.
    pub async fn run(&self, longest: Duration) -> Ended {
        let deadline = Instant::now() + longest;
        let before = self.shared.asked.load(Ordering::Relaxed);
        {
            let mut members = self.shared.members();
            members.all_leave = true;
            self.shared.queue(&members.list, Asked::Stop);
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
        let asked = self.shared.asked.load(Ordering::Relaxed) - before;
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
        // Counted before they hear of it, by whoever is first.
        self.shared
            .were_cut
            .get_or_init(|| self.shared.tracker.len());
        self.shared.cut.cancel();
    }

    /// Gives the turns, and finds the members that are due by their age. Runs as long as the process; ends never.
    pub async fn pace(&self) {
        tokio::join!(self.give_turns(), self.find_aged());
    }

    async fn give_turns(&self) {
        let mut next = Instant::now();
        loop {
            if self.shared.turns().is_empty() {
                self.shared.news.notified().await;
                // What was not used while nobody waited is gone.
                next = next.max(Instant::now());
                continue;
            }
            let now = Instant::now();
            if next > now {
                // CANCEL: both only wait.
                tokio::select! {
                    () = sleep_until(next) => {}
                    () = self.shared.news.notified() => {}
                }
                // At another rate the next turn may be nearer.
                next = next.min(Instant::now() + self.shared.interval());
                continue;
            }
            // Who has left by itself takes nobody's turn.
            if self.shared.ask_one() {
                let earliest = now.checked_sub(ARREARS).unwrap_or(now);
                next = next.max(earliest) + self.shared.interval();
            }
        }
    }

    async fn find_aged(&self) {
        let mut tick = tokio::time::interval(AGES);
        loop {
            let now = tick.tick().await;
            let mut members = self.shared.members();
            let count = members.list.len();
            let begin = if members.looked < count {
                members.looked
            } else {
                0
            };
            let end = count.min(begin + AGED_AT_ONCE.max(count / 10));
            members.looked = end;
            let is_due = |member: &&Arc<Member>| member.due.is_some_and(|due| due <= now);
            let aged = members.list[begin..end].iter().filter(is_due);
            self.shared.queue(aged, Asked::Age);
        }
    }
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turns(&self) -> MutexGuard<'_, Vec<(Arc<Member>, Asked)>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rate(&self) -> NonZeroU32 {
        NonZeroU32::new(self.rate.load(Ordering::Relaxed)).unwrap_or(NonZeroU32::MIN)
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.rate().get()
    }

    /// Those of them who do not wait yet. Answers how many.
    fn queue<'a>(&self, members: impl IntoIterator<Item = &'a Arc<Member>>, why: Asked) -> usize {
        let mut turns = self.turns();
        let before = turns.len();
        let new = members
            .into_iter()
            .filter(|member| !member.queued.swap(true, Ordering::Relaxed));
        turns.extend(new.map(|member| (Arc::clone(member), why)));
        let added = turns.len() - before;
        drop(turns);
        if added > 0 {
            self.news.notify_one();
        }
        added
    }

    /// Asks one of those who wait, anyone. `false` when that one has left by itself.
    fn ask_one(&self) -> bool {
        let mut turns = self.turns();
        if turns.is_empty() {
            return false;
        }
        let (member, mut why) = {
            let at = fastrand::usize(..turns.len());
            turns.swap_remove(at)
        };
        drop(turns);
        // Nobody else holds it.
        if Arc::strong_count(&member) == 1 {
            return false;
        }
        // What is told is what is true now: another server may have been named for the stop.
        if self.closing.is_cancelled() {
            why = Asked::Stop;
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        member.asked.store(why as u8, Ordering::Release);
        member.waker.wake();
        true
    }
}

impl Membership {
    /// Ready when this member is asked to leave.
    pub fn poll_asked(&self, cx: &Context<'_>) -> Poll<()> {
        if self.asked().is_some() {
            return Poll::Ready(());
        }
        self.member.waker.register(cx.waker());
        // It may have been asked between the look and the registration.
        match self.asked() {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        }
    }

    /// Why it was asked to leave, if it was.
    pub fn asked(&self) -> Option<Asked> {
        Asked::of(self.member.asked.load(Ordering::Acquire))
    }

    /// From now on it leaves when this group has to. Once.
    pub fn enter(&self, group: &Group) {
        // The lock decides whether it came before the group was asked or after.
        let _members = self.shared.members();
        let entered = self.member.group.set(group.clone());
        if entered.is_ok() && group.leaving.load(Ordering::Relaxed) {
            self.shared.queue([&self.member], Asked::Group);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut members = self.shared.members();
        let at = self.member.at.load(Ordering::Relaxed);
        members.list.swap_remove(at);
        if let Some(moved) = members.list.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(drain: &Drain, count: usize, longest: Option<Duration>, group: &Group) {
        for _ in 0..count {
            let membership = drain.join(longest);
            membership.enter(group);
            drain.spawn(async move { std::future::poll_fn(|cx| membership.poll_asked(cx)).await });
        }
    }

    async fn run(drain: &Drain, rate: u32, longest: u64) -> Ended {
        drain.set_rate(NonZeroU32::new(rate).unwrap());
        drain.close();
        tokio::select! {
            ended = drain.run(Duration::from_secs(longest)) => ended,
            () = drain.pace() => unreachable!(),
        }
    }

    /// Until so many are left.
    async fn left(drain: &Drain, members: usize) -> f64 {
        let begun = Instant::now();
        let left = async {
            while drain.members() > members {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = left => begun.elapsed().as_secs_f64(),
            () = drain.pace() => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn members_leave_at_the_rate() {
        let drain = Drain::default();
        start(&drain, 1000, None, &Group::default());
        let begun = Instant::now();
        let ended = run(&drain, 200, 60).await;
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
    async fn what_does_not_leave_is_cut_at_the_deadline() {
        let drain = Drain::default();
        start(&drain, 5, None, &Group::default());
        let stubborn = drain.clone();
        drain.spawn(async move { stubborn.cut().await });
        let begun = Instant::now();
        assert_eq!(run(&drain, 1000, 7).await, Ended { asked: 5, cut: 1 });
        assert_eq!(begun.elapsed().as_secs(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn members_that_left_by_themselves_take_nobodys_turn() {
        let drain = Drain::default();
        let all: Vec<_> = (0..1000).map(|_| drain.join(None)).collect();
        drain.spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(all);
        });
        let begun = Instant::now();
        let ended = run(&drain, 10, 60).await;
        assert!(ended.asked <= 12, "{ended:?}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn members_leave_by_themselves_in_any_order() {
        let drain = Drain::default();
        let mut all: Vec<_> = (0..10).map(|_| drain.join(None)).collect();
        for at in [9, 0, 4, 0, 5] {
            drop(all.swap_remove(at));
        }
        assert_eq!(drain.members(), 5);
        drop(all);
        assert_eq!(drain.members(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_group_leaves_at_the_rate_and_the_others_stay() {
        let drain = Drain::default();
        let (going, staying) = (Group::default(), Group::default());
        start(&drain, 100, None, &going);
        start(&drain, 100, None, &staying);
        drain.set_rate(NonZeroU32::new(100).unwrap());
        assert_eq!(drain.ask_group(&going), 100);
        assert_eq!(drain.ask_group(&going), 0, "nobody has two turns");
        let took = left(&drain, 100).await;
        assert!((0.95..1.05).contains(&took), "took {took} s");
        assert_eq!(drain.progress().waiting, 0);
        start(&drain, 1, None, &going);
        assert_eq!(drain.progress().waiting, 1, "who comes later leaves too");
        left(&drain, 100).await;
        drain.welcome_group(&going);
        start(&drain, 1, None, &going);
        assert_eq!(drain.progress().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn members_leave_at_their_age_or_a_fifth_earlier() {
        let drain = Drain::default();
        start(
            &drain,
            500,
            Some(Duration::from_secs(100)),
            &Group::default(),
        );
        start(&drain, 1, None, &Group::default());
        let first = left(&drain, 500).await;
        assert!((80.0..83.0).contains(&first), "{first} s");
        let half = first + left(&drain, 251).await;
        assert!((88.0..92.0).contains(&half), "{half} s");
        let last = half + left(&drain, 1).await;
        assert!((98.0..102.0).contains(&last), "{last} s");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_can_be_raised_while_members_wait() {
        let drain = Drain::default();
        let group = Group::default();
        start(&drain, 101, None, &group);
        drain.set_rate(NonZeroU32::new(1).unwrap());
        drain.ask_group(&group);
        assert_eq!(drain.progress().seconds(), 101.0);
        let faster = drain.clone();
        let raise = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            faster.set_rate(NonZeroU32::new(1000).unwrap());
            std::future::pending::<()>().await;
        };
        let took = tokio::select! { took = left(&drain, 0) => took, () = raise => unreachable!() };
        assert!((0.5..0.7).contains(&took), "took {took} s");
    }
}
