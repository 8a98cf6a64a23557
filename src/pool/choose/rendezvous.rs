//! Weighted rendezvous hashing: each broker draws a number for a key, the highest wins. Whoever has the same brokers and
//! weights gives the same answer: replicas, restarts, other builds; the order in the file means nothing.
//!
//! The hash is SipHash-1-3 with keys that stand here, and never `std`'s hasher, which may change with the compiler. A
//! broker's score for a key is `-weight / ln(u)`, with `u` the upper 53 bits of the hash as a number between 0 and 1: so
//! each wins in proportion to its weight, and a broker that comes or goes moves only the keys that it wins or won
//! (Schindelhauer and Schomaker, Weighted Distributed Hash Tables, 2005).
//!
//! INVARIANT: a change here sends nearly every client to another broker.

use siphasher::sip::SipHasher13;

use super::{Candidate, open};

/// `tidegate` and `brokers1` as bytes.
const KEYS: (u64, u64) = (0x7469_6465_6761_7465, 0x6272_6f6b_6572_7331);

/// What makes a broker's numbers its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// Of the URL, as the configuration has it.
    pub fn of(url: &str) -> Self {
        Self(SipHasher13::new_with_keys(KEYS.0, KEYS.1).hash(url.as_bytes()))
    }
}

/// A broker's number for a key. A weight of 0 never wins.
pub(super) fn score(seed: Seed, weight: u32, key: &[u8]) -> f64 {
    let hash = SipHasher13::new_with_keys(seed.0, KEYS.1).hash(key);
    // 53 bits are what an f64 holds; the half keeps it off 0 and 1, where the logarithm ends.
    let unit = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight) / unit.ln()
}

/// The open one that wins the key.
pub(super) fn highest(candidates: &[Candidate], key: &[u8]) -> Option<usize> {
    open(candidates)
        .map(|(at, candidate)| (at, score(candidate.seed, candidate.weight, key)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(at, _)| at)
}
