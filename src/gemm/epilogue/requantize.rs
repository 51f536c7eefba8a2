use alloc::vec::Vec;

use super::accumulators::Accumulators;
use super::dequantize::check_scales;
use super::sealed::Finish;
use super::tile_out::{TileOut, columns};
use super::{Epilogue, check_bias, check_len};
use crate::affine::{
    Arithmetic, Codes, FixedPoint, FixedPointRounding, Multiplier, RequantizeFixed, RequantizeFloat, requantize_double,
    requantize_fixed, requantize_float,
};
use crate::element::{Code, Element, sealed::Sealed};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{ParamsError, Result};
use crate::qparams::QParams;
use crate::simd::{ByteStage, ByteTile, OutputStage, as_bytes_mut};

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

/// One multiplier, or one per column. All have one type, so the type is matched once per tile.
#[derive(Debug, Clone)]
enum Multipliers {
    F32(Vec<f32>),
    F64(Vec<f64>),
    FixedPoint(Vec<FixedPoint>, FixedPointRounding),
}

impl Multipliers {
    fn len(&self) -> usize {
        match self {
            Multipliers::F32(m) => m.len(),
            Multipliers::F64(m) => m.len(),
            Multipliers::FixedPoint(m, _) => m.len(),
        }
    }
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
}

/// Requantizes accumulators by `f32` or `f64` multipliers.
struct RequantizeFloatStage<'a, T: Element, F, C> {
    multipliers: &'a [F],
    requantize: C,
    zero_point: i32,
    codes: Codes,
    out: TileOut<'a, T::Code>,
}

impl<T: Element, F: Copy, C: Fn(i32, F, i32, Codes) -> i32> OutputStage for RequantizeFloatStage<'_, T, F, C> {
    /// Index of the first column, multipliers.
    type ColumnParams<const COLS: usize> = (usize, [F; COLS]);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn column_params<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::ColumnParams<COLS> {
        (col, columns::<_, COLS, WHOLE>(self.multipliers, self.out.at.1 + col))
    }

    #[inline(always)]
    fn store_row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, multipliers): Self::ColumnParams<COLS>,
        acc: [i32; COLS],
    ) {
        let mut codes = [T::Code::default(); COLS];
        for j in 0..COLS {
            codes[j] = T::Code::from_i32((self.requantize)(acc[j], multipliers[j], self.zero_point, self.codes));
        }
        self.out.store::<COLS, WHOLE>(i, col, codes);
    }
}

/// Requantizes accumulators by fixed-point multipliers, with one rounding if `SINGLE`, otherwise with two.
struct RequantizeFixedStage<'a, T: Element, const SINGLE: bool> {
    multipliers: &'a [FixedPoint],
    zero_point: i32,
    codes: Codes,
    out: TileOut<'a, T::Code>,
}

impl<T: Element, const SINGLE: bool> OutputStage for RequantizeFixedStage<'_, T, SINGLE> {
    /// Index of the first column, Q31 multipliers and shifts as separate arrays, which vectorize.
    type ColumnParams<const COLS: usize> = (usize, [i32; COLS], [i32; COLS]);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn column_params<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::ColumnParams<COLS> {
        let multipliers = columns::<_, COLS, WHOLE>(self.multipliers, self.out.at.1 + col);
        (col, multipliers.map(FixedPoint::q31), multipliers.map(FixedPoint::shift))
    }

    #[inline(always)]
    fn store_row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, q31, shift): Self::ColumnParams<COLS>,
        acc: [i32; COLS],
    ) {
        let rounding = if SINGLE { FixedPointRounding::Single } else { FixedPointRounding::Double };
        let mut codes = [T::Code::default(); COLS];
        for j in 0..COLS {
            let multiplier = FixedPoint::of_parts(q31[j], shift[j]);
            codes[j] = T::Code::from_i32(if T::BITS > 16 {
                requantize_fixed(acc[j], multiplier, rounding, self.zero_point, self.codes)
            } else {
                RequantizeFixed::new(multiplier, rounding, self.zero_point, self.codes).code(acc[j])
            });
        }
        self.out.store::<COLS, WHOLE>(i, col, codes);
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

    fn byte_stage(&self) -> Option<ByteStage<'_, RequantizeFloat>> {
        let Multipliers::F32(multipliers) = &self.multipliers else { return None };
        if size_of::<T::Code>() != 1 || !self.below_one {
            return None;
        }
        // Signed codes are computed as unsigned ones and converted by XOR 0x80.
        let (offset, sign_xor) = if T::MIN < 0 { (128, 0x80) } else { (0, 0) };
        let codes = Codes { min: self.codes.min + offset, max: self.codes.max + offset };
        Some(ByteStage { op: RequantizeFloat::new(self.zero_point + offset, codes), multipliers, sign_xor })
    }

    #[inline(always)]
    fn finish(&self, mut acc: impl Accumulators, out: TileOut<'_, T::Code>) {
        let TileOut { at, width, out, stride } = out;
        if let (Some(stage), Some(bytes)) = (self.byte_stage(), as_bytes_mut(out)) {
            let multipliers = if stage.multipliers.len() == 1 { stage.multipliers } else { &stage.multipliers[at.1..] };
            let stage = ByteStage { multipliers, ..stage };
            if acc.requantize(stage, ByteTile { bytes, width, stride }) {
                return;
            }
        }
        let (zero_point, codes, out) = (self.zero_point, self.codes, TileOut { at, width, out, stride });
        match &self.multipliers {
            Multipliers::F32(multipliers) => {
                let requantize = requantize_float::<T>;
                acc.store_to(RequantizeFloatStage::<T, _, _> { multipliers, requantize, zero_point, codes, out });
            }
            Multipliers::F64(multipliers) => {
                let requantize = requantize_double::<T>;
                acc.store_to(RequantizeFloatStage::<T, _, _> { multipliers, requantize, zero_point, codes, out });
            }
            Multipliers::FixedPoint(multipliers, FixedPointRounding::Double) => {
                acc.store_to(RequantizeFixedStage::<T, false> { multipliers, zero_point, codes, out });
            }
            Multipliers::FixedPoint(multipliers, FixedPointRounding::Single) => {
                acc.store_to(RequantizeFixedStage::<T, true> { multipliers, zero_point, codes, out });
            }
        }
    }
}
