//! The formulas of [`affine`](crate::affine) as operators of loops.

use crate::affine::{Codes, Dequantizer, FakeQuantizer, Quantizer, Rounding};
use crate::element::{Code, Compute};

/// An elementwise operator with the scale and zero point of a block. All methods must be `#[inline(always)]`.
pub(super) trait AffineOp: Copy {
    type In: Copy + Default;
    type Out: Copy + Default;
    type Scale: Compute;
    /// What all blocks share.
    type Settings: Copy;
    /// True if loops are compiled for each instruction set: `f32` and codes of at most 16 bits.
    const PER_ISA: bool;
    fn new(scale: Self::Scale, zero_point: i32, settings: Self::Settings) -> Self;
    fn eval(self, x: Self::In) -> Self::Out;

    #[inline(always)]
    fn eval_chunk<const N: usize>(self, &x: &[Self::In; N]) -> [Self::Out; N] {
        let mut chunk = [Self::Out::default(); N];
        for i in 0..N {
            chunk[i] = self.eval(x[i]);
        }
        chunk
    }
}

const fn per_isa<Z: Code, C>() -> bool {
    size_of::<C>() == 4 && !Z::WIDE
}

/// The formula `$op` as an operator.
macro_rules! affine_op {
    ([$($generics:tt)*] $op:ty: $in:ty => $out:ty, $scale:ty, $settings:ty, $per_isa:expr, $eval:ident) => {
        impl<$($generics)*> AffineOp for $op {
            type In = $in;
            type Out = $out;
            type Scale = $scale;
            type Settings = $settings;
            const PER_ISA: bool = $per_isa;
            #[inline(always)]
            fn new(scale: $scale, zero_point: i32, settings: $settings) -> Self {
                <$op>::new(scale, zero_point, settings)
            }
            #[inline(always)]
            fn eval(self, x: $in) -> $out {
                self.$eval(x)
            }
        }
    };
}
affine_op!([Z: Code, C: Compute, R: Rounding] Quantizer<Z, C, R>: C => Z, C, Codes, per_isa::<Z, C>(), quantize);
affine_op!([Z: Code, C: Compute] Dequantizer<Z, C>: Z => C, C, (), per_isa::<Z, C>(), dequantize);
affine_op!([Z: Code, C: Compute, R: Rounding] FakeQuantizer<Z, C, R>: C => C, C, Codes, per_isa::<Z, C>(), value);
