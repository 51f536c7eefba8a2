//! Samples of a caller's batches, and which of them are held out.

use alloc::vec::Vec;
use core::ops::{Range, RangeBounds};

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
        Ok(self.quality(network)?.sqnr_db(..))
    }

    pub(crate) fn quality(&self, network: &QuantizedNetwork) -> Result<Quality> {
        let mut arena = unlimited();
        let errors = self.samples.iter().zip(&self.expected).map(|(sample, expected)| {
            let mut sums = ErrorSums::default();
            add_errors(&mut sums, expected, &network.run_many(sample, &mut arena)?);
            Ok(sums)
        });
        Ok(Quality { by_sample: errors.collect::<Result<_>>()? })
    }
}

/// The errors of the outputs for each sample.
#[derive(Debug, Clone)]
pub(crate) struct Quality {
    by_sample: Vec<ErrorSums>,
}

impl Quality {
    /// SQNR over some samples, which the largest errors decide.
    pub(crate) fn sqnr_db(&self, samples: impl RangeBounds<usize>) -> f64 {
        let mut all = ErrorSums::default();
        self.errors(samples).for_each(|sums| all.merge(*sums));
        all.sqnr_db()
    }

    /// Returns whether SQNR over these samples is greater by `min_gain_db`, and the mean of the SQNR of each sample too,
    /// by twice its standard error.
    pub(crate) fn exceeds(&self, other: &Self, samples: Range<usize>, min_gain_db: f64) -> bool {
        /// The greatest SQNR of a sample. It is infinite without errors.
        const MAX_DB: f64 = 120.0;
        let pairs = self.errors(samples.clone()).zip(other.errors(samples.clone()));
        let gains: Vec<f64> = pairs.map(|(a, b)| a.sqnr_db().min(MAX_DB) - b.sqnr_db().min(MAX_DB)).collect();
        let n = gains.len() as f64;
        let mean = gains.iter().sum::<f64>() / n;
        let squares: f64 = gains.iter().map(|gain| (gain - mean) * (gain - mean)).sum();
        let standard_error = num_traits::Float::sqrt(squares / (n * (n - 1.0).max(1.0)));
        // NaN, of outputs that are all zero, is no gain.
        self.sqnr_db(samples.clone()) > other.sqnr_db(samples) + min_gain_db && mean > 2.0 * standard_error
    }

    fn errors(&self, samples: impl RangeBounds<usize>) -> impl Iterator<Item = &ErrorSums> {
        let (from, to) = (samples.start_bound().cloned(), samples.end_bound().cloned());
        self.by_sample.get((from, to)).unwrap_or_default().iter()
    }
}

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
