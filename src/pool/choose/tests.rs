//! The rules of the choice on many sessions, with fixed seeds.

use fastrand::Rng;
use proptest::prelude::*;

use super::rendezvous::score;
use super::*;

fn broker(url: &str, weight: u32) -> Candidate {
    Candidate {
        open: true,
        weight,
        sessions: 0,
        warmth: 1.0,
        seed: Seed::of(url),
    }
}

fn pool(weights: &[u32]) -> Vec<Candidate> {
    weights
        .iter()
        .enumerate()
        .map(|(at, weight)| broker(&format!("ws://10.10.1.{at}:8083/mqtt"), *weight))
        .collect()
}

fn by_key(candidates: &[Candidate], key: &str) -> usize {
    let mut turns = RoundRobin::new([1]);
    choose(
        Rule::Key(key.as_bytes()),
        candidates,
        &mut turns,
        &mut Rng::with_seed(1),
    )
    .unwrap()
}

fn ids() -> impl Iterator<Item = String> {
    (0..100_000).map(|number| format!("device-{number:06}"))
}

#[test]
fn each_brokers_share_of_100_000_ids_is_within_two_percent_of_its_weight() {
    let weights = [1, 1, 2, 2, 4];
    let pool = pool(&weights);
    let mut won = [0_u32; 5];
    for id in ids() {
        won[by_key(&pool, &id)] += 1;
    }
    for (won, weight) in won.iter().zip(weights) {
        let expected = 100_000.0 * f64::from(weight) / 10.0;
        let off = (f64::from(*won) - expected).abs() / expected;
        assert!(off < 0.02, "{won} of {expected}: {off}");
    }
}

#[test]
fn a_broker_that_goes_or_comes_moves_only_its_ids() {
    let whole = pool(&[1, 3, 2, 1, 1]);
    for gone in 0..whole.len() {
        let mut rest = whole.clone();
        rest[gone].open = false;
        for id in ids().step_by(7) {
            let before = by_key(&whole, &id);
            let after = by_key(&rest, &id);
            assert!(before == after || before == gone, "{id}");
            assert_ne!(after, gone);
        }
    }
}

#[test]
fn more_weight_takes_ids_only_towards_itself() {
    let (before, after) = (pool(&[1, 1, 1]), pool(&[1, 2, 1]));
    for id in ids().step_by(11) {
        let (before, after) = (by_key(&before, &id), by_key(&after, &id));
        assert!(before == after || after == 1, "{id}");
    }
}

#[test]
fn the_order_of_the_file_means_nothing() {
    let forward = pool(&[1, 3, 2, 1, 1]);
    let mut backward = forward.clone();
    backward.reverse();
    for id in ids() {
        assert_eq!(by_key(&forward, &id), 4 - by_key(&backward, &id), "{id}");
    }
}

/// Replicas of different versions stand side by side during an update: these may never change. Computed by another
/// implementation.
#[test]
fn the_numbers_are_the_same_for_ever() {
    let seed = Seed::of("ws://10.10.1.1:8083/mqtt");
    assert_eq!(score(seed, 1, b"device-1"), 3.6453256417406834);
    let pool = pool(&[1, 1, 1, 1, 1, 1, 1]);
    let winners: Vec<usize> = (0..8).map(|id| by_key(&pool, &format!("d{id}"))).collect();
    assert_eq!(winners, [6, 6, 2, 3, 0, 3, 5, 0]);
}

/// Joins that many sessions, which all stay.
fn fill(rule: Rule<'_>, candidates: &mut [Candidate], sessions: usize, random: &mut Rng) {
    let mut turns = RoundRobin::new(candidates.iter().map(|candidate| candidate.weight));
    for _ in 0..sessions {
        let mut warm = candidates.to_vec();
        warm_up(&mut warm, random);
        let at = choose(rule, &warm, &mut turns, random).unwrap();
        candidates[at].sessions += 1;
    }
}

#[test]
fn least_sessions_fills_by_weight() {
    let mut pool = pool(&[1, 2, 5]);
    fill(Rule::LeastSessions, &mut pool, 800, &mut Rng::with_seed(7));
    let sessions: Vec<usize> = pool.iter().map(|broker| broker.sessions).collect();
    assert_eq!(sessions, [100, 200, 500]);
}

#[test]
fn random_of_two_fills_by_weight() {
    let mut pool = pool(&[1, 2, 5]);
    fill(Rule::RandomOfTwo, &mut pool, 8000, &mut Rng::with_seed(7));
    for (broker, expected) in pool.iter().zip([1000_usize, 2000, 5000]) {
        let off = broker.sessions.abs_diff(expected);
        assert!(off * 20 < expected, "{} of {expected}", broker.sessions);
    }
}

#[test]
fn equals_are_taken_by_chance() {
    let pool = pool(&[1, 1, 1]);
    let mut random = Rng::with_seed(3);
    let mut taken = [0; 3];
    for _ in 0..3000 {
        taken[least_sessions(&pool, &mut random).unwrap()] += 1;
    }
    assert!(
        taken.iter().all(|count| (900..1100).contains(count)),
        "{taken:?}"
    );
}

/// The share of new sessions of a broker that came back empty beside one that is full.
fn share_of_the_new_one(rule: Rule<'_>, warmth: f64) -> f64 {
    let mut pool = pool(&[1, 1]);
    pool[0].sessions = 1_000_000;
    pool[1].warmth = warmth;
    fill(rule, &mut pool, 20_000, &mut Rng::with_seed(11));
    pool[1].sessions as f64 / 20_000.0
}

#[test]
fn a_broker_that_came_back_takes_a_share_that_grows() {
    for tenth in 1..=10 {
        let warmth = f64::from(tenth) / 10.0;
        for (rule, whole) in [
            (Rule::RoundRobin, 0.5),
            (Rule::LeastSessions, 1.0),
            (Rule::RandomOfTwo, 1.0),
        ] {
            let share = share_of_the_new_one(rule, warmth);
            let off = (share - whole * warmth).abs();
            assert!(off < 0.02, "{rule:?} at {warmth}: {share}");
        }
    }
}

#[test]
fn the_only_one_is_taken_however_cold() {
    let mut pool = pool(&[1, 1]);
    pool[0].open = false;
    pool[1].warmth = 0.1;
    fill(Rule::LeastSessions, &mut pool, 10, &mut Rng::with_seed(1));
    assert_eq!(pool[1].sessions, 10);
}

proptest! {
    #[test]
    fn only_open_brokers_are_chosen_and_one_is_if_there_is_any(
        brokers in prop::collection::vec((any::<bool>(), 0..4_u32, 0..50_usize, 0.1..1.0_f64), 1..8),
        key in prop::collection::vec(any::<u8>(), 0..20),
        seed in any::<u64>(),
    ) {
        let mut random = Rng::with_seed(seed);
        let candidates: Vec<Candidate> = brokers
            .iter()
            .enumerate()
            .map(|(at, &(open, weight, sessions, warmth))| Candidate {
                open, weight, sessions, warmth, seed: Seed::of(&at.to_string()),
            })
            .collect();
        let mut turns = RoundRobin::new(candidates.iter().map(|candidate| candidate.weight));
        let any = candidates.iter().any(|candidate| candidate.open && candidate.weight > 0);
        for rule in [Rule::RoundRobin, Rule::LeastSessions, Rule::RandomOfTwo, Rule::Key(&key)] {
            let chosen = choose(rule, &candidates, &mut turns, &mut random);
            prop_assert_eq!(chosen.is_some(), any);
            if let Some(at) = chosen {
                prop_assert!(candidates[at].open && candidates[at].weight > 0);
            }
        }
    }
}
