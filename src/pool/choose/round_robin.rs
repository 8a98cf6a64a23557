//! Smooth weighted round robin. Pure.

/// Smooth weighted round robin, as nginx does it: each turn every broker gains its weight, the one that stands highest is
/// taken and pays the sum. 5:1:1 gives a a b a c a a and not a a a a a b c.
#[derive(Debug, Clone)]
pub struct RoundRobin {
    weights: Vec<i64>,
    standing: Vec<i64>,
}

impl RoundRobin {
    /// A weight of 0 is never taken.
    pub fn new(weights: impl IntoIterator<Item = u32>) -> Self {
        let weights: Vec<i64> = weights.into_iter().map(i64::from).collect();
        // Replicas and restarts that all began with the first broker would load it in step.
        let mut turns = Self {
            standing: vec![0; weights.len()],
            weights,
        };
        let sum: i64 = turns.weights.iter().sum();
        for _ in 0..fastrand::i64(0..sum.clamp(1, 1000)) {
            turns.next(|_| true);
        }
        turns
    }

    /// The index of the next one of those that `may` be taken. The others gain nothing in this turn.
    pub fn next(&mut self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let mut sum = 0;
        let mut best: Option<usize> = None;
        for (at, weight) in self.weights.iter().enumerate() {
            if *weight == 0 || !may(at) {
                continue;
            }
            sum += weight;
            self.standing[at] += weight;
            if best.is_none_or(|best| self.standing[at] > self.standing[best]) {
                best = Some(at);
            }
        }
        let best = best?;
        self.standing[best] -= sum;
        Some(best)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_round_gives_each_its_weight(weights in prop::collection::vec(0..20_u32, 1..8)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let mut turns = RoundRobin::new(weights.iter().copied());
            let round: u32 = weights.iter().sum();
            for _ in 0..3 {
                let mut taken = vec![0; weights.len()];
                for _ in 0..round {
                    taken[turns.next(|_| true).unwrap()] += 1;
                }
                prop_assert_eq!(&taken, &weights);
            }
        }
    }

    #[test]
    fn turns_are_spread_and_not_bunched() {
        let mut turns = RoundRobin {
            weights: vec![5, 1, 1],
            standing: vec![0; 3],
        };
        let order: Vec<_> = (0..7).filter_map(|_| turns.next(|_| true)).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn the_ones_that_were_tried_are_left_out() {
        let mut turns = RoundRobin::new([1, 1, 0]);
        let first = turns.next(|_| true).unwrap();
        assert_eq!(turns.next(|at| at != first), Some(1 - first));
        assert_eq!(turns.next(|at| at == 2), None);
    }
}
