//! The 8-bit element types of a product.

use crate::element::{Code, Element};

/// An element type of GEMM operands: `i8` or `u8`. Sealed.
pub trait Int8: Element<Code = Self> + Code + sealed::Int8Bits {}

impl Int8 for u8 {}
impl Int8 for i8 {}

pub(crate) mod sealed {
    use crate::element::Code;

    /// The bits of codes as micro-kernels read them.
    pub trait Int8Bits: Code {
        /// The sign offset: added to a code, it makes it unsigned. 128 for `i8`, where it is XOR 0x80 on the bits.
        const SIGN_OFFSET: i32;

        /// Reinterprets codes as bytes.
        fn as_bytes(codes: &[Self]) -> &[u8];

        /// Returns `max |code - zero_point|` over all codes of the type.
        fn max_abs_diff(zero_point: Self) -> i64;
    }

    impl Int8Bits for u8 {
        const SIGN_OFFSET: i32 = 0;

        fn as_bytes(codes: &[u8]) -> &[u8] {
            codes
        }

        fn max_abs_diff(zero_point: u8) -> i64 {
            zero_point.max(u8::MAX - zero_point).into()
        }
    }

    impl Int8Bits for i8 {
        const SIGN_OFFSET: i32 = 128;

        fn as_bytes(codes: &[i8]) -> &[u8] {
            crate::simd::as_bytes(codes).unwrap_or_default()
        }

        fn max_abs_diff(zero_point: i8) -> i64 {
            let zero_point = i64::from(zero_point);
            (zero_point - i64::from(i8::MIN)).max(i64::from(i8::MAX) - zero_point)
        }
    }
}
