//! Tensors of blocks.

use alloc::{vec, vec::Vec};
use core::marker::PhantomData;

use ndarray::{Array, ArrayRef, ArrayView1, ArrayViewMut1, Dimension, IntoDimension};

use super::BlockFormat;
use crate::element::Float;
use crate::error::{Error, Result, ShapeError, check_count, check_shapes, elements};
use crate::quantize::Dequantize;
use crate::range::check_finite;

/// A tensor whose rows are blocks of a [`BlockFormat`].
///
/// The last axis is stored in blocks of `B::VALUES` values, one row after the other in row-major order. If its length is no
/// multiple of that, the last block of a row is filled up with the last value, and the padding is dropped again. Formats of
/// files do not pad: see their writers.
///
/// `S` holds the bytes: a `Vec<u8>`, or a borrowed `&[u8]`, such as a part of a file.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::block::{BlockTensor, ggml::Q4_0};
///
/// let x = array![[0.5f32, -2.0, 1.0], [0.25, 0.0, 8.0]];
/// let q = BlockTensor::<Q4_0, _>::quantize(&x)?;
/// assert_eq!(q.dequantize(), array![[0.5, -2.0, 1.0], [0.0, 0.0, 8.0]]);
///
/// let view = BlockTensor::<Q4_0, _, _>::from_bytes((2, 3), q.as_bytes())?;
/// assert_eq!(view.dequantize(), q.dequantize());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BlockTensor<B: BlockFormat, D: Dimension, S: AsRef<[u8]> = Vec<u8>> {
    dim: D,
    bytes: S,
    tensor_scale: f32,
    format: PhantomData<B>,
}

/// Values that go through a buffer together, unless a block has more.
const CHUNK: usize = 1024;

/// Returns a buffer of whole blocks.
fn buffer<B: BlockFormat>() -> Vec<f32> {
    vec![0.0; B::VALUES * (CHUNK / B::VALUES).max(1)]
}

/// Returns the number of values of a row, and of bytes in all rows.
fn layout<B: BlockFormat>(shape: &[usize]) -> Result<(usize, usize)> {
    let count = elements("block tensor", shape)?;
    let len = shape.last().copied().unwrap_or(1);
    let rows = count.checked_div(len).unwrap_or(0);
    let bytes = len.div_ceil(B::VALUES).checked_mul(B::BYTES).and_then(|row| row.checked_mul(rows));
    let bytes = bytes.filter(|&bytes| bytes <= isize::MAX as usize);
    let limit = "a tensor that fits in memory";
    bytes.map(|bytes| (len, bytes)).ok_or_else(|| Error::too_large("block tensor", limit, shape))
}

impl<B: BlockFormat, D: Dimension> BlockTensor<B, D> {
    /// Quantizes the rows of a tensor. Values are rounded to `f32` first.
    ///
    /// # Errors
    /// [`Error::Value`] with the position of the first value that is not finite as an `f32`.
    pub fn quantize<F: Float>(x: &ArrayRef<F, D>) -> Result<Self> {
        check_finite("x", x)?;
        let (len, count) = layout::<B>(x.shape())?;
        let mut bytes = vec![0; count];
        let tensor_scale = match B::TENSOR_MAX {
            Some(max) => tensor_scale(x, max),
            None => 1.0,
        };
        let (mut values, row_bytes) = (buffer::<B>(), len.div_ceil(B::VALUES) * B::BYTES);
        if count > 0 {
            for (x, bytes) in x.rows().into_iter().zip(bytes.chunks_exact_mut(row_bytes)) {
                quantize_row::<B, F>(x, tensor_scale, &mut values, bytes);
            }
        }
        Ok(Self { dim: x.raw_dim(), bytes, tensor_scale, format: PhantomData })
    }

    /// Returns the bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Returns the scale that brings the greatest magnitude of a tensor to `max`.
fn tensor_scale<F: Float, D: Dimension>(x: &ArrayRef<F, D>, max: f32) -> f32 {
    let greatest = x.iter().fold(0f32, |greatest, x| greatest.max(x.to_f32().abs()));
    let scale = greatest / max;
    if scale < f32::MIN_POSITIVE { 1.0 } else { scale }
}

fn quantize_row<B: BlockFormat, F: Float>(
    x: ArrayView1<'_, F>,
    tensor_scale: f32,
    values: &mut [f32],
    bytes: &mut [u8],
) {
    let chunk_bytes = values.len() / B::VALUES * B::BYTES;
    let chunks = x.axis_chunks_iter(ndarray::Axis(0), values.len());
    for (x, bytes) in chunks.zip(bytes.chunks_mut(chunk_bytes)) {
        let blocks = x.len().div_ceil(B::VALUES);
        let (head, padding) = values[..blocks * B::VALUES].split_at_mut(x.len());
        match x.to_slice().and_then(F::as_f32) {
            Some(x) => head.copy_from_slice(x),
            None => head.iter_mut().zip(x).for_each(|(value, x)| *value = x.to_f32()),
        }
        if tensor_scale != 1.0 {
            head.iter_mut().for_each(|value| *value /= tensor_scale);
        }
        padding.fill(head.last().copied().unwrap_or(0.0));
        B::quantize_blocks(&values[..blocks * B::VALUES], bytes);
    }
}

impl<B: BlockFormat, D: Dimension, S: AsRef<[u8]>> BlockTensor<B, D, S> {
    /// Creates a tensor of this shape, in values, from its bytes.
    ///
    /// # Errors
    /// [`Error::Shape`] if the blocks have another number of bytes, or if no array can have this shape.
    pub fn from_bytes(shape: impl IntoDimension<Dim = D>, bytes: S) -> Result<Self> {
        let dim = shape.into_dimension();
        let (_, count) = layout::<B>(dim.slice())?;
        check_count("number of bytes of the blocks", count, bytes.as_ref().len())?;
        Ok(Self { dim, bytes, tensor_scale: 1.0, format: PhantomData })
    }

