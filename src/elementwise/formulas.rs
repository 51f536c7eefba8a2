//! The formulas as loops take them: with all parameters, or with a scale and a zero point still to come.

use core::marker::PhantomData;

use crate::affine::{Affine, ByReciprocal, Codes, Rounding, dequantize};
use crate::element::{Code, Compute};

/// A formula for one element.
pub(super) trait Formula: Copy {
    type In: Copy + Default;
    type Out: Copy + Default;
    /// Whether this is on `f32` and codes of at most 16 bits.
    const COMMON: bool;
    fn eval(self, x: Self::In) -> Self::Out;
}

/// A formula whose scale and zero point are still to come.
pub(super) trait Formulas: Copy {
    type Scale: Compute;
    type Formula: Formula;
    fn with(self, scale: Self::Scale, zero_point: i32) -> Self::Formula;
}

const fn is_common<Z: Code, C>() -> bool {
    size_of::<C>() == 4 && !Z::WIDE
}

impl<Z: Code, R: Rounding> Formula for ByReciprocal<Z, R> {
    type In = f32;
    type Out = Z;
    const COMMON: bool = true;
    #[inline(always)]
    fn eval(self, x: f32) -> Z {
        self.quantize(x)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Quantize<Z, C, R> {
    pub(super) range: Codes,
    pub(super) types: PhantomData<(Z, C, R)>,
}

impl<Z: Code, C: Compute, R: Rounding> Formulas for Quantize<Z, C, R> {
    type Scale = C;
    type Formula = Affine<Z, C, R>;
    #[inline(always)]
    fn with(self, scale: C, zero_point: i32) -> Affine<Z, C, R> {
        Affine::new(scale, zero_point, self.range)
    }
}

impl<Z: Code, C: Compute, R: Rounding> Formula for Affine<Z, C, R> {
    type In = C;
    type Out = Z;
    const COMMON: bool = is_common::<Z, C>();
    #[inline(always)]
    fn eval(self, x: C) -> Z {
        self.quantize(x)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Dequantize<Z, C>(pub(super) PhantomData<(Z, C)>);

#[derive(Clone, Copy)]
pub(super) struct DequantizeWith<Z, C> {
    scale: C,
    zero_point: i32,
    code: PhantomData<Z>,
}

impl<Z: Code, C: Compute> Formulas for Dequantize<Z, C> {
    type Scale = C;
    type Formula = DequantizeWith<Z, C>;
    #[inline(always)]
    fn with(self, scale: C, zero_point: i32) -> DequantizeWith<Z, C> {
        DequantizeWith { scale, zero_point, code: PhantomData }
    }
}

impl<Z: Code, C: Compute> Formula for DequantizeWith<Z, C> {
    type In = Z;
    type Out = C;
    const COMMON: bool = is_common::<Z, C>();
    #[inline(always)]
    fn eval(self, code: Z) -> C {
        dequantize(code, self.zero_point, self.scale)
    }
}

#[derive(Clone, Copy)]
pub(super) struct FakeQuantize<Z, C, R> {
    pub(super) range: Codes,
    pub(super) types: PhantomData<(Z, C, R)>,
}

#[derive(Clone, Copy)]
pub(super) struct FakeQuantizeWith<Z, C, R> {
    quantize: Affine<Z, C, R>,
    dequantize: DequantizeWith<Z, C>,
}

impl<Z: Code, C: Compute, R: Rounding> Formulas for FakeQuantize<Z, C, R> {
    type Scale = C;
    type Formula = FakeQuantizeWith<Z, C, R>;
    #[inline(always)]
    fn with(self, scale: C, zero_point: i32) -> FakeQuantizeWith<Z, C, R> {
        FakeQuantizeWith {
            quantize: Affine::new(scale, zero_point, self.range),
            dequantize: Dequantize(PhantomData).with(scale, zero_point),
        }
    }
}

impl<Z: Code, C: Compute, R: Rounding> Formula for FakeQuantizeWith<Z, C, R> {
    type In = C;
    type Out = C;
    const COMMON: bool = is_common::<Z, C>();
    #[inline(always)]
    fn eval(self, x: C) -> C {
        self.dequantize.eval(self.quantize.quantize(x))
    }
}
