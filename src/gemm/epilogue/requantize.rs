use alloc::vec::Vec;

use ndarray::Dimension;

use super::outputs::{TileOut, columns};
use super::{Epilogue, Sums, check_bias, check_len};
use crate::affine::{
    Arithmetic, Codes, FixedPoint, FixedPointRounding, Multiplier, RequantizeFixed, RequantizeFloat, requantize_double,
    requantize_fixed, requantize_float,
};
use crate::arch::{Sink, TileBytes, ToBytes, as_bytes_mut};
use crate::element::{Code, Element, sealed::Sealed};
use crate::error::{Error, Result};
use crate::qparams::QParams;

/// To codes: `clamp(round((acc + bias) * multiplier) + zero_point)`.
///
/// The multiplier is `x_scale * w_scale / y_scale`, one or one per column, in the arithmetic of a [`Arithmetic`].
/// An activation is a narrower clamp.
#[derive(Debug, Clone)]
pub struct RequantizeEpilogue<T: Element> {
    multipliers: Multipliers,
    /// Whether all multipliers are floats below 1, as is usual: then products with sums round to an `i32`.
    below_one: bool,
    bias: Option<Vec<i32>>,
    zero_point: i32,
    codes: Codes,
    element: core::marker::PhantomData<T>,
}

/// One multiplier, or one per column. All of one kind, so that the kind is looked at once a tile.
#[derive(Debug, Clone)]
enum Multipliers {
    Float(Vec<f32>),
    Double(Vec<f64>),
    FixedPoint(Vec<FixedPoint>, FixedPointRounding),
}

impl Multipliers {
    fn len(&self) -> usize {
        match self {
            Multipliers::Float(m) => m.len(),
            Multipliers::Double(m) => m.len(),
            Multipliers::FixedPoint(m, _) => m.len(),
        }
    }
}

impl<T: Element> RequantizeEpilogue<T> {
    /// Requantizes to parameters per tensor, from the scale of the left side and one or more of the right.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `to` is per tensor, and those of [`Multiplier::new`].
    pub fn new<D: Dimension>(
        row_scale: f32,
        col_scale: &[f32],
        bias: Option<&[i32]>,
        to: &QParams<T, D>,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        let (scale, zero_point) = to.of_tensor("output parameters")?;
        let (min, max) = to.code_range();
        let mut multipliers = match arithmetic {
            Arithmetic::F32 => Multipliers::Float(Vec::new()),
            Arithmetic::F64 => Multipliers::Double(Vec::new()),
            Arithmetic::FixedPoint(rounding) => Multipliers::FixedPoint(Vec::new(), rounding),
        };
        for &col_scale in col_scale {
            match (&mut multipliers, Multiplier::new(row_scale, col_scale, scale, arithmetic)?) {
                (Multipliers::Float(all), Multiplier::F32(one)) => all.push(one),
                (Multipliers::Double(all), Multiplier::F64(one)) => all.push(one),
                (Multipliers::FixedPoint(all, _), Multiplier::FixedPoint(one, _)) => all.push(one),
                _ => unreachable!("a arithmetic has one kind of multiplier"),
            }
        }
        let below_one = match &multipliers {
            Multipliers::Float(all) => all.iter().all(|&m| m < 1.0),
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

    /// With codes clamped to `min..=max` as well: a fused activation.
    ///
    /// # Errors
    /// [`Error::CodeRange`] if `min > max` or a bound leaves the element type.
    pub fn with_clamp(mut self, min: i32, max: i32) -> Result<Self> {
        if min > max || min < T::MIN || max > T::MAX {
            return Err(Error::CodeRange { min: T::MIN, max: T::MAX, found_min: min, found_max: max });
        }
        let (low, high) = (self.codes.min, self.codes.max);
        self.codes = Codes { min: min.clamp(low, high), max: max.clamp(low, high) };
        Ok(self)
    }
}

/// Requantizes sums by floats of either precision, `code` being the formula.
struct ByFloat<'a, T: Element, F, C> {
    factors: &'a [F],
    code: C,
    zero_point: i32,
    codes: Codes,
    out: TileOut<'a, T::Code>,
}

impl<T: Element, F: Copy, C: Fn(i32, F, i32, Codes) -> i32> Sink for ByFloat<'_, T, F, C> {
    type Columns<const COLS: usize> = (usize, [F; COLS]);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::Columns<COLS> {
        (col, columns::<_, COLS, WHOLE>(self.factors, self.out.at.1 + col))
    }

