//! Block formats: rows of values in blocks of bytes that hold their scales.
//!
//! A block format stores a fixed number of neighbouring values of a row in a fixed number of bytes: codes, and the scale
//! that they share. Files and kernels of other systems use the same bytes. [`BlockTensor`] is a tensor of such rows.
//!
//! | format | values | bytes | bits a value | content |
//! |---|---|---|---|---|
//! | [`MXFP8E4M3`], [`MXFP8E5M2`] | 32 | 33 | 8.25 | power of two, 8-bit floats |
//! | [`MXFP6E2M3`], [`MXFP6E3M2`] | 32 | 25 | 6.25 | power of two, 6-bit floats |
//! | [`MXFP4`] | 32 | 17 | 4.25 | power of two, 4-bit floats |
//! | [`NVFP4`] | 16 | 9 | 4.5 | 8-bit float scale, 4-bit floats; one `f32` for the tensor |
//! | [`NF4`] | 64 | 36 | 4.5 | `f32` scale, indices of 16 quantiles of the normal distribution |
//! | [`ggml`] | 32 or 256 | 18 to 292 | 1.7 to 9.1 | the formats of GGUF files |
//!
//! ```
//! use ndarray::Array2;
//! use ndarray_quant::block::{BlockTensor, MXFP4, ggml::Q8_0};
//!
//! let x = Array2::from_shape_fn((4, 64), |(i, j)| (i as f32 - 1.5) * (j as f32 * 0.1).sin());
//! let q = BlockTensor::<Q8_0, _>::quantize(&x)?;
//! assert_eq!(q.as_bytes().len(), 4 * 2 * 34); // two blocks a row
//! assert!(q.dequantize().iter().zip(&x).all(|(y, x)| (y - x).abs() < 0.01));
//! assert_eq!(BlockTensor::<MXFP4, _>::quantize(&x)?.size_in_bytes(), 4 * 2 * 17);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

pub mod ggml;
mod matmul_nbits;
mod mx;
mod nf4;
mod nvfp4;
mod tensor;

use core::fmt::Debug;

use half::f16;

pub use matmul_nbits::from_matmul_nbits;
pub use mx::{MXFP4, MXFP6E2M3, MXFP6E3M2, MXFP8E4M3, MXFP8E5M2, Mx};
pub use nf4::NF4;
pub use nvfp4::NVFP4;
pub use tensor::BlockTensor;

/// A block format: `VALUES` neighbouring values of a row in `BYTES` bytes.
///
/// The types that implement it have no content. Their names are parameters of [`BlockTensor`], or values that quantize:
/// they implement [`Quantize`](crate::Quantize).
pub trait BlockFormat: Copy + Debug + Default + PartialEq + Send + Sync + 'static {
    /// The name of the format.
    const NAME: &'static str;
    /// The number of values of a block.
    const VALUES: usize;
    /// The number of bytes of a block.
    const BYTES: usize;
    /// The greatest magnitude that a block can hold, if the format has a scale for the whole tensor, which brings the
    /// greatest magnitude of the tensor to this one.
    const TENSOR_MAX: Option<f32> = None;

    /// Quantizes whole blocks of finite values: `x.len() / VALUES` of them.
    fn quantize_blocks(x: &[f32], bytes: &mut [u8]);

    /// Dequantizes whole blocks: `bytes.len() / BYTES` of them. All bytes are valid.
    fn dequantize_blocks(bytes: &[u8], y: &mut [f32]);
}

/// Formats of integer codes with a scale, and perhaps an offset, for each group of a block: `scale * (q - ZERO_POINT) + offset`.
/// [`LinearNBits`](crate::nn::LinearNBits) multiplies them as they are.
pub trait IntegerBlocks: BlockFormat {
    /// Bits of a code, rounded up to 2, 4 or 8.
    const BITS: u32;
    /// The number of values of a group.
    const GROUP: usize = Self::VALUES;
    /// The code of 0, without an offset.
    const ZERO_POINT: u8 = 0;
    /// Groups have an offset.
    const HAS_OFFSET: bool = false;

