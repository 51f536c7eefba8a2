//! Element types of codes: range, width and storage.

use core::fmt::Debug;

use ndarray::{Array, CowArray, Dimension};

use super::sealed::{Sealed, Width};
use super::{DType, MaybeSerde, Packed};

/// An integer type that holds one unpacked code: `i8`, `u8`, `i16`, `u16` or `i32`. Sealed.
pub trait Code:
    Sealed + Width + Copy + Default + Debug + Eq + Ord + Send + Sync + Into<i64> + MaybeSerde + 'static
{
    /// Returns the code as an `i32`.
    fn to_i32(self) -> i32;
    /// Returns the code `value`. Bits beyond the width of the type are dropped.
    fn from_i32(value: i32) -> Self;
}

/// A quantized element type: `i8`, `u8`, `i16`, `u16`, `i32`, or the packed [`I4`], [`U4`], [`I2`], [`U2`]. Sealed.
///
/// The type determines the range of codes, the integer that holds one code, and the memory layout of a tensor.
///
/// ```
/// use ndarray_quant::{Element, I4};
/// assert_eq!((I4::MIN, I4::MAX, I4::BITS), (-8, 7, 4));
/// assert_eq!((u8::MIN, <u8 as Element>::MAX), (0, 255));
/// ```
pub trait Element: Sealed + Copy + Debug + PartialEq + Send + Sync + 'static {
    /// The integer that holds one unpacked code.
    type Code: Code;
    /// The tensor type that stores the codes: an `Array` of codes, or [`Packed`] below eight bits.
    type Storage<D: Dimension>: Storage<Self, D>;
    /// The name of the type at run time.
    const DTYPE: DType;
    /// The size of a stored code in bits.
    const BITS: u32;
    /// The smallest code.
    const MIN: i32;
    /// The greatest code.
    const MAX: i32;
}

/// A tensor of stored codes: `Array<T, D>`, or [`Packed`] for elements of fewer than 8 bits.
pub trait Storage<T: Element, D: Dimension>: Clone + Debug + PartialEq + Send + Sync {
    /// Stores unpacked codes: packs them if the element type is packed.
    ///
    /// Codes of packed types must be in range. Bits beyond the width of the type are dropped.
    fn from_codes(codes: Array<T::Code, D>) -> Self;
    /// Returns the unpacked codes. Borrows them if they are stored unpacked.
    fn codes(&self) -> CowArray<'_, T::Code, D>;
    /// Returns the shape in elements, as a dimension of `ndarray`.
    fn raw_dim(&self) -> D;
    /// Returns the shape in elements.
    fn shape(&self) -> &[usize];
    /// Returns the size of the codes in memory, in bytes.
    fn size_in_bytes(&self) -> usize;
}

impl<T: Element<Code = T> + Code, D: Dimension> Storage<T, D> for Array<T, D> {
    fn from_codes(codes: Array<T, D>) -> Self {
        codes
    }
    fn codes(&self) -> CowArray<'_, T, D> {
        self.view().into()
    }
    fn raw_dim(&self) -> D {
        self.raw_dim()
    }
    fn shape(&self) -> &[usize] {
        (**self).shape()
    }
    fn size_in_bytes(&self) -> usize {
        size_of::<T>() * self.len()
    }
}

macro_rules! whole_byte_elements {
    ($($t:ident $dtype:ident),*) => {$(
        impl Sealed for $t {}
        impl Width for $t {
            const WIDE: bool = $t::BITS > 16;
        }
        impl Code for $t {
            #[inline(always)]
            fn to_i32(self) -> i32 { self as i32 }
            #[inline(always)]
            fn from_i32(value: i32) -> Self { value as $t }
        }
        impl Element for $t {
            type Code = $t;
            type Storage<D: Dimension> = Array<$t, D>;
            const DTYPE: DType = DType::$dtype;
            const BITS: u32 = $t::BITS;
            const MIN: i32 = $t::MIN as i32;
            const MAX: i32 = $t::MAX as i32;
        }
    )*};
}
whole_byte_elements!(i8 I8, u8 U8, i16 I16, u16 U16, i32 I32);

macro_rules! packed_elements {
    ($($(#[$doc:meta])* $t:ident: $bits:literal bits in $code:ident, $min:literal..=$max:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $t {}
        impl Sealed for $t {}
        impl Element for $t {
            type Code = $code;
            type Storage<D: Dimension> = Packed<$t, D>;
            const DTYPE: DType = DType::$t;
            const BITS: u32 = $bits;
            const MIN: i32 = $min;
            const MAX: i32 = $max;
        }
    )*};
}
packed_elements! {
    /// Signed 4-bit codes, -8 to 7, two to a byte.
    I4: 4 bits in i8, -8..=7;
    /// Unsigned 4-bit codes, 0 to 15, two to a byte.
    U4: 4 bits in u8, 0..=15;
    /// Signed 2-bit codes, -2 to 1, four to a byte.
    I2: 2 bits in i8, -2..=1;
    /// Unsigned 2-bit codes, 0 to 3, four to a byte.
    U2: 2 bits in u8, 0..=3;
}