    #[inline(always)]
    fn row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, factors): Self::Columns<COLS>,
        sums: [i32; COLS],
    ) {
        let mut lanes = [T::Code::default(); COLS];
        for l in 0..COLS {
            lanes[l] = T::Code::from_i32((self.code)(sums[l], factors[l], self.zero_point, self.codes));
        }
        self.out.put::<COLS, WHOLE>(i, col, lanes);
    }
}

/// Requantizes sums by fixed-point factors, with one rounding if `SINGLE`, or with two.
struct ByFixedPoint<'a, T: Element, const SINGLE: bool> {
    factors: &'a [FixedPoint],
    zero_point: i32,
    codes: Codes,
    out: TileOut<'a, T::Code>,
}

impl<T: Element, const SINGLE: bool> Sink for ByFixedPoint<'_, T, SINGLE> {
    /// The parts of factors each in a row of their own, as registers take them.
    type Columns<const COLS: usize> = (usize, [i32; COLS], [i32; COLS]);

    #[inline(always)]
    fn width(&self) -> usize {
        self.out.width
    }

    #[inline(always)]
    fn columns<const COLS: usize, const WHOLE: bool>(&self, col: usize) -> Self::Columns<COLS> {
        let factors = columns::<_, COLS, WHOLE>(self.factors, self.out.at.1 + col);
        (col, factors.map(FixedPoint::q31), factors.map(FixedPoint::shift))
    }

    #[inline(always)]
    fn row<const COLS: usize, const WHOLE: bool>(
        &mut self,
        i: usize,
        (col, q31, shift): Self::Columns<COLS>,
        sums: [i32; COLS],
    ) {
        let rounding = if SINGLE { FixedPointRounding::Single } else { FixedPointRounding::Double };
        let mut lanes = [T::Code::default(); COLS];
        for l in 0..COLS {
            let factor = FixedPoint::of_parts(q31[l], shift[l]);
            lanes[l] = T::Code::from_i32(if T::BITS > 16 {
                requantize_fixed(sums[l], factor, rounding, self.zero_point, self.codes)
            } else {
                RequantizeFixed::new(factor, rounding, self.zero_point, self.codes).code(sums[l])
            });
        }
        self.out.put::<COLS, WHOLE>(i, col, lanes);
    }
}

impl<T: Element> Sealed for RequantizeEpilogue<T> {}
impl<T: Element> Epilogue for RequantizeEpilogue<T> {
    type Out = T::Code;

    fn bias(&self) -> Option<&[i32]> {
        self.bias.as_deref()
    }

    fn check(&self, _: usize, cols: usize) -> Result<()> {
        check_len("column scales", cols, self.multipliers.len())?;
        check_bias(self.bias(), cols)
    }

    #[allow(private_interfaces, reason = "the trait is sealed")]
    fn to_bytes(&self) -> Option<ToBytes<'_, RequantizeFloat>> {
        let Multipliers::Float(factors) = &self.multipliers else { return None };
        if size_of::<T::Code>() != 1 || !self.below_one {
            return None;
        }
        // Signed codes are unsigned ones whose top bit is flipped.
        let (up, flip) = if T::MIN < 0 { (128, 0x80) } else { (0, 0) };
        let codes = Codes { min: self.codes.min + up, max: self.codes.max + up };
        Some(ToBytes { formula: RequantizeFloat::new(self.zero_point + up, codes), factors, flip })
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "the trait is sealed")]
    fn finish(&self, mut sums: impl Sums, out: TileOut<'_, T::Code>) {
        let TileOut { at, width, out, stride } = out;
        if let (Some(to), Some(bytes)) = (self.to_bytes(), as_bytes_mut(out)) {
            let factors = if to.factors.len() == 1 { to.factors } else { &to.factors[at.1..] };
            let to = ToBytes { factors, ..to };
            if sums.to_bytes(to, TileBytes { bytes, width, stride }) {
                return;
            }
        }
        let (zero_point, codes, out) = (self.zero_point, self.codes, TileOut { at, width, out, stride });
        match &self.multipliers {
            Multipliers::Float(factors) => {
                sums.to(ByFloat::<T, _, _> { factors, code: requantize_float::<T>, zero_point, codes, out });
            }
            Multipliers::Double(factors) => {
                sums.to(ByFloat::<T, _, _> { factors, code: requantize_double::<T>, zero_point, codes, out });
            }
            Multipliers::FixedPoint(factors, FixedPointRounding::Double) => {
                sums.to(ByFixedPoint::<T, false> { factors, zero_point, codes, out });
            }
            Multipliers::FixedPoint(factors, FixedPointRounding::Single) => {
                sums.to(ByFixedPoint::<T, true> { factors, zero_point, codes, out });
            }
        }
    }
}
