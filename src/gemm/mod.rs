//! Exact integer matrix products: `out = epilogue((a - a_zero) · (b - b_zero) + bias)`.
//!
//! ```text
//! A (LHS)  → read in place, or im2col / quantize / copy a block of MC rows ┐
//! B (RHS)  → pack once into panels of NR columns                           ┴→ tiles (MR × NR) → epilogue → out
//! ```
//!
//! Names and blocking follow BLIS: A of shape `[m, k]` is the left-hand side (LHS), B of shape `[k, n]` the
//! right-hand side (RHS). An accumulator is the exact `i32` sum for every input; a product whose depth `k` could
//! overflow returns [`Error::Value`]. Zero points enter as compensation through row and column sums. The
//! [`Epilogue`] turns accumulators into outputs while they are in registers or in L1.
//!
//! # Which operand belongs where
//!
//! **Put the large fixed matrix on the RHS.** [`PackedRhs`] packs it once into the layout of the micro-kernel, with its
//! column sums. For a weight matrix or a table of embeddings that is stored row by row, as `[n, k]`, use
//! [`PackedRhs::from_rows`]. One query against 50,000 × 384 embeddings takes 0.98 ms with the embeddings as RHS and
//! 4.7 ms with them as LHS.
//!
//! **The LHS is the operand that changes**: activations, queries. Pass a reference to the matrix; most are read in
//! place. [`PackedLhs`] pays off only for an LHS that meets many RHS and is signed, not contiguous, or multiplied by
//! RHS with zero points. Otherwise the matrix itself is as fast or faster, and one product costs less than packing plus
//! the product.
//!
//! A skinny product, such as a matrix–vector product (GEMV), reads the RHS once and is bound by memory.
//!
//! # Instruction sets
//!
//! A packed operand remembers the instruction set that it was packed for: the best of the machine, capped by
//! `NDARRAY_QUANT_ISA`. Sets above the cap are not even detected. Results are the same bits on all of them.
//!
//! AMX needs tiles, which Linux grants per process on request (`arch_prctl(ARCH_REQ_XCOMP_PERM)`). Tiles enlarge signal
//! frames, so from then on `sigaltstack` fails for small stacks, and a strict seccomp filter may kill the process. The
//! crate therefore requests them only when it packs the first operand that AMX would multiply: depth 128 or more, on a
//! machine with AMX. Nothing else does: neither detection nor quantization nor elementwise operators, which run on
//! AVX-512. If the request is denied, products run on AVX512-VNNI. Set `NDARRAY_QUANT_ISA=avx512vnni` to rule AMX out.
//! AVX512-VNNI also multiplies shallower products and products of at most 8 rows or fewer than 1024 outputs.
//!
//! # Example
//!
//! ```
//! use ndarray::array;
//! use ndarray_quant::gemm::{DequantizeEpilogue, I32Epilogue, PackedRhs, gemm};
//!
//! let a = array![[1u8, 2, 3]];
//! let b = PackedRhs::pack(&array![[1i8, 4], [2, 5], [3, 6]], &[0])?;
//! assert_eq!(gemm(&a, 1, &b, &I32Epilogue::new())?, array![[8, 17]]); // (a - 1) · b
//!
//! let dequantize = DequantizeEpilogue::new(&[0.5], &[0.1, 0.2], None)?;
//! assert_eq!(gemm(&a, 1, &b, &dequantize)?, array![[0.4, 1.7]]);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

mod aligned;
mod driver;
mod epilogue;
mod int8;
mod lhs;
mod pack;
mod packed_lhs;
mod rhs;
#[cfg(test)]
mod tests;
mod transpose;
mod workspace;

use ndarray::{Array2, ArrayRef2};

use crate::error::{Error, Result, ValueError};
pub(crate) use aligned::{Aligned, AlignedBytes, LINE};
pub(crate) use driver::Product;
pub use epilogue::{DequantizeEpilogue, Epilogue, I32Epilogue, RequantizeEpilogue};
pub(crate) use epilogue::{Job, sealed::Finish};
pub use int8::Int8;
pub(crate) use int8::sealed::Int8Bits;
pub(crate) use lhs::LhsSource;
pub(crate) use packed_lhs::MatrixLhs;
use packed_lhs::Source;
pub use packed_lhs::{Lhs, PackedLhs};
pub use rhs::PackedRhs;
pub(crate) use transpose::transpose;
pub use workspace::Workspace;

/// Returns the name of the instruction set in use: the best of this machine, capped by `NDARRAY_QUANT_ISA`.
///
/// One of `sse2`, `avx2`, `avxvnni`, `avx512`, `avx512vnni`, `amx`; `neon`, `dotprod`, `i8mm` on AArch64; `simd128`,
/// `relaxed-simd` in WebAssembly; or `portable` on other targets. The variable is read once; results are the same bits on
/// all of them. `amx` means that deep products use it; see the [module](self) for when.
pub fn kernel_name() -> &'static str {
    crate::simd::Isa::gemm_name()
}

