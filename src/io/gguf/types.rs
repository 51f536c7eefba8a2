//! Types of tensors.

use core::fmt;

macro_rules! ggml_types {
    ($($name:ident $id:literal: $values:literal values, $bytes:literal bytes;)*) => {
        /// The type of a tensor in a GGUF file (ggml: `ggml_type`).
        ///
        /// A type is a block format: values in blocks of bytes. Blocks of one value are numbers in little-endian order. The types
        /// of [`block::ggml`](crate::block::ggml), floats and integers can be dequantized.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, reason = "the names of the formats")]
        #[allow(missing_docs, reason = "the names of the formats")]
        #[non_exhaustive]
        pub enum GgmlType { $($name,)* }

        impl GgmlType {
            /// Returns the type with this number in files, or `None` if it is not known.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(GgmlType::$name),)* _ => None }
            }

            /// Returns the number of the type in files.
            pub const fn id(self) -> u32 {
                match self { $(GgmlType::$name => $id,)* }
            }

            /// Returns the name, such as `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $(GgmlType::$name => stringify!($name),)* }
            }

            /// Returns the number of values of a block.
            pub const fn block_values(self) -> usize {
                match self { $(GgmlType::$name => $values,)* }
            }

            /// Returns the number of bytes of a block.
            pub const fn block_bytes(self) -> usize {
                match self { $(GgmlType::$name => $bytes,)* }
            }
        }
    };
}
ggml_types! {
    F32 0: 1 values, 4 bytes;
    F16 1: 1 values, 2 bytes;
    Q4_0 2: 32 values, 18 bytes;
    Q4_1 3: 32 values, 20 bytes;
    Q5_0 6: 32 values, 22 bytes;
    Q5_1 7: 32 values, 24 bytes;
    Q8_0 8: 32 values, 34 bytes;
    Q8_1 9: 32 values, 36 bytes;
    Q2_K 10: 256 values, 84 bytes;
    Q3_K 11: 256 values, 110 bytes;
    Q4_K 12: 256 values, 144 bytes;
    Q5_K 13: 256 values, 176 bytes;
    Q6_K 14: 256 values, 210 bytes;
    Q8_K 15: 256 values, 292 bytes;
    IQ2_XXS 16: 256 values, 66 bytes;
    IQ2_XS 17: 256 values, 74 bytes;
    IQ3_XXS 18: 256 values, 98 bytes;
    IQ1_S 19: 256 values, 50 bytes;
    IQ4_NL 20: 32 values, 18 bytes;
    IQ3_S 21: 256 values, 110 bytes;
    IQ2_S 22: 256 values, 82 bytes;
    IQ4_XS 23: 256 values, 136 bytes;
    I8 24: 1 values, 1 bytes;
    I16 25: 1 values, 2 bytes;
    I32 26: 1 values, 4 bytes;
    I64 27: 1 values, 8 bytes;
    F64 28: 1 values, 8 bytes;
    IQ1_M 29: 256 values, 56 bytes;
    BF16 30: 1 values, 2 bytes;
    TQ1_0 34: 256 values, 54 bytes;
    TQ2_0 35: 256 values, 66 bytes;
    MXFP4 39: 32 values, 17 bytes;
    NVFP4 40: 64 values, 36 bytes;
}

impl GgmlType {
    /// Returns the number of bytes of a tensor of this shape, or `None` if the last axis is no multiple of a block or the
    /// tensor does not fit in memory.
    pub fn tensor_bytes(self, shape: &[usize]) -> Option<usize> {
        if !shape.last().copied().unwrap_or(1).is_multiple_of(self.block_values()) {
            return None;
        }
        // Lengths of 0 must not hide an overflow of the others.
        let lengths = shape.iter().filter(|&&len| len != 0);
        let count = lengths.copied().try_fold(1usize, usize::checked_mul)?;
        let bytes = (count / self.block_values()).checked_mul(self.block_bytes())?;
        let bytes = if shape.contains(&0) { 0 } else { bytes };
        (bytes.max(count) <= isize::MAX as usize / 8).then_some(bytes)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
