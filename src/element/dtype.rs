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
    /// IEEE 754 half precision.
    F16 "f16" 16;
    /// Brain floating point: the upper 16 bits of a single-precision float.
    BF16 "bf16" 16;
    /// IEEE 754 single precision.
    F32 "f32" 32;
    /// IEEE 754 double precision.
    F64 "f64" 64;
}