    /// Writes the unsigned codes of a block.
    fn codes(block: &[u8], codes: &mut [u8]);

    /// Returns the scale of a group of a block.
    fn scale(block: &[u8], group: usize) -> GroupScale;

    /// Returns the offset of a group of a block.
    fn offset(_block: &[u8], _group: usize) -> GroupScale {
        GroupScale { of_block: f16::ZERO, of_group: 0 }
    }
}

/// The scale or offset of a group: the product of a number of the block and one of the group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupScale {
    /// The number of the block.
    pub of_block: f16,
    /// The number of the group; 1 if blocks have one group.
    pub of_group: i8,
}

impl GroupScale {
    /// Returns the product, rounded to `f32`.
    #[inline(always)]
    pub fn value(self) -> f32 {
        self.of_block.to_f32_const() * f32::from(self.of_group)
    }
}

/// Dequantizes a block.
#[inline(always)]
fn dequantize_codes<B: IntegerBlocks, const VALUES: usize>(block: &[u8], y: &mut [f32; VALUES]) {
    let mut codes = [0; VALUES];
    B::codes(block, &mut codes);
    for (group, (y, codes)) in y.chunks_exact_mut(B::GROUP).zip(codes.chunks_exact(B::GROUP)).enumerate() {
        let scale = B::scale(block, group).value();
        if B::HAS_OFFSET {
            let offset = B::offset(block, group).value();
            y.iter_mut().zip(codes).for_each(|(y, &code)| *y = scale * f32::from(code) + offset);
        } else {
            let zero_point = i32::from(B::ZERO_POINT);
            y.iter_mut().zip(codes).for_each(|(y, &code)| *y = scale * (i32::from(code) - zero_point) as f32);
        }
    }
}

/// Defines formats by the functions `encode` and `decode` of a block, which the type must have. They must be
/// `#[inline(always)]`.
macro_rules! block_format {
    ($($(#[$doc:meta])* $t:ident: $values:literal values, $bytes:literal bytes $(, tensor $max:expr)?;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types, reason = "the name of the format")]
        pub struct $t;

        impl $crate::block::BlockFormat for $t {
            const NAME: &'static str = stringify!($t);
            const VALUES: usize = $values;
            const BYTES: usize = $bytes;
            $(const TENSOR_MAX: Option<f32> = Some($max);)?

            fn quantize_blocks(x: &[f32], bytes: &mut [u8]) {
                let (x, bytes) = (x.as_chunks::<$values>().0, bytes.as_chunks_mut::<$bytes>().0);
                x.iter().zip(bytes).for_each(|(x, bytes)| Self::encode(x, bytes));
            }

            fn dequantize_blocks(bytes: &[u8], y: &mut [f32]) {
                struct Decode<'a>(&'a [u8], &'a mut [f32]);
                impl $crate::simd::Task for Decode<'_> {
                    type Output = ();
                    #[inline(always)]
                    fn run(self) {
                        let (bytes, y) = (self.0.as_chunks::<$bytes>().0, self.1.as_chunks_mut::<$values>().0);
                        for (bytes, y) in bytes.iter().zip(y) {
                            <$t>::decode(bytes, y);
                        }
                    }
                }
                $crate::simd::run(Decode(bytes, y));
            }
        }

        $crate::block::quantize_by_format!([] $t);
    )*};
}
use block_format;

/// Implements `Quantize` for a format.
macro_rules! quantize_by_format {
    ([$($generics:tt)*] $t:ty) => {
        impl<F: $crate::Float, D: ndarray::Dimension, $($generics)*> $crate::Quantize<F, D> for $t {
            type Output = $crate::block::BlockTensor<Self, D>;

            fn quantize(&self, x: &ndarray::ArrayRef<F, D>) -> $crate::Result<Self::Output> {
                $crate::block::BlockTensor::quantize(x)
            }
        }
    };
}
use quantize_by_format;

/// Returns the greatest magnitude.
#[inline(always)]
fn max_magnitude(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max, x| if x.abs() > max { x.abs() } else { max })
}

/// Returns `1 / scale`, and 0 for 0.
#[inline(always)]
fn reciprocal(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}
