//! The place of each tensor in the arena.

use alloc::vec::Vec;

/// A tensor that is in the arena from one step to another one, both included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lifetime {
    pub(super) len: usize,
    pub(super) first: usize,
    pub(super) last: usize,
}

/// Returns an offset for each tensor, so that tensors that live at the same step share no bytes: the largest tensor is
/// placed first, each at the lowest offset that is free (TFLite Micro: `GreedyMemoryPlanner`).
pub(super) fn offsets(tensors: &[Lifetime]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&t| (core::cmp::Reverse(tensors[t].len), tensors[t].first));
    let mut offsets = alloc::vec![0; tensors.len()];
    for (i, &t) in order.iter().enumerate() {
        let Lifetime { len, first, last } = tensors[t];
        let meets = |&&other: &&usize| tensors[other].first <= last && first <= tensors[other].last;
        let mut taken: Vec<_> =
            order[..i].iter().filter(meets).map(|&t| (offsets[t], offsets[t] + tensors[t].len)).collect();
        taken.sort_unstable();
        let mut at = 0;
        for (start, end) in taken {
            if at + len <= start {
                break;
            }
            at = at.max(end);
        }
        offsets[t] = at;
    }
    offsets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tensors_that_meet_share_no_bytes(
            tensors in prop::collection::vec((1usize..50, 0usize..8, 0usize..4), 0..12),
        ) {
            let tensors: Vec<_> =
                tensors.into_iter().map(|(len, first, steps)| Lifetime { len, first, last: first + steps }).collect();
            let offsets = offsets(&tensors);
            for (i, (a, at)) in tensors.iter().zip(&offsets).enumerate() {
                for (b, b_at) in tensors[..i].iter().zip(&offsets) {
                    let meet = a.first <= b.last && b.first <= a.last;
                    prop_assert!(!meet || at + a.len <= *b_at || b_at + b.len <= *at);
                }
            }
        }
    }

    #[test]
    fn a_chain_takes_its_largest_pair() {
        let chain = [(10, 0, 1), (6, 1, 2), (8, 2, 3)].map(|(len, first, last)| Lifetime { len, first, last });
        let offsets = offsets(&chain);
        assert_eq!(chain.iter().zip(offsets).map(|(t, at)| at + t.len).max(), Some(16));
    }
}
