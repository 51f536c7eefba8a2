//! Samples of a caller's batches, and which of them are held out.

use alloc::vec::Vec;

use ndarray::ArrayViewD;

use super::compile::FloatNetwork;
use crate::error::Result;

/// The inputs of one sample.
pub(crate) type Sample<'a> = Vec<ArrayViewD<'a, f32>>;

/// Splits batches, which have all inputs each, into samples.
pub(crate) fn split<'a>(network: &FloatNetwork, batches: &'a [Sample<'_>]) -> Result<Vec<Sample<'a>>> {
    let mut samples = Vec::new();
    for batch in batches {
        samples.extend(network.plan.split_batch(batch)?);
    }
    Ok(samples)
}

/// Returns the samples to choose by, and a quarter of them, at most `max`, to hold out. A single sample is both.
///
/// Which ones are held out depends on the number of samples only, without a period that the data may have too.
pub(crate) fn hold_out<'a>(samples: &[Sample<'a>], max: usize) -> (Vec<Sample<'a>>, Vec<Sample<'a>>) {
    if samples.len() < 2 {
        return (samples.to_vec(), samples.to_vec());
    }
    let hash = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut order: Vec<usize> = (0..samples.len()).collect();
    order.sort_by_key(|&i| hash(i));
    let (held_out, observed) = order.split_at(samples.len().div_ceil(4).min(max));
    let take = |indices: &[usize]| indices.iter().map(|&i| samples[i].clone()).collect();
    (take(observed), take(held_out))
}
