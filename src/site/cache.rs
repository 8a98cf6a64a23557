//! Files that were asked for lately: within the memory that the site may take, and looked at again every second.
//!
//! One map for all threads, since a reader holds its lock for one look-up. Whoever finds that a second is over looks
//! whether the file is still the same, and the others are answered from memory meanwhile: nobody waits for a disk that
//! need not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::file::Entry;

/// How long a file is taken to be as it was.
const VALID: Duration = Duration::from_secs(1);

/// What an entry takes beside its files, and the reason why there are never very many.
const OVERHEAD: usize = 4096;

/// No file takes more than this part of the memory from all others.
const LARGEST: usize = 4;

#[derive(Debug)]
pub(super) struct Cache {
    most: usize,
    began: Instant,
    held: RwLock<Held>,
}

#[derive(Debug, Default)]
struct Held {
    slots: HashMap<String, Slot>,
    /// The sum of all costs.
    taken: usize,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    cost: usize,
    /// Milliseconds since `Cache::began`.
    looked_at: AtomicU64,
    /// Again, since the last time that room was made: what one visitor reads once makes room first.
    asked_for: AtomicBool,
}

/// What the cache knows of a path.
pub(super) enum Known {
    Fresh(Arc<Entry>),
    /// The caller is the one who looks whether it is still so.
    Due(Arc<Entry>),
    Nothing,
}

impl Cache {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            began: Instant::now(),
            held: RwLock::default(),
        }
    }

    pub(super) fn find(&self, key: &str) -> Known {
        let held = self.read();
        let Some(slot) = held.slots.get(key) else {
            return Known::Nothing;
        };
        if !slot.asked_for.load(Ordering::Relaxed) {
            slot.asked_for.store(true, Ordering::Relaxed);
        }
        let entry = Arc::clone(&slot.entry);
        let (now, then) = (self.now(), slot.looked_at.load(Ordering::Relaxed));
        let is_due = now.saturating_sub(then) >= millis(VALID);
        let is_mine = is_due && {
            let mine = &slot.looked_at;
            mine.compare_exchange(then, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        match is_mine {
            true => Known::Due(entry),
            false => Known::Fresh(entry),
        }
    }

    /// Keeps what was read for `key`, in the place of what was there, if there is room.
    pub(super) fn keep(&self, key: &str, entry: &Arc<Entry>) {
        let cost = OVERHEAD + entry.memory();
        let mut held = self.write();
        held.remove(key);
        if !held.make_room(cost, self.most) {
            return;
        }
        held.taken += cost;
        let slot = Slot {
            entry: Arc::clone(entry),
            cost,
            looked_at: AtomicU64::new(self.now()),
            asked_for: AtomicBool::new(false),
        };
        held.slots.insert(key.to_owned(), slot);
    }

    /// Takes `more` memory for an entry. False where it has none, or is no longer held.
    pub(super) fn grow(&self, key: &str, entry: &Arc<Entry>, more: usize) -> bool {
        let mut held = self.write();
        if !held.make_room(more, self.most) {
            return false;
        }
        let Some(slot) = held.slots.get_mut(key) else {
            return false;
        };
        if !Arc::ptr_eq(&slot.entry, entry) {
            return false;
        }
        slot.cost += more;
        held.taken += more;
        true
    }

    pub(super) fn holds(&self, key: &str, entry: &Arc<Entry>) -> bool {
        let held = self.read();
        let slot = held.slots.get(key);
        slot.is_some_and(|slot| Arc::ptr_eq(&slot.entry, entry))
    }

    pub(super) fn forget(&self, key: &str) {
        self.write().remove(key);
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Held> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn remove(&mut self, key: &str) {
        if let Some(slot) = self.slots.remove(key) {
            self.taken -= slot.cost;
        }
    }

    /// Lets go of what was not asked for since the last time, then of anything. False where it would be too much.
    fn make_room(&mut self, cost: usize, most: usize) -> bool {
        if cost > most / LARGEST {
            return false;
        }
        for _round in 0..2 {
            if self.taken + cost <= most {
                return true;
            }
            let (taken, enough) = (&mut self.taken, most - cost);
            self.slots.retain(|_, slot| {
                let stays = *taken <= enough || slot.asked_for.swap(false, Ordering::Relaxed);
                if !stays {
                    *taken -= slot.cost;
                }
                stays
            });
        }
        self.taken + cost <= most
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::Symlinks;
    use crate::site::confined::Confined;

    /// As much as three hundred KiB hold of files of eight.
    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        const MOST: usize = 300 * 1024;
        let folder = tempfile::tempdir().unwrap();
        let confined = Confined::new(folder.path(), Symlinks::Inside);
        let cache = Cache::new(MOST);
        let mut entries = Vec::new();
        for number in 0..100 {
            let name = number.to_string();
            std::fs::write(folder.path().join(&name), [0; 8192]).unwrap();
            let entry = Arc::new(Entry::read(&confined, &name, None).unwrap());
            cache.keep(&name, &entry);
            entries.push((name, entry));
            for wanted in 0..=number.min(9) {
                let found = cache.find(&wanted.to_string());
                assert!(matches!(found, Known::Fresh(_)), "{wanted} of {number}");
            }
            let held = cache.read();
            assert_eq!(held.taken, held.slots.len() * (8192 + OVERHEAD));
            assert!(held.taken <= MOST);
        }
        // The last one is there, and most others are not.
        let (name, last) = entries.pop().unwrap();
        assert!(cache.holds(&name, &last));
        let (_, zero) = &entries[0];
        assert!(cache.grow("0", zero, 40_000));
        assert!(!cache.grow("0", zero, MOST), "all others would have to go");
        assert!(!cache.grow("none", zero, 1));
        let held = cache.read();
        let costs: usize = held.slots.values().map(|slot| slot.cost).sum();
        assert_eq!(held.taken, costs);
        assert!(held.taken <= MOST && held.slots.len() < 25);
    }

    #[test]
    fn forgetting_gives_back_what_was_taken() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), "a").unwrap();
        let confined = Confined::new(folder.path(), Symlinks::Inside);
        let entry = Arc::new(Entry::read(&confined, "a", None).unwrap());
        let cache = Cache::new(1 << 20);
        for _ in 0..3 {
            cache.keep("a", &entry);
        }
        assert_eq!(cache.read().taken, OVERHEAD + 1);
        cache.forget("a");
        cache.forget("a");
        assert_eq!(cache.read().taken, 0);
        assert!(matches!(cache.find("a"), Known::Nothing));
    }
}
