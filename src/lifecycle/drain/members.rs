//! Who is there: members, the groups that they may have to leave with, and the order in which their ages are looked at.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use tokio::time::Instant;

use super::Shared;

/// How many members are looked at for their age at a time: at least so many, or a tenth.
const AGED_AT_ONCE: usize = 1000;

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

/// Members that may have to leave together: the sessions of one broker.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// Changed only while the members are locked.
    leaving: Arc<AtomicBool>,
}

impl Group {
    pub(super) fn set_leaving(&self, leaving: bool) {
        self.leaving.store(leaving, Ordering::Relaxed);
    }

    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.leaving, &other.leaving)
    }
}

#[derive(Debug)]
pub(super) struct Member {
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

impl Member {
    /// `false` when it is, or was, among the turns already.
    pub(super) fn enqueue(&self) -> bool {
        !self.queued.swap(true, Ordering::Relaxed)
    }

    pub(super) fn ask(&self, why: Asked) {
        self.asked.store(why as u8, Ordering::Release);
        self.waker.wake();
    }

    fn asked(&self) -> Option<Asked> {
        Asked::of(self.asked.load(Ordering::Acquire))
    }

    pub(super) fn is_of(&self, group: &Group) -> bool {
        self.group.get().is_some_and(|own| own.is(group))
    }
}

#[derive(Debug, Default)]
pub(super) struct Members {
    list: Vec<Arc<Member>>,
    /// A stop: who joins from now on has to leave as well.
    pub(super) all_leave: bool,
    /// Where the next look for ages begins.
    looked: usize,
}

impl Members {
    pub(super) fn add(&mut self, due: Option<Instant>) -> Arc<Member> {
        let member = Arc::new(Member {
            asked: AtomicU8::new(0),
            queued: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            group: OnceLock::new(),
            due,
            at: AtomicUsize::new(self.list.len()),
        });
        self.list.push(Arc::clone(&member));
        member
    }

    /// The last one takes its place.
    fn remove(&mut self, member: &Member) {
        let at = member.at.load(Ordering::Relaxed);
        self.list.swap_remove(at);
        if let Some(moved) = self.list.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
    }

    pub(super) fn all(&self) -> &[Arc<Member>] {
        &self.list
    }

    /// How many were asked to leave and are still here.
    pub(super) fn asked(&self) -> usize {
        let was_asked = |member: &&Arc<Member>| member.asked().is_some();
        self.list.iter().filter(was_asked).count()
    }

    /// Of the next few, those that have reached their age.
    pub(super) fn aged(&mut self, now: Instant) -> impl Iterator<Item = &Arc<Member>> {
        let count = self.list.len();
        let begin = if self.looked < count { self.looked } else { 0 };
        let end = count.min(begin + AGED_AT_ONCE.max(count / 10));
        self.looked = end;
        let is_due = move |member: &&Arc<Member>| member.due.is_some_and(|due| due <= now);
        self.list[begin..end].iter().filter(is_due)
    }
}

/// A session's place in the drain. Dropping it leaves.
#[derive(Debug)]
pub struct Membership {
    pub(super) member: Arc<Member>,
    pub(super) shared: Arc<Shared>,
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
        self.member.asked()
    }

    /// From now on it leaves when this group has to. Once.
    pub fn enter(&self, group: &Group) {
        // The lock decides whether it came before the group was asked or after.
        let _members = self.shared.members();
        let entered = self.member.group.set(group.clone());
        if entered.is_ok() && group.is_leaving() {
            self.shared.turns.queue([&self.member], Asked::Group);
        }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.members().remove(&self.member);
    }
}
