//! NEON (Advanced SIMD).

use core::arch::aarch64::*;
use core::arch::asm;

use vreinterpretq_s16_s32 as i16s;
use vreinterpretq_s32_s16 as of_i16s;
use vreinterpretq_s32_u8 as of_u8s;
use vreinterpretq_u8_s32 as u8s;

use crate::simd::vector::vector_methods;
use crate::simd::{Fma, Gemm, Target, Task, Vector, small_i16};

/// NEON, with the features that the target has anyway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Neon;

impl Target for Neon {
    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        task.run()
    }
}

type I = int32x4_t;
type F = float32x4_t;

// SAFETY: the target has NEON.
unsafe impl Vector for Neon {
    type I32 = I;
    type F32 = F;
    const LANES: usize = 4;

    vector_methods! {
        safe {
            fn splat(x: i32) -> I = vdupq_n_s32(x);
            fn splat_f32(x: f32) -> F = vdupq_n_f32(x);
            fn add(a: I, b: I) -> I = vaddq_s32(a, b);
            fn sub(a: I, b: I) -> I = vsubq_s32(a, b);
            fn mul(a: I, b: I) -> I = vmulq_s32(a, b);
            fn xor(a: I, b: I) -> I = veorq_s32(a, b);
            fn and(a: I, b: I) -> I = vandq_s32(a, b);
            fn shift_right(x: I, bits: i32) -> I =
                vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(x), vdupq_n_s32(-bits)));
            fn multiply_add_i16(a: I, b: I) -> I = {
                let (a, b) = (i16s(a), i16s(b));
                vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b))
            };
            fn multiply_add_i8(a: I, b: I) -> I = {
                let (a, b) = (vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
                of_i16s(vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b)))
            };
            fn add_saturating_i16(a: I, b: I) -> I = of_i16s(vqaddq_s16(i16s(a), i16s(b)));
            fn pack_i16(a: I, b: I) -> I = of_i16s(vqmovn_high_s32(vqmovn_s32(a), b));
            fn pack_u8(a: I, b: I) -> I = of_u8s(vqmovun_high_s16(vqmovun_s16(i16s(a)), i16s(b)));
            fn count_ones_u8(x: I) -> I = of_u8s(vcntq_u8(u8s(x)));
            fn min_u8(a: I, b: I) -> I = of_u8s(vminq_u8(u8s(a), u8s(b)));
            fn max_u8(a: I, b: I) -> I = of_u8s(vmaxq_u8(u8s(a), u8s(b)));
            fn even_u8(x: I) -> I = vandq_s32(x, vdupq_n_s32(0x00ff_00ff));
            fn odd_u8(x: I) -> I = vreinterpretq_s32_u16(vshrq_n_u16::<8>(vreinterpretq_u16_s32(x)));
            fn even_i8(x: I) -> I = of_i16s(vshrq_n_s16::<8>(vshlq_n_s16::<8>(i16s(x))));
            fn odd_i8(x: I) -> I = of_i16s(vshrq_n_s16::<8>(i16s(x)));
            fn unpack_low_i8(a: I, b: I) -> I = of_u8s(vzip1q_u8(u8s(a), u8s(b)));
            fn unpack_high_i8(a: I, b: I) -> I = of_u8s(vzip2q_u8(u8s(a), u8s(b)));
            fn unpack_low_i16(a: I, b: I) -> I = of_i16s(vzip1q_s16(i16s(a), i16s(b)));
            fn unpack_high_i16(a: I, b: I) -> I = of_i16s(vzip2q_s16(i16s(a), i16s(b)));
            fn transpose_groups(x: I) -> I = x;
            fn transpose_to_groups(x: I) -> I = x;
            fn to_f32(x: I) -> F = vcvtq_f32_s32(x);
            fn round(x: F) -> I = vcvtnq_s32_f32(x);
            fn round_ties_away(x: F) -> I = vcvtaq_s32_f32(x);
            fn add_f32(a: F, b: F) -> F = vaddq_f32(a, b);
            fn mul_f32(a: F, b: F) -> F = vmulq_f32(a, b);
            fn mul_add(_fma: Fma, a: F, b: F, c: F) -> F = vfmaq_f32(c, a, b);
            fn any_nan(a: F, b: F) -> bool = vminvq_u32(vandq_u32(vceqq_f32(a, a), vceqq_f32(b, b))) == 0;
            // `fmax` and `fmin` have other results for zeros and NaN.
            fn max_f32(a: F, b: F) -> F = vbslq_f32(vcgtq_f32(a, b), a, b);
            fn min_f32(a: F, b: F) -> F = vbslq_f32(vcltq_f32(a, b), a, b);
            fn prefetch(_address: *const u8) -> () = ();
        }
        unsafe {
            fn load(from: *const u8) -> I = of_u8s(vld1q_u8(from));
            fn load_i8_as_i16(from: *const u8) -> I = of_i16s(vmovl_s8(vld1_s8(from.cast())));
            fn store(to: *mut u8, x: I) = vst1q_u8(to, u8s(x));
            fn store_half<const PART>(to: *mut u8, x: I) = {
                let x = u8s(x);
                vst1_u8(to, if PART == 0 { vget_low_u8(x) } else { vget_high_u8(x) })
            };
            fn store_quarter<const PART>(to: *mut u8, x: I) = to.cast::<i32>().write_unaligned(vgetq_lane_s32::<PART>(x));
            fn load_f32(from: *const f32) -> F = vld1q_f32(from);
            fn store_f32(to: *mut f32, x: F) = vst1q_f32(to, x);
            // The intrinsics take `f16`, which is not stable.
            fn load_f16(from: *const u16) -> F = {
                let wide: F;
                asm!("fcvtl {wide:v}.4s, {x:v}.4h", wide = lateout(vreg) wide, x = in(vreg) vld1_u16(from),
                    options(pure, nomem, nostack, preserves_flags));
                wide
            };
            fn store_f16(to: *mut u16, x: F) = {
                let narrow: uint16x4_t;
                asm!("fcvtn {narrow:v}.4h, {x:v}.4s", narrow = lateout(vreg) narrow, x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags));
                vst1_u16(to, narrow)
            };
        }
    }
}

