//! How long things took, in classes: what p50 and p99 of the last seconds are read from. A histogram of Prometheus does
//! not tell its own counts, and its classes are too wide for a graph.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Four for each power of two, up to 2^30 µs (18 minutes): a value is known to an eighth.
const CLASSES: usize = 4 * 31;

/// Counts since the start of the process.
#[derive(Debug)]
pub struct Spread {
    classes: [AtomicU64; CLASSES],
}

/// The counts at one moment, or those between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; CLASSES]);

impl Default for Spread {
    fn default() -> Self {
        Self {
            classes: [const { AtomicU64::new(0) }; CLASSES],
        }
    }
}

impl Spread {
    pub fn observe(&self, took: Duration) {
        self.classes[class(took)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counts(&self) -> Counts {
        Counts(std::array::from_fn(|at| {
            self.classes[at].load(Ordering::Relaxed)
        }))
    }
}

impl Counts {
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those that came after `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|at| {
            self.0[at].saturating_sub(earlier.0[at])
        }))
    }

    /// What so many of a hundred took at most; `None` when there was nothing.
    pub fn percentile(&self, percent: u64) -> Option<Duration> {
        let rank = (self.total() * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (at, count) in self.0.iter().enumerate() {
            below += count;
            if below >= rank {
                return Some(middle(at));
            }
        }
        None
    }
}

/// The power of two, and the quarter above it.
fn class(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
    let power = micros.ilog2();
    let quarter = (micros >> (power - 2)) & 3;
    let class = usize::try_from(u64::from(power) * 4 + quarter).unwrap_or(CLASSES);
    class.min(CLASSES - 1)
}

fn middle(class: usize) -> Duration {
    // Classes begin with that of 4 µs: none is below it.
    let power = (class / 4).max(2);
    let width = 1u64 << (power - 2);
    let quarters = 4 + (class % 4) as u64;
    Duration::from_micros(quarters * width + width / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_an_eighth() {
        let spread = Spread::default();
        for millis in 1..=1000 {
            spread.observe(Duration::from_millis(millis));
        }
        let counts = spread.counts();
        for (percent, wanted) in [(50, 0.5), (99, 0.99), (1, 0.01)] {
            let found = counts.percentile(percent).unwrap().as_secs_f64();
            assert!((found / wanted - 1.0).abs() < 0.125, "p{percent} {found}");
        }
        assert_eq!(counts.total(), 1000);
    }

    #[test]
    fn only_what_came_since_counts() {
        let spread = Spread::default();
        spread.observe(Duration::from_secs(5));
        let earlier = spread.counts();
        assert_eq!(spread.counts().since(&earlier).percentile(99), None);
        spread.observe(Duration::from_millis(8));
        let since = spread.counts().since(&earlier);
        assert_eq!(since.total(), 1);
        assert!(since.percentile(99).unwrap() < Duration::from_millis(10));
    }

    #[test]
    fn nothing_is_too_short_or_too_long() {
        let spread = Spread::default();
        for took in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            spread.observe(took);
        }
        assert_eq!(spread.counts().total(), 3);
        assert!(spread.counts().percentile(100).unwrap() > Duration::from_secs(900));
    }
}
