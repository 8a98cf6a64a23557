//! A drain with its clock in hand: rate, order, groups, ages, the cut at the end.

use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

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

/// A client that does not answer the goodbye was asked: it is not the rate that was too low.
#[tokio::test(start_paused = true)]
async fn who_is_still_saying_goodbye_was_not_cut() {
    let drain = Drain::default();
    let (membership, stubborn) = (drain.join(None), drain.clone());
    drain.spawn(async move {
        std::future::poll_fn(|cx| membership.poll_asked(cx)).await;
        stubborn.cut().await;
        drop(membership);
    });
    assert_eq!(run(&drain, 1000, 7).await, Ended { asked: 1, cut: 0 });
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
