//! Epilogues: what a product does with its accumulators. Each becomes an output stage of `simd`, which works on
//! registers.

use alloc::vec::Vec;

use ndarray::ArrayViewMut2;

use crate::element::sealed::Sealed;
use crate::error::{Result, check_count};
use crate::simd::StoreI32;

mod dequantize;
mod requantize;
mod rows;

pub use dequantize::DequantizeEpilogue;
pub use requantize::RequantizeEpilogue;
use sealed::Finish;
pub(crate) use sealed::Job;

/// Computes the outputs of a product from its accumulators. Sealed.
///
/// The epilogues are [`I32Epilogue`], [`DequantizeEpilogue`] and [`RequantizeEpilogue`].
pub trait Epilogue: Finish<<Self as Epilogue>::Out> + Sealed + Sync {
    /// The type of the outputs.
    type Out: Copy + Default + Send + Sync + 'static;
}

pub(crate) mod sealed {
    use ndarray::ArrayViewMut2;

    use crate::error::Result;
    use crate::simd::Stage;

    /// Sums that are stored by an output stage: a product, or a depthwise convolution.
    pub trait Job {
        fn run<S: Stage>(self, stage: S, out: ArrayViewMut2<'_, S::Out>);
    }

    /// The parts of an epilogue that products use.
    pub trait Finish<Out> {
        /// Returns the bias that accumulators start from: one per column, in units of the accumulator.
        fn bias(&self) -> Option<&[i32]>;

        /// Returns an error if the epilogue was made for another shape than `[rows, cols]`.
        fn check(&self, rows: usize, cols: usize) -> Result<()>;

        /// Runs a job with the output stage of this epilogue.
        fn run(&self, job: impl Job, out: ArrayViewMut2<'_, Out>);
    }
}

/// Returns an error unless there is one value, or one for each of `len`.
fn check_len(what: &'static str, len: usize, found: usize) -> Result<()> {
    if found == 1 { Ok(()) } else { check_count(what, len, found) }
}

fn check_bias<T>(bias: Option<&[T]>, cols: usize) -> Result<()> {
    bias.map_or(Ok(()), |bias| check_count("length of the bias", cols, bias.len()))
}

/// Stores the accumulators: `acc + bias`, as `i32`.
#[derive(Debug, Clone, Default)]
pub struct I32Epilogue {
    bias: Option<Vec<i32>>,
}

impl I32Epilogue {
    /// An epilogue without a bias.
    pub fn new() -> Self {
        Self::default()
    }

    /// An epilogue with one bias per column.
    pub fn with_bias(bias: &[i32]) -> Self {
        Self { bias: Some(bias.to_vec()) }
    }
}

impl Sealed for I32Epilogue {}
impl Epilogue for I32Epilogue {
    type Out = i32;
}
impl Finish<i32> for I32Epilogue {
    fn bias(&self) -> Option<&[i32]> {
        self.bias.as_deref()
    }

    fn check(&self, _: usize, cols: usize) -> Result<()> {
        check_bias(self.bias(), cols)
    }

    fn run(&self, job: impl Job, out: ArrayViewMut2<'_, i32>) {
        job.run(StoreI32, out);
    }
}
