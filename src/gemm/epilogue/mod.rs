//! What becomes of accumulators: outputs, while they are in registers, or at least in the cache.

use alloc::vec::Vec;

use crate::affine::RequantizeFloat;
use crate::arch::{Sink, ToBytes};
use crate::element::sealed::Sealed;
use crate::error::{Error, Result};

mod dequantize;
mod outputs;
mod requantize;
mod sums;

pub use dequantize::DequantizeEpilogue;
pub(crate) use outputs::TileOut;
pub use requantize::RequantizeEpilogue;
pub(crate) use sums::{Products, Stored, Sums};

/// What is done with each accumulator of a product. Sealed; see [`I32Epilogue`], [`DequantizeEpilogue`], [`RequantizeEpilogue`].
pub trait Epilogue: Sealed + Sync {
    /// The type of the outputs.
    type Out: Copy + Default + Send + Sync + 'static;

    /// The bias that accumulators start from, one per column, in units of the accumulator.
    #[doc(hidden)]
    fn bias(&self) -> Option<&[i32]>;

    /// Refuses a product of another shape than the epilogue was made for.
    #[doc(hidden)]
    fn check(&self, rows: usize, cols: usize) -> Result<()>;

    /// Where outputs are bytes that a formula makes of each accumulator: this formula.
    #[doc(hidden)]
    #[inline(always)]
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn to_bytes(&self) -> Option<ToBytes<'_, RequantizeFloat>> {
        None
    }

    /// Makes the outputs of a tile of its sums.
    #[doc(hidden)]
    #[allow(private_bounds, private_interfaces, reason = "the trait is sealed")]
    fn finish(&self, sums: impl Sums, out: TileOut<'_, Self::Out>);
}

/// Refuses what there is neither one of nor one for each of `len`.
fn check_len(what: &'static str, len: usize, found: usize) -> Result<()> {
    if found == 1 || found == len { Ok(()) } else { Err(Error::shape(what, &[len], &[found])) }
}

fn check_bias<T>(bias: Option<&[T]>, cols: usize) -> Result<()> {
    match bias {
        Some(bias) if bias.len() != cols => Err(Error::shape("bias", &[cols], &[bias.len()])),
        _ => Ok(()),
    }
}

/// The accumulators themselves: `acc + bias`, as `i32`.
#[derive(Debug, Clone, Default)]
pub struct I32Epilogue {
    bias: Option<Vec<i32>>,
}

impl I32Epilogue {
    /// Without a bias.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a bias, one per column.
    pub fn with_bias(bias: &[i32]) -> Self {
        Self { bias: Some(bias.to_vec()) }
    }
}

/// Writes sums where they belong.
struct Copying<'a>(TileOut<'a, i32>);

impl Sink for Copying<'_> {
    /// Which they are.
    type Columns<const COLS: usize> = usize;

    #[inline(always)]
    fn width(&self) -> usize {
        self.0.width
    }

    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> usize {
        col
    }

    #[inline(always)]
    fn in_place(&mut self, row: usize) -> Option<(&mut [i32], usize)> {
        Some((&mut self.0.out[row * self.0.stride..], self.0.stride))
    }

    #[inline(always)]
    fn row<const COLS: usize, const WHOLE: bool>(&mut self, i: usize, col: usize, sums: [i32; COLS]) {
        self.0.put::<COLS, WHOLE>(i, col, sums);
    }
}

impl Sealed for I32Epilogue {}
impl Epilogue for I32Epilogue {
    type Out = i32;

    fn bias(&self) -> Option<&[i32]> {
        self.bias.as_deref()
    }

    fn check(&self, _: usize, cols: usize) -> Result<()> {
        check_bias(self.bias(), cols)
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "the trait is sealed")]
    fn finish(&self, sums: impl Sums, out: TileOut<'_, i32>) {
        sums.to(Copying(out));
    }
}
