//! Quantize, dequantize and fake-quantize as elementwise operators.

use core::marker::PhantomData;

use crate::affine::{ByteDequantizer, Codes, FakeQuantizer, Quantizer, ReciprocalQuantizer, Rounding, dequantize};
use crate::element::{Code, Compute};
use crate::simd::Fma;

/// An elementwise operator with a scale and a zero point for each block.
pub(super) trait AffineOp: Copy {
    type In: Copy + Default;
    type Out: Copy + Default;
    type Scale: Compute;
    /// What [`Self::eval`] needs of the parameters of a block.
    type Params: Copy;
    /// True if loops are compiled for each instruction set: `f32` and codes of at most 16 bits.
    const PER_ISA: bool;
    /// Must be `#[inline(always)]`, as [`Self::eval`].
    fn prepare(self, scale: Self::Scale, zero_point: i32) -> Self::Params;
    fn eval(params: Self::Params, x: Self::In) -> Self::Out;

    /// Evaluates a chunk in one block.
    #[inline(always)]
    fn eval_chunk<const N: usize>(params: Self::Params, &x: &[Self::In; N]) -> [Self::Out; N] {
        let mut chunk = [Self::Out::default(); N];
        for i in 0..N {
            chunk[i] = Self::eval(params, x[i]);
        }
        chunk
    }
}

/// [`AffineOp::eval_chunk`] of operators that quantize, in two steps.
macro_rules! eval_in_two_steps {
    () => {
        #[inline(always)]
        fn eval_chunk<const N: usize>(params: Self::Params, &x: &[Self::In; N]) -> [Self::Out; N] {
            let (mut wide, mut chunk) = ([0; N], [Self::Out::default(); N]);
            for i in 0..N {
                wide[i] = params.wide(x[i]);
            }
            for i in 0..N {
                chunk[i] = params.narrow(wide[i]);
            }
            chunk
        }
    };
}

const fn per_isa<Z: Code, C>() -> bool {
    size_of::<C>() == 4 && !Z::WIDE
}

#[derive(Clone, Copy)]
pub(super) struct QuantizeOp<Z, C, R>(pub(super) Codes, pub(super) PhantomData<(Z, C, R)>);

impl<Z: Code, C: Compute, R: Rounding> AffineOp for QuantizeOp<Z, C, R> {
    type In = C;
    type Out = Z;
    type Scale = C;
    type Params = Quantizer<Z, C, R>;
    const PER_ISA: bool = per_isa::<Z, C>();
    #[inline(always)]
    fn prepare(self, scale: C, zero_point: i32) -> Self::Params {
        Quantizer::new(scale, zero_point, self.0)
    }
    #[inline(always)]
    fn eval(params: Self::Params, x: C) -> Z {
        params.quantize(x)
    }
    eval_in_two_steps!();
}

/// [`QuantizeOp`] to bytes without a division.
#[derive(Clone, Copy)]
pub(super) struct ReciprocalOp<R>(pub(super) Codes, pub(super) Fma, pub(super) PhantomData<R>);

impl<R: Rounding> AffineOp for ReciprocalOp<R> {
    type In = f32;
    type Out = u8;
    type Scale = f32;
    type Params = ReciprocalQuantizer<R>;
    const PER_ISA: bool = true;
    #[inline(always)]
    fn prepare(self, scale: f32, zero_point: i32) -> Self::Params {
        ReciprocalQuantizer::new(scale, zero_point, self.0, self.1)
    }
    #[inline(always)]
    fn eval(params: Self::Params, x: f32) -> u8 {
        params.narrow(params.wide(x))
    }
    eval_in_two_steps!();
}

/// Dequantizes codes of more than a byte.
#[derive(Clone, Copy)]
pub(super) struct DequantizeOp<Z, C>(pub(super) PhantomData<(Z, C)>);

impl<Z: Code, C: Compute> AffineOp for DequantizeOp<Z, C> {
    type In = Z;
    type Out = C;
    type Scale = C;
    type Params = (C, i32);
    const PER_ISA: bool = per_isa::<Z, C>();
    #[inline(always)]
    fn prepare(self, scale: C, zero_point: i32) -> Self::Params {
        (scale, zero_point)
    }
    #[inline(always)]
    fn eval((scale, zero_point): Self::Params, code: Z) -> C {
        dequantize(code, zero_point, scale)
    }
}

/// Dequantizes the bits of 8-bit codes.
#[derive(Clone, Copy)]
pub(super) struct DequantizeByteOp<C> {
    pub(super) signed: bool,
    pub(super) compute: PhantomData<C>,
}

impl<C: Compute> AffineOp for DequantizeByteOp<C> {
    type In = u8;
    type Out = C;
    type Scale = C;
    type Params = ByteDequantizer<C>;
    const PER_ISA: bool = per_isa::<u8, C>();
    #[inline(always)]
    fn prepare(self, scale: C, zero_point: i32) -> Self::Params {
        ByteDequantizer::new(scale, zero_point, self.signed)
    }
    #[inline(always)]
    fn eval(params: Self::Params, byte: u8) -> C {
        params.dequantize(byte)
    }
}

/// Fake-quantizes to codes of at most 16 bits.
#[derive(Clone, Copy)]
pub(super) struct FakeQuantizeOp<C, R>(pub(super) Codes, pub(super) PhantomData<(C, R)>);

impl<C: Compute, R: Rounding> AffineOp for FakeQuantizeOp<C, R> {
    type In = C;
    type Out = C;
    type Scale = C;
    type Params = FakeQuantizer<C, R>;
    const PER_ISA: bool = size_of::<C>() == 4;
    #[inline(always)]
    fn prepare(self, scale: C, zero_point: i32) -> Self::Params {
        FakeQuantizer::new(scale, zero_point, self.0)
    }
    #[inline(always)]
    fn eval(params: Self::Params, x: C) -> C {
        params.value(x)
    }
}

/// Fake-quantizes to wide codes.
#[derive(Clone, Copy)]
pub(super) struct FakeQuantizeWideOp<Z, C, R>(pub(super) QuantizeOp<Z, C, R>);

impl<Z: Code, C: Compute, R: Rounding> AffineOp for FakeQuantizeWideOp<Z, C, R> {
    type In = C;
    type Out = C;
    type Scale = C;
    type Params = (Quantizer<Z, C, R>, C, i32);
    const PER_ISA: bool = false;
    #[inline(always)]
    fn prepare(self, scale: C, zero_point: i32) -> Self::Params {
        (self.0.prepare(scale, zero_point), scale, zero_point)
    }
    #[inline(always)]
    fn eval((quantizer, scale, zero_point): Self::Params, x: C) -> C {
        dequantize(quantizer.quantize(x), zero_point, scale)
    }
}
