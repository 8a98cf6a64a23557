//! The rules of health, on a clock of their own.

use super::*;
use crate::config::model::ProbeKind;

const EJECT: Eject = Eject {
    failures: 3,
    time: Duration::from_secs(10),
    longest: Duration::from_secs(60),
};

fn probe() -> Probe {
    Probe {
        kind: ProbeKind::Tcp,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        client_id: String::new(),
        user_name: None,
        password: None,
        url: None,
    }
}

fn after(begin: Instant, seconds: u64) -> Instant {
    begin + Duration::from_secs(seconds)
}

fn ejected(health: &mut Health, now: Instant) -> Option<u64> {
    match health.failed(now, now, &EJECT, true) {
        Some(Change::Ejected { time, .. }) => Some(time.as_secs()),
        _ => None,
    }
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let now = Instant::now();
    let mut health = Health::default();
    assert_eq!(ejected(&mut health, now), None);
    assert_eq!(ejected(&mut health, now), None);
    assert_eq!(health.succeeded(now), None);
    assert_eq!(ejected(&mut health, now), None);
    assert_eq!(ejected(&mut health, now), None);
    assert_eq!(health.condition(), Condition::Up);
    assert_eq!(ejected(&mut health, now), Some(10));
    assert_eq!(health.condition(), Condition::Ejected);
}

#[test]
fn each_failed_try_doubles_the_time_up_to_the_longest() {
    let mut now = Instant::now();
    let mut health = Health::default();
    ejected(&mut health, now);
    ejected(&mut health, now);
    for seconds in [10, 20, 40, 60, 60] {
        assert_eq!(ejected(&mut health, now), Some(seconds));
        assert_eq!(
            ejected(&mut health, now),
            None,
            "one ejection for many failures"
        );
        assert!(!health.is_due(after(now, seconds - 1)));
        now = after(now, seconds);
        assert!(health.is_due(now));
    }
    assert!(matches!(health.succeeded(now), Some(Change::Back { .. })));
    assert_eq!(health.condition(), Condition::Up);
    ejected(&mut health, now);
    ejected(&mut health, now);
    assert_eq!(ejected(&mut health, now), Some(10), "a success begins anew");
}

#[test]
fn a_session_from_before_the_ejection_is_no_try() {
    let begin = Instant::now();
    let mut health = Health::default();
    for _ in 0..3 {
        ejected(&mut health, after(begin, 5));
    }
    let late = after(begin, 16);
    assert_eq!(health.failed(late, after(begin, 4), &EJECT, true), None);
    assert!(health.is_due(late));
}

#[test]
fn the_last_broker_is_kept_and_it_is_said_once() {
    let now = Instant::now();
    let mut health = Health::default();
    let changes: Vec<_> = (0..5)
        .map(|_| health.failed(now, now, &EJECT, false))
        .collect();
    assert_eq!(changes[2], Some(Change::Kept { failures: 3 }));
    assert_eq!(changes.iter().flatten().count(), 1);
    assert_eq!(health.condition(), Condition::Up);
    assert_eq!(ejected(&mut health, now), Some(10), "another one is back");
}

#[test]
fn the_time_to_notice_begins_with_the_first_attempt_that_failed() {
    let begin = Instant::now();
    let mut health = Health::default();
    health.succeeded(begin);
    health.failed(after(begin, 7), after(begin, 2), &EJECT, true);
    health.failed(after(begin, 7), after(begin, 3), &EJECT, true);
    let change = health.failed(after(begin, 8), after(begin, 3), &EJECT, true);
    let noticed = Noticed {
        after: Duration::from_secs(6),
        well: Some(Duration::from_secs(8)),
    };
    assert_eq!(
        change,
        Some(Change::Ejected {
            time: Duration::from_secs(10),
            failures: 3,
            noticed
        })
    );
}

#[test]
fn probes_take_a_broker_out_and_bring_it_back() {
    let now = Instant::now();
    let (mut health, probe) = (Health::default(), probe());
    let mut asked = |sign| {
        let change = health.probed(now, now, sign, &probe);
        (change.is_some(), health.condition())
    };
    let good = Sign::Good { session: false };
    assert_eq!(asked(Sign::Bad), (false, Condition::Up));
    assert_eq!(asked(Sign::Bad), (false, Condition::Up));
    assert_eq!(asked(good), (false, Condition::Up));
    assert_eq!(asked(Sign::Bad), (false, Condition::Up));
    assert_eq!(asked(Sign::Bad), (false, Condition::Up));
    assert_eq!(asked(Sign::Bad), (true, Condition::Down));
    assert_eq!(asked(Sign::Bad), (false, Condition::Down));
    assert_eq!(asked(good), (false, Condition::Down));
    assert_eq!(asked(Sign::Draining), (true, Condition::Draining));
    assert_eq!(asked(good), (false, Condition::Draining));
    assert_eq!(asked(good), (true, Condition::Up));
}

#[test]
fn a_probe_ends_an_ejection_only_when_it_was_a_session_and_the_time_is_over() {
    let now = Instant::now();
    let probe = probe();
    for (session, seconds, condition) in [
        (true, 9, Condition::Ejected),
        (false, 11, Condition::Ejected),
        (true, 11, Condition::Up),
    ] {
        let mut health = Health::default();
        for _ in 0..3 {
            ejected(&mut health, now);
        }
        for _ in 0..2 {
            let now = after(now, seconds);
            health.probed(now, now, Sign::Good { session }, &probe);
        }
        assert_eq!(health.condition(), condition, "{session} {seconds}");
    }
}

#[test]
fn the_share_grows_from_a_tenth_to_the_whole_after_a_recovery_only() {
    let now = Instant::now();
    let slow_start = Duration::from_secs(30);
    let mut health = Health::default();
    health.succeeded(now);
    assert_eq!(
        health.warmth(now, slow_start),
        1.0,
        "a start is no recovery"
    );
    for _ in 0..3 {
        ejected(&mut health, now);
    }
    let back = after(now, 10);
    assert_eq!(health.warmth(back, slow_start), 0.1, "the try");
    health.succeeded(back);
    for (seconds, warmth) in [(0, 0.1), (10, 0.4), (20, 0.7), (30, 1.0), (90, 1.0)] {
        let found = health.warmth(after(back, seconds), slow_start);
        assert!((found - warmth).abs() < 1e-9, "{seconds}: {found}");
    }
    assert_eq!(health.warmth(back, Duration::ZERO), 1.0);
}
