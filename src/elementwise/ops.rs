//! Quantize, dequantize and fake-quantize as elementwise operators.

use core::marker::PhantomData;

use crate::affine::{Codes, Quantizer, ReciprocalQuantizer, Rounding, dequantize};
use crate::element::{Code, Compute};

/// An operator on one element, with its scale and zero point.
pub(super) trait ElementwiseOp: Copy {
    type In: Copy + Default;
    type Out: Copy + Default;
    /// True if loops are compiled for each instruction set: `f32` and codes of at most 16 bits.
    const PER_ISA: bool;
    fn eval(self, x: Self::In) -> Self::Out;
}

/// An operator that takes a scale and a zero point per tensor, per block or per element.
pub(super) trait AffineOp: Copy {
    type Scale: Compute;
    type Op: ElementwiseOp;
    fn with_params(self, scale: Self::Scale, zero_point: i32) -> Self::Op;
}

const fn per_isa<Z: Code, C>() -> bool {
    size_of::<C>() == 4 && !Z::WIDE
}

impl<Z: Code, R: Rounding> ElementwiseOp for ReciprocalQuantizer<Z, R> {
    type In = f32;
    type Out = Z;
    const PER_ISA: bool = true;
    #[inline(always)]
    fn eval(self, x: f32) -> Z {
        self.quantize(x)
    }
}

#[derive(Clone, Copy)]
pub(super) struct QuantizeOp<Z, C, R> {
    pub(super) codes: Codes,
    pub(super) types: PhantomData<(Z, C, R)>,
}

impl<Z: Code, C: Compute, R: Rounding> AffineOp for QuantizeOp<Z, C, R> {
    type Scale = C;
    type Op = Quantizer<Z, C, R>;
    #[inline(always)]
    fn with_params(self, scale: C, zero_point: i32) -> Quantizer<Z, C, R> {
        Quantizer::new(scale, zero_point, self.codes)
    }
}

impl<Z: Code, C: Compute, R: Rounding> ElementwiseOp for Quantizer<Z, C, R> {
    type In = C;
    type Out = Z;
    const PER_ISA: bool = per_isa::<Z, C>();
    #[inline(always)]
    fn eval(self, x: C) -> Z {
        self.quantize(x)
    }
}

#[derive(Clone, Copy)]
pub(super) struct DequantizeOp<Z, C>(pub(super) PhantomData<(Z, C)>);

#[derive(Clone, Copy)]
pub(super) struct Dequantizer<Z, C> {
    scale: C,
    zero_point: i32,
    code: PhantomData<Z>,
}

impl<Z: Code, C: Compute> AffineOp for DequantizeOp<Z, C> {
    type Scale = C;
    type Op = Dequantizer<Z, C>;
    #[inline(always)]
    fn with_params(self, scale: C, zero_point: i32) -> Dequantizer<Z, C> {
        Dequantizer { scale, zero_point, code: PhantomData }
    }
}

impl<Z: Code, C: Compute> ElementwiseOp for Dequantizer<Z, C> {
    type In = Z;
    type Out = C;
    const PER_ISA: bool = per_isa::<Z, C>();
    #[inline(always)]
    fn eval(self, code: Z) -> C {
        dequantize(code, self.zero_point, self.scale)
    }
}

#[derive(Clone, Copy)]
pub(super) struct FakeQuantizeOp<Z, C, R> {
    pub(super) codes: Codes,
    pub(super) types: PhantomData<(Z, C, R)>,
}

#[derive(Clone, Copy)]
pub(super) struct FakeQuantizer<Z, C, R> {
    quantizer: Quantizer<Z, C, R>,
    dequantizer: Dequantizer<Z, C>,
}

impl<Z: Code, C: Compute, R: Rounding> AffineOp for FakeQuantizeOp<Z, C, R> {
    type Scale = C;
    type Op = FakeQuantizer<Z, C, R>;
    #[inline(always)]
    fn with_params(self, scale: C, zero_point: i32) -> FakeQuantizer<Z, C, R> {
        FakeQuantizer {
            quantizer: Quantizer::new(scale, zero_point, self.codes),
            dequantizer: DequantizeOp(PhantomData).with_params(scale, zero_point),
        }
    }
}

impl<Z: Code, C: Compute, R: Rounding> ElementwiseOp for FakeQuantizer<Z, C, R> {
    type In = C;
    type Out = C;
    const PER_ISA: bool = per_isa::<Z, C>();
    #[inline(always)]
    fn eval(self, x: C) -> C {
        self.dequantizer.eval(self.quantizer.quantize(x))
    }
}
