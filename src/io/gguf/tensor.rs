//! Tensors of files.

use alloc::format;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use super::types::GgmlType;
use super::{MAX_AXES, malformed};
use crate::block::{BlockFormat, BlockTensor, ggml};
use crate::error::{Error, Result};

/// A tensor of a GGUF file: a view of its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GgufTensor<'a> {
    name: &'a str,
    shape: [usize; MAX_AXES],
    ndim: usize,
    ggml_type: GgmlType,
    bytes: &'a [u8],
}

impl<'a> GgufTensor<'a> {
    /// Creates a tensor without its bytes.
    pub(super) fn new(name: &'a str, shape: [usize; MAX_AXES], ndim: usize, ggml_type: GgmlType) -> Self {
        Self { name, shape, ndim, ggml_type, bytes: &[] }
    }

    /// Returns the tensor with its bytes.
    pub(super) fn within(self, data: &'a [u8], offset: usize) -> Option<Self> {
        let bytes = data.get(offset..)?.get(..self.size().ok()?)?;
        Some(Self { bytes, ..self })
    }

    /// Returns the number of bytes.
    pub(super) fn size(&self) -> Result<usize> {
        self.ggml_type.tensor_bytes(self.shape()).ok_or_else(|| {
            let expected = format!("rows of whole blocks of {} that fit in memory", self.ggml_type.block_values());
            malformed("tensor", expected, format!("{} of shape {:?} for {:?}", self.ggml_type, self.shape(), self.name))
        })
    }

    /// Returns the name.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the shape in the order of `ndarray`: the last axis is the one whose values are neighbours. ggml counts axes from
    /// that one on.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.ndim]
    }

    /// Returns the type.
    pub fn ggml_type(&self) -> GgmlType {
        self.ggml_type
    }

    /// Returns the bytes.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the blocks as they are in the file, without copying them.
    ///
    /// # Errors
    /// [`Error::File`] if the tensor has another type.
    pub fn blocks<B: BlockFormat>(&self) -> Result<BlockTensor<B, IxDyn, &'a [u8]>> {
        if self.ggml_type.name() != B::NAME || self.ggml_type.block_bytes() != B::BYTES {
            return Err(malformed("type of the tensor", B::NAME, self.ggml_type.name()));
        }
        BlockTensor::from_bytes(IxDyn(self.shape()), self.bytes)
    }

    /// Dequantizes to `f32`. Numbers that `f32` does not have are rounded to the nearest one.
    ///
    /// # Errors
    /// [`Error::File`] if the type is one of `IQ1_S`, `IQ1_M`, `IQ2_XXS`, `IQ2_XS`, `IQ2_S`, `IQ3_XXS`, `IQ3_S` or `Q8_1`.
    pub fn dequantize(&self) -> Result<ArrayD<f32>> {
        macro_rules! blocks {
            ($($format:ident)*) => {
                match self.ggml_type {
                    $(GgmlType::$format => Ok(self.blocks::<ggml::$format>()?.dequantize()),)*
                    GgmlType::F32 => self.numbers(f32::from_le_bytes),
                    GgmlType::F16 => self.numbers(|bytes| f16::from_le_bytes(bytes).to_f32()),
                    GgmlType::BF16 => self.numbers(|bytes| bf16::from_le_bytes(bytes).to_f32()),
                    GgmlType::F64 => self.numbers(|bytes| f64::from_le_bytes(bytes) as f32),
                    GgmlType::I8 => self.numbers(|bytes| i8::from_le_bytes(bytes) as f32),
                    GgmlType::I16 => self.numbers(|bytes| i16::from_le_bytes(bytes) as f32),
                    GgmlType::I32 => self.numbers(|bytes| i32::from_le_bytes(bytes) as f32),
                    GgmlType::I64 => self.numbers(|bytes| i64::from_le_bytes(bytes) as f32),
                    other => {
                        let expected = "a type that can be dequantized";
                        Err(malformed("type of the tensor", expected, format!("{other} for {:?}", self.name)))
                    }
                }
            };
        }
        blocks!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K IQ4_NL IQ4_XS TQ1_0 TQ2_0 MXFP4 NVFP4)
    }

    /// Converts numbers of `N` bytes.
    fn numbers<const N: usize>(&self, convert: impl Fn([u8; N]) -> f32) -> Result<ArrayD<f32>> {
        let values = self.bytes.as_chunks().0.iter().map(|&bytes| convert(bytes)).collect();
        ArrayD::from_shape_vec(IxDyn(self.shape()), values)
            .map_err(|_| Error::too_large("tensor of the file", "a tensor that fits in memory", self.shape()))
    }
}
