//! Tensors of random values, the same at every run.

use std::ops::RangeBounds;

use ndarray::{Array, ShapeBuilder};
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Independent values, uniform in this range.
pub(crate) fn uniform<T, S, R>(shape: S, range: R) -> Array<T, S::Dim>
where
    T: SampleUniform,
    S: ShapeBuilder,
    R: SampleRange<T> + RangeBounds<T> + Clone,
{
    let mut rng = Pcg64Mcg::seed_from_u64(8);
    Array::from_shape_simple_fn(shape, || rng.random_range(range.clone()))
}
