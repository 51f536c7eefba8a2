//! Plain Rust, for targets without a file of their own.

use super::{Target, Task, Vector, multiply_i16};

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
    core::array::from_fn(|i| f(a[i], b[i]))
}

#[inline(always)]
fn bytes(x: I) -> [u8; 16] {
    core::array::from_fn(|i| x[i / 4].to_le_bytes()[i % 4])
}

#[inline(always)]
fn of_bytes(x: [u8; 16]) -> I {
    core::array::from_fn(|i| i32::from_le_bytes([x[4 * i], x[4 * i + 1], x[4 * i + 2], x[4 * i + 3]]))
}

#[inline(always)]
fn halves(x: I) -> [i16; 8] {
    core::array::from_fn(|i| (x[i / 2] >> (16 * (i % 2))) as i16)
}

#[inline(always)]
fn of_halves(x: [i16; 8]) -> I {
    core::array::from_fn(|i| (x[2 * i] as u16 as i32) | (x[2 * i + 1] as i32) << 16)
}

// SAFETY: plain Rust runs on every machine.
unsafe impl Vector for Portable {
    type I32 = I;
    type F32 = F;
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(self, x: i32) -> I {
        [x; 4]
    }
    #[inline(always)]
    fn splat_f32(self, x: f32) -> F {
        [x; 4]
    }
    #[inline(always)]
    fn add(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn mul(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_mul)
    }
    #[inline(always)]
    fn xor(self, a: I, b: I) -> I {
        zip(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    fn multiply_add_i16(self, a: I, b: I) -> I {
        zip(a, b, |a, b| {
            let low = (a as i16 as i32) * (b as i16 as i32);
            low.wrapping_add((a >> 16) * (b >> 16))
        })
    }
    #[inline(always)]
    fn add_saturating_i16(self, a: I, b: I) -> I {
        of_halves(zip(halves(a), halves(b), i16::saturating_add))
    }
    #[inline(always)]
    fn pack_i16(self, a: I, b: I) -> I {
        of_halves(core::array::from_fn(|i| (if i < 4 { a[i] } else { b[i - 4] }).clamp(-0x8000, 0x7fff) as i16))
    }
    #[inline(always)]
    fn pack_u8(self, a: I, b: I) -> I {
        let (a, b) = (halves(a), halves(b));
        of_bytes(core::array::from_fn(|i| (if i < 8 { a[i] } else { b[i - 8] }).clamp(0, 0xff) as u8))
    }
    #[inline(always)]
    fn min_u8(self, a: I, b: I) -> I {
        of_bytes(zip(bytes(a), bytes(b), u8::min))
    }
    #[inline(always)]
    fn max_u8(self, a: I, b: I) -> I {
        of_bytes(zip(bytes(a), bytes(b), u8::max))
    }
    #[inline(always)]
    fn even_u8(self, x: I) -> I {
        x.map(|x| x & 0x00ff_00ff)
    }
    #[inline(always)]
    fn odd_u8(self, x: I) -> I {
        x.map(|x| x >> 8 & 0x00ff_00ff)
    }
    #[inline(always)]
    fn even_i8(self, x: I) -> I {
        of_halves(halves(x).map(|x| x as i8 as i16))
    }
    #[inline(always)]
    fn odd_i8(self, x: I) -> I {
        of_halves(halves(x).map(|x| x >> 8))
    }
    #[inline(always)]
    fn unpack_low_i8(self, a: I, b: I) -> I {
        let (a, b) = (bytes(a), bytes(b));
        of_bytes(core::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] }))
    }
    #[inline(always)]
    fn unpack_high_i8(self, a: I, b: I) -> I {
        let (a, b) = (bytes(a), bytes(b));
        of_bytes(core::array::from_fn(|i| if i % 2 == 0 { a[8 + i / 2] } else { b[8 + i / 2] }))
    }
    #[inline(always)]
    fn unpack_low_i16(self, a: I, b: I) -> I {
        let (a, b) = (halves(a), halves(b));
        of_halves(core::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] }))
    }
    #[inline(always)]
    fn unpack_high_i16(self, a: I, b: I) -> I {
        let (a, b) = (halves(a), halves(b));
        of_halves(core::array::from_fn(|i| if i % 2 == 0 { a[4 + i / 2] } else { b[4 + i / 2] }))
    }
    #[inline(always)]
    fn transpose_groups(self, x: I) -> I {
        x
    }
    #[inline(always)]
    fn transpose_to_groups(self, x: I) -> I {
        x
    }
    #[inline(always)]
    fn to_f32(self, x: I) -> F {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    fn round(self, x: F) -> I {
        x.map(|x| crate::element::Compute::round_ties_even(x) as i32)
    }
    #[inline(always)]
    fn add_f32(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn mul_f32(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn max_f32(self, a: F, b: F) -> F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min_f32(self, a: F, b: F) -> F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn load(self, from: *const u8) -> I {
        // SAFETY: the caller promises a register.
        unsafe { from.cast::<I>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_i8_as_i16(self, from: *const u8) -> I {
        // SAFETY: the caller promises eight bytes.
        of_halves(unsafe { from.cast::<[i8; 8]>().read_unaligned() }.map(i16::from))
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut u8, x: I) {
        // SAFETY: the caller promises a register.
        unsafe { to.cast::<I>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn store_half<const PART: i32>(self, to: *mut u8, x: I) {
        let at = 2 * PART as usize;
        // SAFETY: the caller promises eight bytes.
        unsafe { to.cast::<[i32; 2]>().write_unaligned([x[at], x[at + 1]]) }
    }
    #[inline(always)]
    unsafe fn store_quarter<const PART: i32>(self, to: *mut u8, x: I) {
        // SAFETY: the caller promises four bytes.
        unsafe { to.cast::<i32>().write_unaligned(x[PART as usize]) }
    }
    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> F {
        // SAFETY: the caller promises a register.
        unsafe { from.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_f32(self, to: *mut f32, x: F) {
        // SAFETY: the caller promises a register.
        unsafe { to.cast::<F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> F {
        // SAFETY: the caller promises four numbers.
        unsafe { from.cast::<[u16; 4]>().read_unaligned() }.map(|x| half::f16::from_bits(x).to_f32())
    }
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, x: F) {
        // SAFETY: the caller promises four numbers.
        unsafe { to.cast::<[u16; 4]>().write_unaligned(x.map(|x| half::f16::from_f32(x).to_bits())) }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}
}

multiply_i16!(Portable, MR = 4);
