//! A cap on new sessions per broker and second, and the short queue in front of it.
//!
//! Each broker hands out places in time; a session takes the next one and sleeps until it is there. So the queue is in
//! the order of arrival, nobody has to be woken, and its length is a number. A place that its session did not wait for
//! is lost: at most `age` of them.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use crate::config::model;

/// How much of a second's rate may come at once.
const BURST: Duration = Duration::from_millis(100);

/// One broker's places (a generic cell rate algorithm).
#[derive(Debug, Default)]
pub struct Places(Mutex<Option<Instant>>);

impl Places {
    /// How long a session that came now would wait. A rate of 0 is any number.
    pub fn wait(&self, now: Instant, rate: u32) -> Duration {
        match self.next(rate) {
            Some(next) => (next.max(now) - now).saturating_sub(BURST),
            None => Duration::ZERO,
        }
    }

    /// Takes the next place, if it is not further away than `longest`.
    pub fn take(&self, now: Instant, rate: u32, longest: Duration) -> Option<Duration> {
        if rate == 0 {
            return Some(Duration::ZERO);
        }
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.map_or(now, |next| next.max(now));
        let wait = (at - now).saturating_sub(BURST);
        if wait > longest {
            return None;
        }
        *next = Some(at + Duration::from_secs(1) / rate);
        Some(wait)
    }

    fn next(&self, rate: u32) -> Option<Instant> {
        match rate {
            0 => None,
            _ => *self.0.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// The sessions of a pool that wait.
#[derive(Debug)]
pub struct Queue {
    length: usize,
    pub age: Duration,
    waiting: AtomicUsize,
    gauge: Gauge,
}

/// A session that waits. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Waiting<'a>(&'a Queue);

impl Queue {
    pub fn new(config: &model::Queue, gauge: Gauge) -> Self {
        Self {
            length: config.length,
            age: config.age,
            waiting: AtomicUsize::new(0),
            gauge,
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// `None` when it is full.
    pub fn enter(&self) -> Option<Waiting<'_>> {
        let more = |waiting: usize| (waiting < self.length).then(|| waiting + 1);
        let entered = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.ok().map(|_| {
            self.gauge.inc();
            Waiting(self)
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_rate_and_a_tenth_of_it_comes_at_once() {
        let now = Instant::now();
        let places = Places::default();
        let waits: Vec<Duration> = (0..120)
            .map_while(|_| places.take(now, 100, Duration::from_secs(1)))
            .collect();
        let at_once = waits.iter().filter(|wait| wait.is_zero()).count();
        assert_eq!((at_once, waits.len()), (11, 111));
        assert!(waits.is_sorted());
        assert_eq!(waits.last(), Some(&Duration::from_secs(1)));
        let later = now + Duration::from_secs(5);
        assert_eq!(
            places.take(later, 100, Duration::ZERO),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn what_is_refused_takes_no_place() {
        let now = Instant::now();
        let places = Places::default();
        assert_eq!(places.take(now, 1, Duration::ZERO), Some(Duration::ZERO));
        assert_eq!(places.take(now, 1, Duration::ZERO), None);
        assert_eq!(places.wait(now, 1), Duration::from_millis(900));
        assert_eq!(places.wait(now, 0), Duration::ZERO);
    }

    #[test]
    fn the_queue_has_an_end() {
        let config = model::Queue {
            length: 2,
            age: Duration::ZERO,
        };
        let queue = Queue::new(&config, Gauge::default());
        let first = queue.enter();
        let _second = queue.enter();
        assert!(first.is_some() && queue.enter().is_none());
        drop(first);
        assert!(queue.enter().is_some());
    }
}
