//! Half precision: float16 and bfloat16 casts with an overflow policy.

use ndarray::{Array, ArrayRef, Dimension};

use crate::element::{Compute, DType, Float};
use crate::error::{Error, Result, ValueError};
use crate::granularity::positions;
use crate::quantize::{Dequantize, Quantize};
use crate::simd::{self, Task};

pub use crate::element::float::HalfFloat;
#[doc(no_inline)]
pub use ::half::{bf16, f16};

/// Overflow policy of a cast to half precision. A finite value overflows if it would round to an infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Overflow {
    /// Returns an error.
    #[default]
    Error,
    /// Saturates to the greatest finite value of the same sign. Infinities saturate, too.
    Saturate,
    /// Rounds to an infinity, as IEEE 754 does.
    Infinity,
}

/// Float16 quantization: rounds each value to the nearest [`half::f16`] or [`half::bf16`], ties to even.
///
/// NaN stays NaN. Infinities stay infinite unless the policy is [`Overflow::Saturate`]. The result, an array of half
/// floats, implements [`Dequantize`].
///
/// ```
/// use half::f16;
/// use ndarray::array;
/// use ndarray_quant::{Error, half::{HalfCast, Overflow}};
///
/// let x = array![1.0f32, 1e5];
/// assert!(matches!(HalfCast::<f16>::new(Overflow::Error).quantize(&x), Err(Error::Value(_))));
/// let y = HalfCast::<f16>::new(Overflow::Saturate).quantize(&x)?;
/// assert_eq!(y, array![f16::ONE, f16::MAX]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HalfCast<H> {
    overflow: Overflow,
    half: core::marker::PhantomData<H>,
}

impl<H: HalfFloat> HalfCast<H> {
    /// Creates a cast with this overflow policy.
    pub fn new(overflow: Overflow) -> Self {
        HalfCast { overflow, half: core::marker::PhantomData }
    }

    /// Casts a tensor.
    ///
    /// # Errors
    /// [`Error::Value`] with the position of the first finite value that is
    /// too large, with [`Overflow::Error`].
    pub fn quantize<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<Array<H, D>> {
        let mut out = Array::from_elem(x.raw_dim(), H::default());
        self.quantize_into(x, &mut out)?;
        Ok(out)
    }

    /// Casts into a caller-provided array. Both arrays may have any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape,
    /// [`Error::Value`] with the position of the first finite value that is
    /// too large, with [`Overflow::Error`]. Nothing is written then.
    pub fn quantize_into<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>, out: &mut ArrayRef<H, D>) -> Result<()> {
        if x.shape() != out.shape() {
            return Err(Error::shape("half-precision values", x.shape(), out.shape()));
        }
        let limit = H::MAX.to_f64();
        let cast = |x: F| x.widen().to_float::<H>();
        let overflows = |x: F| x.to_f64().abs() > limit && cast(x).to_f64().is_infinite();
        // Most tensors have no large values, which a fast loop shows.
        let may_overflow = self.overflow != Overflow::Infinity && exceeds(x, limit as f32);
        if may_overflow && self.overflow == Overflow::Error {
            let finite_overflow = |x: &F| overflows(*x) && x.to_f64().is_finite();
            if let Some((index, x)) = positions(x.raw_dim()).zip(x).find(|(_, x)| finite_overflow(x)) {
                return Err(ValueError::Overflow { limit, found: x.to_f64(), index }.into());
            }
        }
        if may_overflow && self.overflow == Overflow::Saturate {
            out.zip_mut_with(x, |y, &x| {
                *y = if overflows(x) { H::from_f64(limit.copysign(x.to_f64())) } else { cast(x) };
            });
            return Ok(());
        }
        match (x.as_slice(), out.as_slice_mut()) {
            (Some(x), Some(out)) if F::DTYPE != DType::F64 => {
                if let Some(x) = F::as_f32(x) {
                    H::round_slice(x, out);
                    return Ok(());
                }
                // Chunks stay in L1 between the two conversions.
                const CHUNK: usize = 1024;
                let mut wide = [0f32; CHUNK];
                for (x, out) in x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
                    wide.iter_mut().zip(x).for_each(|(wide, x)| *wide = x.to_f32());
                    H::round_slice(&wide[..x.len()], out);
                }
            }
            _ => out.zip_mut_with(x, |y, &x| *y = cast(x)),
        }
        Ok(())
    }
}

/// Returns whether any magnitude is greater than `limit`.
fn exceeds<F: Float, D: Dimension>(x: &ArrayRef<F, D>, limit: f32) -> bool {
    struct Exceeds<'a, F>(&'a [F], f32);
    impl<F: Float> Task for Exceeds<'_, F> {
        type Output = bool;

        #[inline(always)]
        fn run(self) -> bool {
            // No early exit, so that the loop is vectorized.
            self.0.iter().fold(false, |any, x| any | (x.to_f32().abs() > self.1))
        }
    }
    match x.as_slice_memory_order() {
        Some(x) => simd::run(Exceeds(x, limit)),
        None => x.iter().any(|x| x.to_f32().abs() > limit),
    }
}

impl<F: Float, D: Dimension, H: HalfFloat> Quantize<F, D> for HalfCast<H> {
    type Output = Array<H, D>;

    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<Array<H, D>> {
        self.quantize(x)
    }
}

impl<F: Float, D: Dimension, H: HalfFloat> Dequantize<F, D> for Array<H, D> {
    fn raw_dim(&self) -> D {
        (**self).raw_dim()
    }
    fn size_in_bytes(&self) -> usize {
        size_of::<H>() * self.len()
    }
    fn dequantize_into(&self, out: &mut ArrayRef<F, D>) -> Result<()> {
        if out.shape() != self.shape() {
            return Err(Error::shape("float values", self.shape(), out.shape()));
        }
        match (self.as_slice(), out.as_slice_mut()) {
            (Some(x), Some(out)) => {
                const CHUNK: usize = 1024;
                let mut wide = [0f32; CHUNK];
                for (x, out) in x.chunks(CHUNK).zip(out.chunks_mut(CHUNK)) {
                    H::widen_slice(x, &mut wide);
                    out.iter_mut().zip(&wide).for_each(|(y, &x)| *y = F::from_f32(x));
                }
            }
            _ => out.zip_mut_with(self, |y, x| *y = F::from_f32(x.to_f32())),
        }
        Ok(())
    }
}
