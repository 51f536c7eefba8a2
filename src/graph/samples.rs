//! Samples of a caller's batches, and which of them are held out.

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayViewD};

use super::compile::FloatNetwork;
use super::plan::Arena;
use super::qnetwork::QuantizedNetwork;
use crate::error::Result;
use crate::metrics::ErrorSums;

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
/// The choice depends on the number of samples only, without a period that the data may have too.
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

/// Samples with their exact outputs.
pub(crate) struct Judge<'s> {
    pub(crate) samples: Vec<Sample<'s>>,
    pub(crate) expected: Vec<Vec<ArrayD<f32>>>,
}

impl<'s> Judge<'s> {
    pub(crate) fn new(float: &FloatNetwork, samples: &[Sample<'s>]) -> Result<Self> {
        let mut arena = unlimited();
        let expected = samples.iter().map(|sample| float.run_many(sample, &mut arena));
        Ok(Self { expected: expected.collect::<Result<_>>()?, samples: samples.to_vec() })
    }

    /// SQNR of all outputs, in decibels.
    pub(crate) fn sqnr_db(&self, network: &QuantizedNetwork) -> Result<f64> {
        Ok(self.quality(network)?.sqnr_db)
    }

    pub(crate) fn quality(&self, network: &QuantizedNetwork) -> Result<Quality> {
        let (mut all, mut mean, mut arena) = (ErrorSums::default(), 0.0, unlimited());
        for (sample, expected) in self.samples.iter().zip(&self.expected) {
            let mut sums = ErrorSums::default();
            add_errors(&mut sums, expected, &network.run_many(sample, &mut arena)?);
            all.merge(sums);
            mean += sums.sqnr_db().min(MAX_DB) / self.samples.len() as f64;
        }
        Ok(Quality { sqnr_db: all.sqnr_db(), mean_db: mean })
    }
}

/// The quality of outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quality {
    /// SQNR over all samples, which the largest errors decide.
    pub(crate) sqnr_db: f64,
    /// The mean of the SQNR of each sample.
    pub(crate) mean_db: f64,
}

/// The greatest SQNR of a sample in the mean. It is infinite without errors.
const MAX_DB: f64 = 120.0;

/// An arena without a limit.
pub(crate) fn unlimited() -> Arena {
    Arena::new().with_max_bytes(usize::MAX)
}

/// Adds the errors of all outputs.
pub(crate) fn add_errors(sums: &mut ErrorSums, expected: &[ArrayD<f32>], found: &[ArrayD<f32>]) {
    for (expected, found) in expected.iter().zip(found) {
        match (expected.as_slice(), found.as_slice()) {
            (Some(expected), Some(found)) => sums.add_f32(expected, found),
            _ => sums.add(expected.iter().map(|&x| x.into()), found.iter().map(|&y| y.into())),
        }
    }
}
