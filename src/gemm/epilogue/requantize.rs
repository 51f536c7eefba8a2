use alloc::vec::Vec;

use ndarray::ArrayViewMut2;

use super::dequantize::check_scales;
use super::rows::{Multipliers, RequantizeRows};
use super::sealed::{Finish, Job};
use super::{Epilogue, check_bias, check_len};
use crate::affine::{Arithmetic, Codes, Multiplier, RequantizeFloat};
use crate::element::{Code, Element, sealed::Sealed};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};
use crate::qparams::QParams;
use crate::simd::{RequantizeBytes, same_size_view_mut};

/// Requantizes accumulators to codes: `clamp(round((acc + bias) * multiplier) + zero_point)`.
///
/// The multiplier is `x_scale * w_scale / y_scale`: one, or one per column, in the chosen [`Arithmetic`]. A fused
/// activation is a narrower clamp.
#[derive(Debug, Clone)]
pub struct RequantizeEpilogue<T: Element> {
    multipliers: Multipliers,
    /// True if all multipliers are `f32` below 1, as is usual. Then `acc * multiplier` rounds to an `i32`.
    below_one: bool,
    bias: Option<Vec<i32>>,
    zero_point: i32,
    codes: Codes,
    element: core::marker::PhantomData<T>,
}

impl<T: Element> RequantizeEpilogue<T> {
    /// Creates an epilogue to the per-tensor parameters `to`, from the scale of the LHS and the scales of the RHS: one,
    /// or one per column.
    ///
    /// # Errors
    /// [`Error::Params`] unless `to` is per tensor; same as [`Multiplier::new`] for the scales.
    pub fn new(
        row_scale: f32,
        col_scale: &[f32],
        bias: Option<&[i32]>,
        to: &QParams<T>,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        check_scales("row_scale", &[row_scale])?;
        check_scales("col_scale", col_scale)?;
        let (scale, zero_point) = to.of_tensor("output")?;
        let (min, max) = to.code_range();
        let mut multipliers = match arithmetic {
            Arithmetic::F32 => Multipliers::F32(Vec::new()),
            Arithmetic::F64 => Multipliers::F64(Vec::new()),
            Arithmetic::FixedPoint(rounding) => Multipliers::FixedPoint(Vec::new(), rounding),
        };
        for &col_scale in col_scale {
            match (&mut multipliers, Multiplier::new(row_scale, col_scale, scale, arithmetic)?) {
                (Multipliers::F32(all), Multiplier::F32(one)) => all.push(one),
                (Multipliers::F64(all), Multiplier::F64(one)) => all.push(one),
                (Multipliers::FixedPoint(all, _), Multiplier::FixedPoint(one, _)) => all.push(one),
                _ => unreachable!("an arithmetic mode has one type of multiplier"),
            }
        }
        let below_one = match &multipliers {
            Multipliers::F32(all) => all.iter().all(|&m| m < 1.0),
            _ => false,
        };
        Ok(Self {
            multipliers,
            below_one,
            bias: bias.map(<[i32]>::to_vec),
            zero_point: zero_point.to_i32(),
            codes: Codes { min, max },
            element: core::marker::PhantomData,
        })
    }

    /// Clamps codes to `min..=max` as well: a fused activation.
    ///
    /// # Errors
    /// [`Error::Params`] if `min > max` or a bound leaves the element type.
    pub fn with_clamp(mut self, min: i32, max: i32) -> Result<Self> {
        if min > max || min < T::MIN || max > T::MAX {
            return Err(ParamsError::CodeRange { min: T::MIN, max: T::MAX, found_min: min, found_max: max }.into());
        }
        let (low, high) = (self.codes.min, self.codes.max);
        self.codes = Codes { min: min.clamp(low, high), max: max.clamp(low, high) };
        Ok(self)
    }

    /// The multipliers, the zero point and the range of codes. `None` unless multipliers are `f32`.
    pub(crate) fn f32_parts(&self) -> Option<(&[f32], i32, Codes)> {
        match &self.multipliers {
            Multipliers::F32(multipliers) => Some((multipliers, self.zero_point, self.codes)),
            _ => None,
        }
    }

    /// The size of multipliers and bias in memory, in bytes.
    pub(crate) fn size_in_bytes(&self) -> usize {
        self.multipliers.size_in_bytes() + size_of::<i32>() * self.bias.as_ref().map_or(0, Vec::len)
    }
}

impl<T: Element> Sealed for RequantizeEpilogue<T> {}
impl<T: Element> Epilogue for RequantizeEpilogue<T> {
    type Out = T::Code;
}
impl<T: Element> Finish<T::Code> for RequantizeEpilogue<T> {
    fn bias(&self) -> Option<&[i32]> {
        self.bias.as_deref()
    }

    fn check(&self, _: usize, cols: usize) -> Result<()> {
        check_len("column scales", cols, self.multipliers.len())?;
        check_bias(self.bias(), cols)
    }

    fn run(&self, job: impl Job, mut out: ArrayViewMut2<'_, T::Code>) {
        let (zero_point, codes, multipliers) = (self.zero_point, self.codes, &self.multipliers);
        if let (Multipliers::F32(multipliers), true) = (multipliers, self.below_one)
            && let Some(bytes) = same_size_view_mut(out.view_mut())
        {
            // Signed codes are computed as unsigned ones and converted by XOR 0x80.
            let (offset, sign_xor) = if T::MIN < 0 { (128, 0x80) } else { (0, 0) };
            let codes = Codes { min: codes.min + offset, max: codes.max + offset };
            let op = RequantizeFloat::new(zero_point + offset, codes);
            return job.run(RequantizeBytes { op, multipliers, sign_xor }, bytes);
        }
        if let Some(out) = same_size_view_mut::<_, u8>(out.view_mut()) {
            job.run(RequantizeRows::new(multipliers, zero_point, codes), out);
        } else if let Some(out) = same_size_view_mut::<_, i16>(out.view_mut()) {
            job.run(RequantizeRows::new(multipliers, zero_point, codes), out);
        } else if let Some(out) = same_size_view_mut::<_, i32>(out) {
            job.run(RequantizeRows::new(multipliers, zero_point, codes), out);
        }
    }
}
