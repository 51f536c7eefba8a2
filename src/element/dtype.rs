use core::fmt;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident $text:literal $bits:literal;)*) => {
        /// The name of an element type at run time, for file formats and reports.
        ///
        /// ```
        /// use ndarray_quant::{DType, Element, I4};
        /// assert_eq!(I4::DTYPE, DType::I4);
        /// assert_eq!(DType::I4.to_string(), "i4");
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum DType { $($(#[$doc])* $name,)* }

        impl DType {
            /// Returns the size of one element in bits.
            pub const fn bits(self) -> u32 {
                match self { $(DType::$name => $bits,)* }
            }
        }

        impl fmt::Display for DType {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(DType::$name => $text,)* })
            }
        }
    };
}

dtypes! {
    /// Signed 2-bit integer.
    I2 "i2" 2;
    /// Unsigned 2-bit integer.
    U2 "u2" 2;
    /// Signed 4-bit integer.
    I4 "i4" 4;
    /// Unsigned 4-bit integer.
    U4 "u4" 4;
    /// Signed 8-bit integer.
    I8 "i8" 8;
    /// Unsigned 8-bit integer.
    U8 "u8" 8;
    /// Signed 16-bit integer.
    I16 "i16" 16;
    /// Unsigned 16-bit integer.
    U16 "u16" 16;
    /// Signed 32-bit integer.
    I32 "i32" 32;
    /// 4-bit float with 2 bits of exponent.
    F4E2M1FN "f4e2m1fn" 4;
    /// 6-bit float with 2 bits of exponent.
    F6E2M3FN "f6e2m3fn" 6;
    /// 6-bit float with 3 bits of exponent.
    F6E3M2FN "f6e3m2fn" 6;
    /// 8-bit float with 4 bits of exponent and a NaN.
    F8E4M3FN "f8e4m3fn" 8;
    /// 8-bit float with 4 bits of exponent, a NaN and no negative zero.
    F8E4M3FNUZ "f8e4m3fnuz" 8;
    /// 8-bit float with 5 bits of exponent, infinities and NaN.
    F8E5M2 "f8e5m2" 8;
    /// 8-bit float with 5 bits of exponent, a NaN and no negative zero.
    F8E5M2FNUZ "f8e5m2fnuz" 8;
    /// 8-bit power of two, the scale of OCP's microscaling formats.
    E8M0 "f8e8m0fnu" 8;
    /// IEEE 754 half precision.
    F16 "f16" 16;
    /// Brain floating point: the upper 16 bits of a single-precision float.
    BF16 "bf16" 16;
    /// IEEE 754 single precision.
    F32 "f32" 32;
    /// IEEE 754 double precision.
    F64 "f64" 64;
}