/// Checks the environment variable `NDARRAY_QUANT_ISA`. For programs, to tell their users of a misspelt name.
///
/// The variable rules out instruction sets, so the library takes an unknown name for the lowest one, `sse2` or `portable`:
/// nothing runs that might have been meant to be ruled out. Names are known in upper and lower case, and an empty value is
/// no name.
///
/// # Errors
/// [`Error::Argument`] with the known names if the variable is set to another one.
pub fn check_isa_variable() -> Result<()> {
    crate::simd::Isa::cap().map(|_| ())
}

/// Multiplies in registers, `rounds` times twelve of them (AMX: four tiles), and returns the number of multiply–accumulates
/// (MACs) of 8-bit codes it executed.
///
/// For benchmarks: twice this number over the time taken is the peak throughput of one core in operations a second, the
/// roof of every product.
pub fn peak_macs(rounds: usize) -> u64 {
    crate::simd::peak_macs(rounds)
}

/// Computes `epilogue((a - a_zero) · (b - b_zero) + bias)` for `a` of shape `[m, k]` and `b` of shape `[k, n]`.
///
/// `a` is a reference to a matrix of any strides or to a [`PackedLhs`]. The result is the same, bit for bit, on every
/// instruction set and thread count.
///
/// # Errors
/// - [`Error::Shape`] if the inner dimensions differ or the epilogue has another number of channels than the product,
/// - [`Error::Value`] if an accumulator could overflow, alone or with the bias added,
/// - [`Error::Params`] if both operands are packed, and not for the same instruction set.
pub fn gemm<'a, A: Int8, B: Int8, E: Epilogue>(
    a: impl Into<Lhs<'a, A>>,
    a_zero_point: A,
    b: &PackedRhs<B>,
    epilogue: &E,
) -> Result<Array2<E::Out>> {
    let a = a.into();
    let mut out = Array2::from_elem((a.source().nrows(), b.ncols()), E::Out::default());
    gemm_into(a, a_zero_point, b, epilogue, &mut out, &mut Workspace::new())?;
    Ok(out)
}

/// [`gemm`] that writes into `out`, of any strides.
///
/// Allocates nothing once `workspace` has grown to the problem. With the feature `rayon`, each thread has its own
/// scratch in `workspace`.
///
/// # Errors
/// Same as [`gemm`], and [`Error::Shape`] if `out` is not of shape `[m, n]`. `out` is unchanged then.
pub fn gemm_into<'a, A: Int8, B: Int8, E: Epilogue>(
    a: impl Into<Lhs<'a, A>>,
    a_zero_point: A,
    b: &PackedRhs<B>,
    epilogue: &E,
    out: &mut ArrayRef2<E::Out>,
    workspace: &mut Workspace,
) -> Result<()> {
    let a = a.into();
    if let Source::Packed(a) = a.0 {
        check_inner(a.nrows(), a.ncols(), b.nrows())?;
        a.check(b.panels().isa)?;
    }
    gemm_from(a.source(), a_zero_point, b, epilogue, out, workspace)
}

/// [`gemm_into`] for any source of rows of `A`.
pub(crate) fn gemm_from<A: Int8, B: Int8, E: Epilogue>(
    a: &dyn LhsSource,
    a_zero_point: A,
    b: &PackedRhs<B>,
    epilogue: &E,
    out: &mut ArrayRef2<E::Out>,
    workspace: &mut Workspace,
) -> Result<()> {
    let [m, k] = [a.nrows(), a.depth()];
    check_inner(m, k, b.nrows())?;
    if out.dim() != (m, b.ncols()) {
        return Err(Error::shape("product", &[m, b.ncols()], out.shape()));
    }
    epilogue.check(m, b.ncols())?;
    check_depth(A::max_abs_diff(a_zero_point), b.max_abs_diff(), k, epilogue.bias())?;
    let (a_zero_point, b, bias) = (a_zero_point.to_i32(), b.panels(), epilogue.bias());
    epilogue.run(Product { a, a_zero_point, b, bias, first_col: 0, workspace }, out.view_mut());
    Ok(())
}

/// Returns an error unless the LHS `[m, k]` has the depth of the RHS.
fn check_inner(m: usize, k: usize, depth: usize) -> Result<()> {
    if k == depth { Ok(()) } else { Err(Error::shape("LHS of the product", &[m, depth], &[m, k])) }
}

/// Returns an error for a depth at which a row or column sum of codes could leave `i32`.
fn check_sums(depth: usize) -> Result<()> {
    let max = i32::MAX as usize / 256;
    if depth > max { Err(ValueError::Depth { max, found: depth }.into()) } else { Ok(()) }
}

/// Returns an error if `depth * max|a - a_zero| * max|b - b_zero| + |bias|` exceeds `i32::MAX`.
pub(crate) fn check_depth(a_max_abs: i64, b_max_abs: i64, depth: usize, bias: Option<&[i32]>) -> Result<()> {
    let max_product = a_max_abs * b_max_abs;
    let max = (i32::MAX as i64 / max_product) as usize;
    if depth > max {
        return Err(ValueError::Depth { max, found: depth }.into());
    }
    let headroom = i32::MAX as i64 - max_product * depth as i64;
    let too_large = |bias: i32| (bias as i64).abs() > headroom;
    match bias.and_then(|bias| bias.iter().enumerate().find(|(_, b)| too_large(**b))) {
        Some((channel, &found)) => Err(ValueError::Bias { max: headroom, found: found as f64, channel }.into()),
        None => Ok(()),
    }
}