/// Codes widened to 16 bits and multiplied by element: `smlal` takes four columns of one depth.
impl Gemm for Neon {
    type V = Self;
    /// The even and the odd bytes.
    type Weights = [I; 2];
    const MR: usize = 8;
    const KR: usize = 2;
    const INTERLEAVED: bool = false;
    const BY_ELEMENT: bool = true;
    const AHEAD: usize = 0;
    small_i16!(Self);

    #[inline(always)]
    fn vector(self) -> Self {
        self
    }

    #[inline(always)]
    unsafe fn load_rhs(self, from: *const u8) -> I {
        // SAFETY: the caller promises a unit of each column.
        unsafe { self.load_i8_as_i16(from) }
    }

    #[inline(always)]
    fn dot<const UNIT: i32>(self, acc: I, a: I, b: I) -> I {
        // SAFETY: the target has NEON.
        unsafe {
            let (a, b) = (i16s(a), i16s(b));
            let low = vget_low_s16(b);
            match UNIT {
                0 => vmlal_high_laneq_s16::<1>(vmlal_laneq_s16::<0>(acc, low, a), b, a),
                1 => vmlal_high_laneq_s16::<3>(vmlal_laneq_s16::<2>(acc, low, a), b, a),
                2 => vmlal_high_laneq_s16::<5>(vmlal_laneq_s16::<4>(acc, low, a), b, a),
                _ => vmlal_high_laneq_s16::<7>(vmlal_laneq_s16::<6>(acc, low, a), b, a),
            }
        }
    }

    #[inline(always)]
    fn weights(self, bytes: I) -> [I; 2] {
        [self.even_i8(bytes), self.odd_i8(bytes)]
    }

    #[inline(always)]
    fn dot4(self, acc: I, codes: I, weights: [I; 2]) -> I {
        // SAFETY: the target has NEON.
        unsafe {
            let [even, odd] = [i16s(self.even_u8(codes)), i16s(self.odd_u8(codes))];
            let weights = [i16s(weights[0]), i16s(weights[1])];
            let low = vmull_s16(vget_low_s16(even), vget_low_s16(weights[0]));
            let low = vmlal_s16(low, vget_low_s16(odd), vget_low_s16(weights[1]));
            let high = vmlal_high_s16(vmull_high_s16(even, weights[0]), odd, weights[1]);
            vaddq_s32(acc, vpaddq_s32(low, high))
        }
    }
}
