//! SIMD of WebAssembly: `simd128`, and the dot product of `relaxed-simd` if the program is compiled for it.
//!
//! A program has one set: WebAssembly is validated as a whole before it runs, so there is nothing to detect.
//!
//! Relaxed instructions may differ between engines. The dot product of bytes does not if one operand is 0 to 127: so it
//! multiplies weights of few bits, and codes of 8 bits are widened.
#![allow(unsafe_code, reason = "intrinsics; the target has them")]

use core::arch::wasm32::*;

#[path = "one_set.rs"]
mod one_set;
#[path = "without_tiles.rs"]
mod without_tiles;

pub(crate) use one_set::*;

use super::vector::vector_methods;
use super::{Target, Task, Vector, multiply_i16};

const NAME: &str = if cfg!(target_feature = "relaxed-simd") { "relaxed-simd" } else { "simd128" };

pub(crate) use Simd128 as Baseline;

/// The instructions that the program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Simd128;

impl Target for Simd128 {
    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        task.run()
    }
}

type I = v128;
type F = v128;

/// [`Vector::multiply_add_i8`] without `relaxed-simd`.
#[cfg(any(test, not(target_feature = "relaxed-simd")))]
#[inline(always)]
fn widened_multiply_add_i8(a: I, b: I) -> I {
    let even = i16x8_mul(Simd128.even_u8(a), Simd128.even_i8(b));
    i16x8_add(even, i16x8_mul(Simd128.odd_u8(a), Simd128.odd_i8(b)))
}

// SAFETY: the target has these instructions.
unsafe impl Vector for Simd128 {
    type I32 = I;
    type F32 = F;
    const LANES: usize = 4;

    vector_methods! {
        safe {
            fn splat(x: i32) -> I = i32x4_splat(x);
            fn splat_f32(x: f32) -> F = f32x4_splat(x);
            fn add(a: I, b: I) -> I = i32x4_add(a, b);
            fn sub(a: I, b: I) -> I = i32x4_sub(a, b);
            fn mul(a: I, b: I) -> I = i32x4_mul(a, b);
            fn xor(a: I, b: I) -> I = v128_xor(a, b);
            fn and(a: I, b: I) -> I = v128_and(a, b);
            fn shift_right(x: I, bits: i32) -> I = u32x4_shr(x, bits as u32);
            fn multiply_add_i16(a: I, b: I) -> I = i32x4_dot_i16x8(a, b);
            fn multiply_add_i8(a: I, b: I) -> I = {
                #[cfg(target_feature = "relaxed-simd")]
                let sums = i16x8_relaxed_dot_i8x16_i7x16(b, a);
                #[cfg(not(target_feature = "relaxed-simd"))]
                let sums = widened_multiply_add_i8(a, b);
                sums
            };
            fn add_saturating_i16(a: I, b: I) -> I = i16x8_add_sat(a, b);
            fn pack_i16(a: I, b: I) -> I = i16x8_narrow_i32x4(a, b);
            fn pack_u8(a: I, b: I) -> I = u8x16_narrow_i16x8(a, b);
            fn count_ones_u8(x: I) -> I = i8x16_popcnt(x);
            fn min_u8(a: I, b: I) -> I = u8x16_min(a, b);
            fn max_u8(a: I, b: I) -> I = u8x16_max(a, b);
            fn even_u8(x: I) -> I = v128_and(x, i16x8_splat(0xff));
            fn odd_u8(x: I) -> I = u16x8_shr(x, 8);
            fn even_i8(x: I) -> I = i16x8_shr(i16x8_shl(x, 8), 8);
            fn odd_i8(x: I) -> I = i16x8_shr(x, 8);
            fn unpack_low_i8(a: I, b: I) -> I =
                i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b);
            fn unpack_high_i8(a: I, b: I) -> I =
                i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b);
            fn unpack_low_i16(a: I, b: I) -> I = i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(a, b);
            fn unpack_high_i16(a: I, b: I) -> I = i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(a, b);
            fn transpose_groups(x: I) -> I = x;
            fn transpose_to_groups(x: I) -> I = x;
            fn to_f32(x: I) -> F = f32x4_convert_i32x4(x);
            fn round(x: F) -> I = i32x4_trunc_sat_f32x4(f32x4_nearest(x));
            // With 1/2, the sum of the float below a tie would round up to an integer.
            fn round_ties_away(x: F) -> I = {
                let sign = v128_and(x, f32x4_splat(-0.0));
                i32x4_trunc_sat_f32x4(f32x4_add(x, v128_or(sign, f32x4_splat(0.5f32.next_down()))))
            };
            fn add_f32(a: F, b: F) -> F = f32x4_add(a, b);
            fn mul_f32(a: F, b: F) -> F = f32x4_mul(a, b);
            fn mul_add(fma: Fma, _a: F, _b: F, _c: F) -> F = match fma.0 {};
            fn any_nan(a: F, b: F) -> bool = v128_any_true(v128_or(f32x4_ne(a, a), f32x4_ne(b, b)));
            // `pmax(x, y)` is `if x < y { y } else { x }`.
            fn max_f32(a: F, b: F) -> F = f32x4_pmax(b, a);
            fn min_f32(a: F, b: F) -> F = f32x4_pmin(b, a);
            fn prefetch(_address: *const u8) -> () = ();
        }
        unsafe {
            fn load(from: *const u8) -> I = v128_load(from.cast());
            fn load_i8_as_i16(from: *const u8) -> I = i16x8_load_extend_i8x8(from.cast());
            fn store(to: *mut u8, x: I) = v128_store(to.cast(), x);
            fn store_half<const PART>(to: *mut u8, x: I) =
                to.cast::<i64>().write_unaligned(if PART == 0 { i64x2_extract_lane::<0>(x) } else { i64x2_extract_lane::<1>(x) });
            fn store_quarter<const PART>(to: *mut u8, x: I) = to.cast::<i32>().write_unaligned(match PART {
                0 => i32x4_extract_lane::<0>(x),
                1 => i32x4_extract_lane::<1>(x),
                2 => i32x4_extract_lane::<2>(x),
                _ => i32x4_extract_lane::<3>(x),
            });
            fn load_f32(from: *const f32) -> F = v128_load(from.cast());
            fn store_f32(to: *mut f32, x: F) = v128_store(to.cast(), x);
        }
    }
}

multiply_i16!(Simd128, MR = 4);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of bytes, beside a pair of the greatest product, with and without `relaxed-simd`.
    #[test]
    fn sums_of_two_products_of_bytes_equal_the_formula() {
        for (x, y, place) in (0..=127u8).flat_map(|x| (-128..=127i8).map(move |y| (x, y, usize::from(x) % 2))) {
            // The neighbour has the greatest product, so that sums reach both ends of their range.
            let (other, expected) = if y < 0 { (-128, -128 * 127) } else { (127, 127 * 127) };
            let expected = (i16::from(x) * i16::from(y) + expected).to_le_bytes();
            let (mut a, mut b) = ([127u8; 2], [other; 2]);
            (a[place], b[place]) = (x, y);
            let splat = |bytes: [u8; 2]| i16x8_splat(i16::from_le_bytes(bytes));
            let (a, b) = (splat(a), splat(b.map(|b| b as u8)));
            for found in [Simd128.multiply_add_i8(a, b), widened_multiply_add_i8(a, b)] {
                assert!(i16x8_all_true(i16x8_eq(found, splat(expected))), "{x} times {y}");
            }
        }
    }
}
