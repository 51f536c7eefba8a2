//! Plain Rust, for targets without a file of their own.

use core::array::from_fn;

use super::vector::vector_methods;
use super::{Fma, Target, Task, Vector, multiply_i16};
use crate::element::Compute;

/// Four elements, which compilers vectorize where the target has registers for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Portable;

impl Target for Portable {
    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        task.run()
    }
}

type I = [i32; 4];
type F = [f32; 4];

#[inline(always)]
fn zip<T: Copy, U: Copy, const N: usize>(a: [T; N], b: [T; N], f: impl Fn(T, T) -> U) -> [U; N] {
    from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn bytes(x: I) -> [u8; 16] {
    from_fn(|i| x[i / 4].to_le_bytes()[i % 4])
}

#[inline(always)]
fn of_bytes(x: [u8; 16]) -> I {
    from_fn(|i| i32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
}

#[inline(always)]
fn halves(x: I) -> [i16; 8] {
    from_fn(|i| (x[i / 2] >> (16 * (i % 2))) as i16)
}

#[inline(always)]
fn of_halves(x: [i16; 8]) -> I {
    from_fn(|i| (x[2 * i] as u16 as i32) | (x[2 * i + 1] as i32) << 16)
}

/// Interleaves half of two arrays, from element `first` on.
#[inline(always)]
fn interleaved<T: Copy, const N: usize>(a: [T; N], b: [T; N], first: usize) -> [T; N] {
    from_fn(|i| if i % 2 == 0 { a[first + i / 2] } else { b[first + i / 2] })
}

// SAFETY: plain Rust runs on every machine.
unsafe impl Vector for Portable {
    type I32 = I;
    type F32 = F;
    const LANES: usize = 4;

    vector_methods! {
        safe {
            fn splat(x: i32) -> I = [x; 4];
            fn splat_f32(x: f32) -> F = [x; 4];
            fn add(a: I, b: I) -> I = zip(a, b, i32::wrapping_add);
            fn sub(a: I, b: I) -> I = zip(a, b, i32::wrapping_sub);
            fn mul(a: I, b: I) -> I = zip(a, b, i32::wrapping_mul);
            fn xor(a: I, b: I) -> I = zip(a, b, |a, b| a ^ b);
            fn and(a: I, b: I) -> I = zip(a, b, |a, b| a & b);
            fn shift_right(x: I, bits: i32) -> I = x.map(|x| (x as u32 >> bits) as i32);
            fn multiply_add_i16(a: I, b: I) -> I =
                zip(a, b, |a, b| (a as i16 as i32 * b as i16 as i32).wrapping_add((a >> 16) * (b >> 16)));
            fn multiply_add_i8(a: I, b: I) -> I = {
                let (a, b) = (bytes(a), bytes(b).map(|b| b as i8));
                let product = |i: usize| (a[i] as i16).wrapping_mul(b[i] as i16);
                of_halves(from_fn(|i| product(2 * i).wrapping_add(product(2 * i + 1))))
            };
            fn add_saturating_i16(a: I, b: I) -> I = of_halves(zip(halves(a), halves(b), i16::saturating_add));
            fn pack_i16(a: I, b: I) -> I =
                of_halves(from_fn(|i| (if i < 4 { a[i] } else { b[i - 4] }).clamp(-0x8000, 0x7fff) as i16));
            fn pack_u8(a: I, b: I) -> I = {
                let (a, b) = (halves(a), halves(b));
                of_bytes(from_fn(|i| (if i < 8 { a[i] } else { b[i - 8] }).clamp(0, 0xff) as u8))
            };
            fn min_u8(a: I, b: I) -> I = of_bytes(zip(bytes(a), bytes(b), u8::min));
            fn max_u8(a: I, b: I) -> I = of_bytes(zip(bytes(a), bytes(b), u8::max));
            fn even_u8(x: I) -> I = x.map(|x| x & 0x00ff_00ff);
            fn odd_u8(x: I) -> I = x.map(|x| x >> 8 & 0x00ff_00ff);
            fn even_i8(x: I) -> I = of_halves(halves(x).map(|x| x as i8 as i16));
            fn odd_i8(x: I) -> I = of_halves(halves(x).map(|x| x >> 8));
            fn unpack_low_i8(a: I, b: I) -> I = of_bytes(interleaved(bytes(a), bytes(b), 0));
            fn unpack_high_i8(a: I, b: I) -> I = of_bytes(interleaved(bytes(a), bytes(b), 8));
            fn unpack_low_i16(a: I, b: I) -> I = of_halves(interleaved(halves(a), halves(b), 0));
            fn unpack_high_i16(a: I, b: I) -> I = of_halves(interleaved(halves(a), halves(b), 4));
            fn transpose_groups(x: I) -> I = x;
            fn transpose_to_groups(x: I) -> I = x;
            fn to_f32(x: I) -> F = x.map(|x| x as f32);
            fn round(x: F) -> I = x.map(|x| Compute::round_ties_even(x) as i32);
            fn round_ties_away(x: F) -> I = x.map(|x| Compute::round_ties_away(x) as i32);
            fn add_f32(a: F, b: F) -> F = zip(a, b, |a, b| a + b);
            fn mul_f32(a: F, b: F) -> F = zip(a, b, |a, b| a * b);
            fn mul_add(fma: Fma, a: F, b: F, c: F) -> F = from_fn(|i| fma.mul_add(a[i], b[i], c[i]));
            fn any_nan(a: F, b: F) -> bool = a.iter().chain(&b).any(|x| x.is_nan());
            fn max_f32(a: F, b: F) -> F = zip(a, b, |a, b| if a > b { a } else { b });
            fn min_f32(a: F, b: F) -> F = zip(a, b, |a, b| if a < b { a } else { b });
            fn prefetch(_address: *const u8) -> () = ();
        }
        unsafe {
            fn load(from: *const u8) -> I = from.cast::<I>().read_unaligned();
            fn load_i8_as_i16(from: *const u8) -> I = of_halves(from.cast::<[i8; 8]>().read_unaligned().map(i16::from));
            fn store(to: *mut u8, x: I) = to.cast::<I>().write_unaligned(x);
            fn store_half<const PART>(to: *mut u8, x: I) =
                to.cast::<[i32; 2]>().write_unaligned(if PART == 0 { [x[0], x[1]] } else { [x[2], x[3]] });
            fn store_quarter<const PART>(to: *mut u8, x: I) = to.cast::<i32>().write_unaligned(x[PART as usize]);
            fn load_f32(from: *const f32) -> F = from.cast::<F>().read_unaligned();
            fn store_f32(to: *mut f32, x: F) = to.cast::<F>().write_unaligned(x);
        }
    }
}

multiply_i16!(Portable, MR = 4);
