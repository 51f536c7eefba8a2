//! What becomes of accumulators: outputs, while they are in registers, or at least in the cache.

use alloc::vec::Vec;

use crate::affine::RequantizeFloat;
use crate::arch::{Columns, Kernel, Rows, Sink, ToBytes};
use crate::element::sealed::Sealed;
use crate::error::{Error, Result};

mod dequantize;
mod outputs;
mod requantize;

pub use dequantize::Dequantize;
use outputs::map_lanes;
pub(crate) use outputs::{TileOut, TileRows};
pub use requantize::RequantizeTo;

/// What is done with each accumulator of a product. Sealed; see [`Accumulator`], [`Dequantize`], [`RequantizeTo`].
pub trait Epilogue: Sealed + Sync {
    /// The type of the outputs.
    type Out: Copy + Default + Send + Sync + 'static;

    /// The bias that accumulators start from, one per column, in units of the accumulator.
    #[doc(hidden)]
    fn bias(&self) -> Option<&[i32]>;

    /// Refuses a product of another shape than the epilogue was made for.
    #[doc(hidden)]
    fn check(&self, rows: usize, cols: usize) -> Result<()>;

    /// Multiplies some rows and makes outputs of their sums without a way round through memory. Returns whether it did: if
    /// not, nothing was written.
    #[doc(hidden)]
    #[inline(always)]
    #[allow(private_bounds, reason = "the trait is sealed")]
    fn multiply<K: Kernel>(
        &self,
        _kernel: K,
        _rows: usize,
        _a: Rows<'_>,
        _b: Columns<'_>,
        _out: TileOut<'_, Self::Out>,
    ) -> bool {
        false
    }

    /// Where outputs are bytes that a formula makes of each accumulator: this formula.
    #[doc(hidden)]
    #[inline(always)]
    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn to_bytes(&self) -> Option<ToBytes<'_, RequantizeFloat>> {
        None
    }

    /// The outputs of one row of a tile, which starts at this row and column of the product.
    #[doc(hidden)]
    fn store(&self, row: usize, col: usize, acc: &[i32], out: &mut [Self::Out]);

    /// The outputs of several rows of a tile, which starts at this row and column of the product.
    #[doc(hidden)]
    #[inline(always)]
    fn store_rows(&self, row: usize, col: usize, tile: TileRows<'_, Self::Out>) {
        let TileRows { rows, width, acc, acc_stride, out, out_stride } = tile;
        for i in 0..rows {
            self.store(row + i, col, &acc[i * acc_stride..][..width], &mut out[i * out_stride..][..width]);
        }
    }
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
pub struct Accumulator {
    bias: Option<Vec<i32>>,
}

impl Accumulator {
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
    fn row<const COLS: usize, const WHOLE: bool>(&mut self, i: usize, col: usize, sums: [i32; COLS]) {
        self.0.put::<COLS, WHOLE>(i, col, sums);
    }
}

impl Sealed for Accumulator {}
impl Epilogue for Accumulator {
    type Out = i32;

    fn bias(&self) -> Option<&[i32]> {
        self.bias.as_deref()
    }

    fn check(&self, _: usize, cols: usize) -> Result<()> {
        check_bias(self.bias(), cols)
    }

    #[inline(always)]
    #[allow(private_bounds, reason = "the trait is sealed")]
    fn multiply<K: Kernel>(&self, kernel: K, rows: usize, a: Rows<'_>, b: Columns<'_>, out: TileOut<'_, i32>) -> bool {
        let TileOut { at, width, out, stride } = out;
        if kernel.multiply_to(rows, a, b, Copying(TileOut { at, width, out: &mut *out, stride })) {
            return true;
        }
        if width < b.start.len() {
            return false;
        }
        for i in (0..rows).step_by(K::MR) {
            kernel.multiply(K::MR.min(rows - i), a.from(i), b, &mut out[i * stride..], stride);
        }
        true
    }

    #[inline(always)]
    fn store(&self, _: usize, _: usize, acc: &[i32], out: &mut [i32]) {
        map_lanes(acc, out, |acc| acc);
    }
}
