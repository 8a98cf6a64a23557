//! When to order: renewal in time, pauses after failures. Pure functions.

use std::hash::Hasher;
use std::time::{Duration, SystemTime};

use siphasher::sip::SipHasher13;

use super::failure::Kind;
use crate::certificates::Stored;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// No CA is asked for more patience than this by its own word: its limits are counted by the week (Let's Encrypt). What says more
/// comes from a clock that was wrong.
pub(super) const LONGEST: Duration = Duration::from_secs(8 * DAY.as_secs());

/// When a CA wishes a certificate to be renewed (RFC 9773 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
}

/// When to renew: with a third of the lifetime left, up to a twentieth earlier so that certificates that were issued together do
/// not stay together; or when the CA wishes.
pub(super) fn renewal(stored: &Stored, window: Option<Window>) -> SystemTime {
    let report = &stored.report;
    let lifetime = report
        .not_after
        .duration_since(report.not_before)
        .unwrap_or_default();
    let share = share(stored);
    let usual = report.not_after - lifetime / 3 - (lifetime / 20).mul_f64(share);
    let Some(Window { start, end }) = window else {
        return usual;
    };
    let Ok(length) = end.duration_since(start) else {
        return usual;
    };
    // A CA that wishes for renewal without end must not be flooded by us.
    let earliest = report.not_before + (lifetime / 10).min(DAY);
    // Nor may a certificate end for a wish.
    let latest = report.not_after - lifetime / 10;
    (start + length.mul_f64(share)).max(earliest).min(latest)
}

/// From 0 to 1, always the same for one certificate: a restart must not draw again.
fn share(stored: &Stored) -> f64 {
    let mut hasher = SipHasher13::new();
    for name in &stored.report.names {
        hasher.write(name.as_bytes());
    }
    if let Some(identifier) = &stored.identifier {
        hasher.write(identifier.serial.as_bytes());
    }
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

/// The pause after so many failures in a row, at least 1. Let's Encrypt counts five failed proofs of a name in an hour; the sixth
/// of ours comes after a day.
pub(super) fn pause(kind: Kind, failures: u32) -> Duration {
    let (first, factor, most) = match kind {
        // The CA has counted nothing.
        Kind::Unavailable => (Duration::from_secs(10), 2_u32, HOUR),
        Kind::RateLimited => (HOUR, 2, DAY),
        Kind::Refused | Kind::Unproven | Kind::Local => (5 * MINUTE, 3, 12 * HOUR),
    };
    let times = factor.saturating_pow(failures.saturating_sub(1));
    let pause = first.checked_mul(times).unwrap_or(most).min(most);
    pause.mul_f64(1.0 + 0.2 * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::certificates::Report;

    fn at(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + days * DAY
    }

    fn stored(name: &str) -> Stored {
        Stored {
            report: Report {
                path: PathBuf::new(),
                names: vec![name.to_owned()],
                not_before: at(1000),
                not_after: at(1090),
                key: String::new(),
                issuer: String::new(),
                chain_length: 2,
            },
            identifier: None,
        }
    }

    #[test]
    fn renewal_comes_with_a_third_left_and_not_at_the_same_moment_for_all() {
        let times: Vec<_> = (0..20)
            .map(|number| renewal(&stored(&number.to_string()), None))
            .collect();
        for time in &times {
            assert!((at(1055)..=at(1060)).contains(time), "{time:?}");
            assert!(*time + DAY / 2 > at(1055));
        }
        let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(last.duration_since(*first).unwrap() > 2 * DAY);
        assert_eq!(
            renewal(&stored("0"), None),
            times[0],
            "it is the same after a restart"
        );
    }

    #[test]
    fn the_ca_may_wish_for_another_time_but_not_for_renewals_without_end() {
        let window = |start, end| {
            Some(Window {
                start: at(start),
                end: at(end),
            })
        };
        let time = renewal(&stored("a"), window(1040, 1042));
        assert!((at(1040)..=at(1042)).contains(&time));
        // In the past: at once, and a new certificate has its peace for a day.
        assert_eq!(renewal(&stored("a"), window(1, 2)), at(1001));
        // Behind its end: in time all the same.
        assert_eq!(renewal(&stored("a"), window(2000, 2001)), at(1081));
        // No window at all.
        assert_eq!(
            renewal(&stored("a"), window(1042, 1040)),
            renewal(&stored("a"), None)
        );
    }

    #[test]
    fn pauses_grow_to_hours_and_stay_below_the_limits_of_cas() {
        let sum =
            |count: u32| -> Duration { (1..=count).map(|at| pause(Kind::Unproven, at)).sum() };
        // Five proofs of a name fail in an hour at most.
        assert!(sum(4) > HOUR);
        assert!(pause(Kind::Unavailable, 1) < 15 * Duration::from_secs(1));
        for kind in [
            Kind::Unavailable,
            Kind::RateLimited,
            Kind::Refused,
            Kind::Unproven,
            Kind::Local,
        ] {
            let (last, once) = (pause(kind, u32::MAX), pause(kind, 1));
            assert!(
                last >= HOUR && last <= 29 * HOUR && once < last * 2,
                "{kind:?}: {once:?} {last:?}"
            );
        }
    }
}
