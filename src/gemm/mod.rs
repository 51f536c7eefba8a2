//! Exact integer matrix products: `out = epilogue((a - a_zero) · (b - b_zero) + bias)`.
//!
//! ```text
//! operand → pack (canonical signs, sums) → kernel (i32 tiles) → epilogue (per tile row) → out
//! ```
//!
//! The right side is packed once ([`PackedRhs`]) and remembers the kernel it was packed for. The left side is read in
//! place, or block by block through a copy where its rows are not contiguous or not codes yet; [`PackedLhs`] is such a copy
//! that is made once. Zero points enter through row and column
//! sums as the initial value of the accumulators, and the [`Epilogue`] turns each finished row of a tile into outputs
//! while it is in the cache. An accumulator is the naive `i32` sum for every input: a depth at which it could overflow is
//! refused.
//!
//! ```
//! use ndarray::array;
//! use ndarray_quant::gemm::{DequantizeEpilogue, I32Epilogue, PackedRhs, gemm};
//!
//! let a = array![[1u8, 2, 3]];
//! let b = PackedRhs::pack(&array![[1i8, 4], [2, 5], [3, 6]], &[0])?;
//! assert_eq!(gemm(&a, 1, &b, &I32Epilogue::new())?, array![[8, 17]]); // (a - 1) · b
//!
//! let real = DequantizeEpilogue::new(&[0.5], &[0.1, 0.2], None)?;
//! assert_eq!(gemm(&a, 1, &b, &real)?, array![[0.4, 1.7]]);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

mod aligned;
mod driver;
mod epilogue;
mod im2col;
mod lhs;
mod pack;
mod packed_lhs;
mod reals;
mod rhs;
#[cfg(test)]
mod tests;
mod transpose;
mod workspace;

use ndarray::{Array2, ArrayRef2};

use crate::element::{Code, Element};
use crate::error::{Error, Result};
pub(crate) use driver::run;
pub use epilogue::{DequantizeEpilogue, Epilogue, I32Epilogue, RequantizeEpilogue};
pub(crate) use epilogue::{Stored, TileOut};
pub(crate) use lhs::Lhs;

pub(crate) use im2col::Im2col;
pub use packed_lhs::{Left, PackedLhs};
pub(crate) use reals::Reals;
pub use rhs::PackedRhs;
pub(crate) use transpose::transpose;
pub use workspace::Workspace;

/// The instruction set in use: the best that this machine has, unless `NDARRAY_QUANT_ISA` names a lower one.
///
/// One of `portable`, `avx2`, `avxvnni`, `avx512vnni`, `amx`. The variable is read once; results are the same on all of them.
pub fn kernel_name() -> &'static str {
    crate::arch::Isa::current().name()
}

/// Runs the multiplier of the kernel in use as fast as it goes, with nothing to wait for, and returns how many products
/// of codes these are: the bound of every product, for benchmarks to measure and compare with.
#[doc(hidden)]
pub fn peak(rounds: usize) -> u64 {
    crate::arch::peak(rounds)
}

/// An operand of an 8-bit product: `i8` or `u8`. Sealed.
pub trait Int8: Element<Code = Self> + Code {
    /// What is added to a code to make it unsigned, as kernels take their left side: 128 for `i8`.
    #[doc(hidden)]
    const TO_UNSIGNED: i32;

    /// The bits of codes.
    #[doc(hidden)]
    fn as_bytes(codes: &[Self]) -> &[u8];

    /// The greatest distance of a code from this zero point.
    #[doc(hidden)]
    fn max_abs_diff(zero_point: Self) -> i64 {
        let zero_point = zero_point.to_i32();
        (zero_point - Self::MIN).max(Self::MAX - zero_point) as i64
    }
}

impl Int8 for u8 {
    const TO_UNSIGNED: i32 = 0;

    fn as_bytes(codes: &[u8]) -> &[u8] {
        codes
    }
}
impl Int8 for i8 {
    const TO_UNSIGNED: i32 = 128;

    fn as_bytes(codes: &[i8]) -> &[u8] {
        crate::arch::bytes_of(codes)
    }
}

/// `epilogue((a - a_zero) · (b - b_zero) + bias)` for `a` of shape `[m, k]` and `b` of shape `[k, n]`.
///
/// `a` is a reference to a matrix of any strides or to a [`PackedLhs`]. The result is the same, bit for bit, on every
/// instruction set and thread count.
///
/// # Errors
/// [`Error::Shape`] if the inner lengths differ or the epilogue has not as many channels as the product,
/// [`Error::Depth`] if an accumulator could overflow, [`Error::Bias`] if it could with the bias on it, [`Error::Kernel`] if
/// both sides are packed and not for the same kernel.
pub fn gemm<'a, A: Int8, B: Int8, E: Epilogue>(
    a: impl Into<Left<'a, A>>,
    a_zero_point: A,
    b: &PackedRhs<B>,
    epilogue: &E,
) -> Result<Array2<E::Out>> {
    let a = a.into();
    let mut out = Array2::from_elem((a.0.nrows(), b.ncols()), E::Out::default());
    gemm_into(a, a_zero_point, b, epilogue, &mut out, &mut Workspace::new())?;
    Ok(out)
}

/// [`gemm`] into memory that exists, of any strides. Allocates nothing once `workspace` has grown to the problem, unless
/// the work is split over threads: each of them has a workspace of its own.
///
/// # Errors
/// Those of [`gemm`], and [`Error::Shape`] if `out` is not of shape `[m, n]`. Then nothing was written.
pub fn gemm_into<'a, A: Int8, B: Int8, E: Epilogue>(
    a: impl Into<Left<'a, A>>,
    a_zero_point: A,
    b: &PackedRhs<B>,
    epilogue: &E,
    out: &mut ArrayRef2<E::Out>,
    workspace: &mut Workspace,
) -> Result<()> {
    let Left(a) = a.into();
    let [m, k] = [a.nrows(), a.depth()];
    if k != b.nrows() {
        return Err(Error::shape("left side of the product", &[m, b.nrows()], &[m, k]));
    }
    if out.dim() != (m, b.ncols()) {
        return Err(Error::shape("product", &[m, b.ncols()], out.shape()));
    }
    if let Lhs::Packed(a) = a {
        a.check(b.panels().isa)?;
    }
    epilogue.check(m, b.ncols())?;
    check_depth(A::max_abs_diff(a_zero_point), b.max_abs_diff(), k, epilogue.bias())?;
    run(a, a_zero_point, b, epilogue, 0, out.view_mut(), workspace);
    Ok(())
}

/// Refuses a depth at which the sum of so many codes could leave `i32`.
fn check_sums(depth: usize) -> Result<()> {
    let max = i32::MAX as usize / 256;
    if depth > max { Err(Error::Depth { max, found: depth }) } else { Ok(()) }
}

/// Refuses what could overflow: `depth * max|a - a_zero| * max|b - b_zero| + |bias|` beyond `i32::MAX`.
pub(crate) fn check_depth(a_reach: i64, b_reach: i64, depth: usize, bias: Option<&[i32]>) -> Result<()> {
    let per_step = a_reach * b_reach;
    let max = (i32::MAX as i64 / per_step) as usize;
    if depth > max {
        return Err(Error::Depth { max, found: depth });
    }
    let left = i32::MAX as i64 - per_step * depth as i64;
    let too_large = |bias: i32| (bias as i64).abs() > left;
    match bias.and_then(|bias| bias.iter().enumerate().find(|(_, b)| too_large(**b))) {
        Some((channel, &found)) => Err(Error::Bias { max: left, found: found as f64, channel }),
        None => Ok(()),
    }
}
