//! Which broker a new session goes to. Pure: what it rests on is passed in, chance too.

mod rendezvous;
mod round_robin;
#[cfg(test)]
mod tests;

pub use rendezvous::Seed;
pub use round_robin::RoundRobin;

use fastrand::Rng;

/// A broker as the choice sees it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// May be taken now.
    pub open: bool,
    pub weight: u32,
    /// That this gateway has there, those on their way included.
    pub sessions: usize,
    /// The part of the choices that it takes part in: below 1 after a recovery.
    pub warmth: f64,
    pub seed: Seed,
}

/// How to choose for one session.
#[derive(Debug, Clone, Copy)]
pub enum Rule<'a> {
    RoundRobin,
    LeastSessions,
    RandomOfTwo,
    /// Whoever has the same key goes to the same broker.
    Key(&'a [u8]),
}

impl Rule<'_> {
    /// True when a session had rather wait for its broker than go to another.
    pub fn is_sticky(self) -> bool {
        matches!(self, Self::Key(_))
    }
}

/// Leaves brokers that have just come back out of most choices, so that their share grows: an empty broker would
/// otherwise get every new session of the least-sessions rules. Leaves all in where none would be left.
pub fn warm_up(candidates: &mut [Candidate], random: &mut Rng) {
    let stays: Vec<bool> = candidates
        .iter()
        .map(|candidate| {
            candidate.open && (candidate.warmth >= 1.0 || random.f64() < candidate.warmth)
        })
        .collect();
    if stays.contains(&true) {
        for (candidate, stays) in candidates.iter_mut().zip(stays) {
            candidate.open = stays;
        }
    }
}

/// One of the open ones. Asked again without it, the next in the order of the rule.
pub fn choose(
    rule: Rule<'_>,
    candidates: &[Candidate],
    turns: &mut RoundRobin,
    random: &mut Rng,
) -> Option<usize> {
    match rule {
        Rule::RoundRobin => turns.next(|at| candidates[at].open),
        Rule::LeastSessions => least_sessions(candidates, random),
        Rule::RandomOfTwo => random_of_two(candidates, random),
        Rule::Key(key) => rendezvous::highest(candidates, key),
    }
}

fn open(candidates: &[Candidate]) -> impl Iterator<Item = (usize, &Candidate)> {
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.open && candidate.weight > 0)
}

/// True when `a` has less to do for its weight, the session to come included: so an idle pool fills by weight.
fn is_less_loaded(a: &Candidate, b: &Candidate) -> bool {
    load(a) * u128::from(b.weight) < load(b) * u128::from(a.weight)
}

fn load(candidate: &Candidate) -> u128 {
    candidate.sessions as u128 + 1
}

/// Among equals by chance: replicas that all began with the first would load it in step.
fn least_sessions(candidates: &[Candidate], random: &mut Rng) -> Option<usize> {
    let mut best: Option<(usize, &Candidate)> = None;
    let mut equals = 1_usize;
    for (at, candidate) in open(candidates) {
        match best {
            Some((_, least)) if is_less_loaded(least, candidate) => {}
            Some((_, least)) if !is_less_loaded(candidate, least) => {
                equals += 1;
                if random.usize(0..equals) == 0 {
                    best = Some((at, candidate));
                }
            }
            Some(_) | None => {
                equals = 1;
                best = Some((at, candidate));
            }
        }
    }
    best.map(|(at, _)| at)
}

fn random_of_two(candidates: &[Candidate], random: &mut Rng) -> Option<usize> {
    let first = draw(candidates, None, random)?;
    let Some(second) = draw(candidates, Some(first), random) else {
        return Some(first);
    };
    match is_less_loaded(&candidates[second], &candidates[first]) {
        true => Some(second),
        false => Some(first),
    }
}

/// By weight, of all but `without`.
fn draw(candidates: &[Candidate], without: Option<usize>, random: &mut Rng) -> Option<usize> {
    let others = || open(candidates).filter(|(at, _)| Some(*at) != without);
    let sum: u64 = others()
        .map(|(_, candidate)| u64::from(candidate.weight))
        .sum();
    let mut ticket = (sum > 0).then(|| random.u64(0..sum))?;
    for (at, candidate) in others() {
        match ticket.checked_sub(u64::from(candidate.weight)) {
            Some(rest) => ticket = rest,
            None => return Some(at),
        }
    }
    None
}
