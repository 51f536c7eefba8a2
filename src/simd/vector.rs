//! SIMD registers: the operations that the generic kernels are written in.
#![allow(unsafe_code, reason = "a trait whose methods read and write memory")]

use super::{Fma, Target};

/// The registers of an instruction set.
///
/// Everything generic over a `Vector` must be `#[inline(always)]` and reached through [`Target::run`], so that it is
/// compiled for the instruction set.
///
/// Bytes and 16-bit integers live in registers of `i32`, in little-endian order. A *group* is 128 bits of a register:
/// packing and unpacking work within groups, as they do on x86.
///
/// # Safety
/// - A value can be made only on a machine that has the instruction set.
pub unsafe trait Vector: Target {
    /// `LANES` integers of 32 bits, or the bytes in them.
    type I32: Copy;
    /// `LANES` floats.
    type F32: Copy;
    /// 32-bit elements of a register.
    const LANES: usize;

    fn splat(self, x: i32) -> Self::I32;
    fn splat_f32(self, x: f32) -> Self::F32;

    /// Sums, differences and products wrap.
    fn add(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn sub(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn mul(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn xor(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn and(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Shifts zeros in. `bits` is 0 to 31.
    fn shift_right(self, x: Self::I32, bits: i32) -> Self::I32;

    /// Multiplies 16-bit integers and adds neighbours: `i32` sums of two products each.
    fn multiply_add_i16(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Multiplies bytes of 0 to 127 by signed bytes and adds neighbours: 16-bit sums of two products each, which always fit.
    fn multiply_add_i8(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Adds 16-bit integers with saturation.
    fn add_saturating_i16(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Saturates 32-bit integers to 16 bits: the groups of `a` and `b` in turn.
    fn pack_i16(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Saturates 16-bit integers to unsigned bytes: the groups of `a` and `b` in turn.
    fn pack_u8(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Counts the ones of each byte.
    #[inline(always)]
    fn count_ones_u8(self, x: Self::I32) -> Self::I32 {
        // Sums within fields of two, four and eight bits, none of which carries.
        let x = self.sub(x, self.and(self.shift_right(x, 1), self.splat(0x5555_5555)));
        let mask = self.splat(0x3333_3333);
        let x = self.add(self.and(x, mask), self.and(self.shift_right(x, 2), mask));
        self.and(self.add(x, self.shift_right(x, 4)), self.splat(0x0f0f_0f0f))
    }
    fn min_u8(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn max_u8(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// The even bytes as 16-bit integers, zero-extended.
    fn even_u8(self, x: Self::I32) -> Self::I32;
    /// The odd bytes as 16-bit integers, zero-extended.
    fn odd_u8(self, x: Self::I32) -> Self::I32;
    /// The even bytes as 16-bit integers, sign-extended.
    fn even_i8(self, x: Self::I32) -> Self::I32;
    /// The odd bytes as 16-bit integers, sign-extended.
    fn odd_i8(self, x: Self::I32) -> Self::I32;

    /// Interleaves the bytes of the lower halves of groups.
    fn unpack_low_i8(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn unpack_high_i8(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn unpack_low_i16(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn unpack_high_i16(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// Transposes the matrix of 32-bit elements whose rows are the groups: `[LANES / 4][4]` to `[4][LANES / 4]`. After
    /// four registers were packed to bytes, this puts the bytes of each side by side.
    fn transpose_groups(self, x: Self::I32) -> Self::I32;
    /// The inverse of [`transpose_groups`](Self::transpose_groups).
    fn transpose_to_groups(self, x: Self::I32) -> Self::I32;

    fn to_f32(self, x: Self::I32) -> Self::F32;
    /// Rounds to integers, ties to even. Numbers below `i32` become `i32::MIN`; from `2^31` on, and of NaN, the result is
    /// unspecified.
    fn round(self, x: Self::F32) -> Self::I32;
    /// Same as [`round`](Self::round), ties away from zero.
    fn round_ties_away(self, x: Self::F32) -> Self::I32;
    fn add_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// Returns `a * b + c`, rounded once.
    fn mul_add(self, fma: Fma, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// Returns whether a number of either register is NaN.
    fn any_nan(self, a: Self::F32, b: Self::F32) -> bool;
    /// `if a > b { a } else { b }`
    fn max_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `if a < b { a } else { b }`
    fn min_f32(self, a: Self::F32, b: Self::F32) -> Self::F32;

    /// # Safety
    /// - `from` is valid for reads of a register. It need not be aligned.
    unsafe fn load(self, from: *const u8) -> Self::I32;
    /// Loads `2 * LANES` signed bytes as 16-bit integers.
    ///
    /// # Safety
    /// - `from` is valid for reads of `2 * LANES` bytes.
    unsafe fn load_i8_as_i16(self, from: *const u8) -> Self::I32;
    /// # Safety
    /// - `to` is valid for writes of a register. It need not be aligned.
    unsafe fn store(self, to: *mut u8, x: Self::I32);
    /// Stores half of a register.
    ///
    /// # Safety
    /// - `PART` is 0 or 1, and `to` is valid for writes of `2 * LANES` bytes.
    unsafe fn store_half<const PART: i32>(self, to: *mut u8, x: Self::I32);
    /// Stores a quarter of a register.
    ///
    /// # Safety
    /// - `PART` is 0 to 3, and `to` is valid for writes of `LANES` bytes.
    unsafe fn store_quarter<const PART: i32>(self, to: *mut u8, x: Self::I32);
    /// # Safety
    /// - `from` is valid for reads of `LANES` floats.
    unsafe fn load_f32(self, from: *const f32) -> Self::F32;
    /// # Safety
    /// - `to` is valid for writes of `LANES` floats.
    unsafe fn store_f32(self, to: *mut f32, x: Self::F32);
    /// Loads a register of half precision, number by number where the machine does not convert them.
    ///
    /// # Safety
    /// - `from` is valid for reads of them.
    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F32 {
        const { assert!(Self::LANES == 4) }
        // SAFETY: the caller promises a register of numbers.
        unsafe {
            let wide = from.cast::<[u16; 4]>().read_unaligned().map(|x| half::f16::from_bits(x).to_f32());
            self.load_f32(wide.as_ptr())
        }
    }
    /// Rounds to half precision, ties to even.
    ///
    /// # Safety
    /// - `to` is valid for writes of `LANES` numbers.
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16, x: Self::F32) {
        const { assert!(Self::LANES == 4) }
        let mut wide = [0.0; 4];
        // SAFETY: the caller promises a register of numbers.
        unsafe {
            self.store_f32(wide.as_mut_ptr(), x);
            to.cast::<[u16; 4]>().write_unaligned(wide.map(|x| half::f16::from_f32(x).to_bits()));
        }
    }
    /// Fetches a cache line, or does nothing. Any address will do.
    fn prefetch(self, address: *const u8);
}

/// Implements the methods of [`Vector`] by intrinsics: each method with its arguments, and an expression.
macro_rules! vector_methods {
    (
        safe { $(fn $safe:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $value:expr;)* }
        unsafe { $(fn $name:ident$(<const $part:ident>)?($($uarg:ident: $uty:ty),*) $(-> $uret:ty)? = $uvalue:expr;)* }
    ) => {
        $(
            #[inline(always)]
            #[allow(unused_unsafe, reason = "the baseline needs no token")]
            fn $safe(self, $($arg: $ty),*) -> $ret {
                // SAFETY: the token proves that the machine has the instructions, and no address can fault.
                unsafe { $value }
            }
        )*
        $(
            #[inline(always)]
            #[allow(unused_unsafe, reason = "the baseline needs no token")]
            unsafe fn $name$(<const $part: i32>)?(self, $($uarg: $uty),*) $(-> $uret)? {
                // SAFETY: the token proves that the machine has the instruction; the caller promises the memory.
                unsafe { $uvalue }
            }
        )*
    };
}
pub(super) use vector_methods;
