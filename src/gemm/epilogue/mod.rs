//! Epilogues: they turn accumulators into outputs, in registers where the micro-kernel allows it, otherwise from L1.

use alloc::vec::Vec;

use crate::element::sealed::Sealed;
use crate::error::{Result, check_count};
use crate::simd::OutputStage;

mod accumulators;
mod dequantize;
mod requantize;
mod tile_out;

pub(crate) use accumulators::{StoredAccumulators, TileProduct};
pub use dequantize::DequantizeEpilogue;
pub use requantize::RequantizeEpilogue;
use sealed::Finish;
pub(crate) use tile_out::TileOut;

/// Computes the outputs of a product from its accumulators. Sealed.
///
/// The epilogues are [`I32Epilogue`], [`DequantizeEpilogue`] and [`RequantizeEpilogue`].
pub trait Epilogue: Finish<<Self as Epilogue>::Out> + Sealed + Sync {
    /// The type of the outputs.
    type Out: Copy + Default + Send + Sync + 'static;
}

pub(crate) mod sealed {
    use super::accumulators::Accumulators;
    use super::tile_out::TileOut;
    use crate::affine::RequantizeFloat;
    use crate::error::Result;
    use crate::simd::ByteStage;

    /// The parts of an epilogue that the driver calls.
    pub trait Finish<Out> {
        /// Returns the bias that accumulators start from: one per column, in units of the accumulator.
        fn bias(&self) -> Option<&[i32]>;

        /// Returns an error if the epilogue was made for another shape than `[rows, cols]`.
        fn check(&self, rows: usize, cols: usize) -> Result<()>;

        /// Returns the requantization to bytes if the epilogue is one that micro-kernels can do in registers.
        #[inline(always)]
        fn byte_stage(&self) -> Option<ByteStage<'_, RequantizeFloat>> {
            None
        }

        /// Computes the outputs of a tile from its accumulators.
        fn finish(&self, acc: impl Accumulators, out: TileOut<'_, Out>);
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

/// Stores accumulators unchanged.
struct StoreI32<'a>(TileOut<'a, i32>);

impl OutputStage for StoreI32<'_> {
    /// Index of the first column.
    type ColumnParams<const COLS: usize> = usize;

    #[inline(always)]
    fn width(&self) -> usize {
        self.0.width
    }

    #[inline(always)]
    fn column_params<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> usize {
        col
    }

    #[inline(always)]
    fn in_place(&mut self, row: usize) -> Option<(&mut [i32], usize)> {
        Some((&mut self.0.out[row * self.0.stride..], self.0.stride))
    }

    #[inline(always)]
    fn store_row<const COLS: usize, const WHOLE: bool>(&mut self, i: usize, col: usize, acc: [i32; COLS]) {
        self.0.store::<COLS, WHOLE>(i, col, acc);
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

    #[inline(always)]
    fn finish(&self, acc: impl accumulators::Accumulators, out: TileOut<'_, i32>) {
        acc.store_to(StoreI32(out));
    }
}