    /// Sets the scale of the tensor, by which dequantized values are multiplied: 1 unless the format has one.
    pub fn with_tensor_scale(mut self, scale: f32) -> Self {
        self.tensor_scale = scale;
        self
    }

    /// Returns the scale of the tensor.
    pub fn tensor_scale(&self) -> f32 {
        self.tensor_scale
    }

    /// Returns the bytes of all blocks.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_ref()
    }

    /// Returns the shape in values, as a dimension of `ndarray`.
    pub fn raw_dim(&self) -> D {
        self.dim.clone()
    }

    /// Returns the shape in values.
    pub fn shape(&self) -> &[usize] {
        self.dim.slice()
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.dim.size()
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the size of blocks and tensor scale in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.as_bytes().len() + if B::TENSOR_MAX.is_some() { size_of::<f32>() } else { 0 }
    }

    /// Dequantizes to `f32`.
    pub fn dequantize(&self) -> Array<f32, D> {
        self.dequantize_as()
    }

    /// Dequantizes to `F`: computes in `f32` and rounds.
    pub fn dequantize_as<F: Float>(&self) -> Array<F, D> {
        let mut out = Array::from_elem(self.raw_dim(), F::default());
        self.dequantize_into(&mut out).expect("the array has the shape of the tensor");
        out
    }

    /// Dequantizes into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another shape.
    pub fn dequantize_into<F: Float>(&self, out: &mut ArrayRef<F, D>) -> Result<()> {
        check_shapes("dequantized values", self.shape(), out.shape())?;
        if self.is_empty() {
            return Ok(());
        }
        let mut values = buffer::<B>();
        for (bytes, out) in self.rows().zip(out.rows_mut()) {
            self.dequantize_row_of(bytes, &mut values, out);
        }
        Ok(())
    }

    /// Dequantizes one row, by its index in row-major order, such as an embedding.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` has another length than a row, [`Error::Argument`] if there is no such row.
    pub fn dequantize_row_into<F: Float>(&self, row: usize, out: &mut ArrayRef<F, ndarray::Ix1>) -> Result<()> {
        let len = self.shape().last().copied().unwrap_or(1);
        if out.len() != len {
            return Err(ShapeError::Count { what: "length of the row", expected: len, found: out.len() }.into());
        }
        let bytes = self.rows().nth(row).filter(|_| !self.is_empty()).ok_or_else(|| Error::Argument {
            what: "row",
            expected: "an index below the number of rows",
            found: alloc::format!("{row}"),
        })?;
        self.dequantize_row_of(bytes, &mut buffer::<B>(), out.view_mut());
        Ok(())
    }

    /// Iterates over the bytes of rows that have values.
    fn rows(&self) -> core::slice::ChunksExact<'_, u8> {
        let len = self.shape().last().copied().unwrap_or(1);
        self.as_bytes().chunks_exact((len.div_ceil(B::VALUES) * B::BYTES).max(1))
    }

    fn dequantize_row_of<F: Float>(&self, bytes: &[u8], values: &mut [f32], mut out: ArrayViewMut1<'_, F>) {
        let chunk_bytes = values.len() / B::VALUES * B::BYTES;
        let chunks = out.axis_chunks_iter_mut(ndarray::Axis(0), values.len());
        for (bytes, out) in bytes.chunks(chunk_bytes).zip(chunks) {
            let values = &mut values[..bytes.len() / B::BYTES * B::VALUES];
            B::dequantize_blocks(bytes, values);
            if self.tensor_scale != 1.0 {
                values.iter_mut().for_each(|value| *value *= self.tensor_scale);
            }
            out.into_iter().zip(values).for_each(|(out, value)| *out = F::from_f32(*value));
        }
    }
}

impl<F: Float, B: BlockFormat, D: Dimension, S: AsRef<[u8]>> Dequantize<F, D> for BlockTensor<B, D, S> {
    fn raw_dim(&self) -> D {
        self.raw_dim()
    }
    fn size_in_bytes(&self) -> usize {
        self.size_in_bytes()
    }
    fn dequantize_into(&self, out: &mut ArrayRef<F, D>) -> Result<()> {
        self.dequantize_into(out)
    }
}
