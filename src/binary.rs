//! Tensors of signs: one bit for each value.

use alloc::vec::Vec;

use ndarray::{Array, ArrayRef, Dimension, IntoDimension};

use crate::element::Float;
use crate::error::{Error, Result, check_count, check_shapes, elements};
use crate::quantize::Dequantize;
use crate::range::check_finite;

/// A tensor of the values −1 and 1, packed to one bit each (Larq Compute Engine: the output of `LceQuantize`).
///
/// A bit is set for −1. Each row of the last axis starts at a word of 32 bits, its first value in the lowest bit; unused bits are
/// 0. [`BinaryLinear`](crate::nn::BinaryLinear) and [`BinaryConv2d`](crate::nn::BinaryConv2d) multiply such tensors.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::BinaryTensor;
///
/// let q = BinaryTensor::sign(&array![[0.5f32, -2.0, 0.0], [-1.0, -0.25, 3.0]])?;
/// assert_eq!(q.dequantize(), array![[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]]);
/// assert_eq!(q.as_words(), [0b010, 0b011]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryTensor<D: Dimension> {
    dim: D,
    words: Vec<u32>,
}

/// Values of a word.
pub(crate) const WORD: usize = u32::BITS as usize;

impl<D: Dimension> BinaryTensor<D> {
    /// Takes the signs of a tensor of any strides: −1 below 0, and otherwise 1.
    ///
    /// # Errors
    /// [`Error::Value`] with the index of the first NaN or infinity.
    pub fn sign<F: Float>(x: &ArrayRef<F, D>) -> Result<Self> {
        check_finite("x", x)?;
        let mut words = Vec::with_capacity(words(x.shape())?);
        for row in x.rows() {
            match row.to_slice() {
                Some(row) => words.extend(row.chunks(WORD).map(|x| word(x.iter().copied()))),
                None => words.extend(row.axis_chunks_iter(ndarray::Axis(0), WORD).map(|x| word(x.iter().copied()))),
            }
        }
        Ok(Self { dim: x.raw_dim(), words })
    }

    /// Creates a tensor from its words. Unused bits are cleared.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of words differs or if no array can have this shape.
    pub fn from_words(shape: impl IntoDimension<Dim = D>, words: Vec<u32>) -> Result<Self> {
        let dim = shape.into_dimension();
        check_count("number of words", self::words(dim.slice())?, words.len())?;
        let mut tensor = Self { dim, words };
        let (row, used) = (tensor.row_words(), tensor.row_len() % WORD);
        if row > 0 && used > 0 {
            tensor.words.chunks_exact_mut(row).for_each(|row| row[row.len() - 1] &= (1 << used) - 1);
        }
        Ok(tensor)
    }

    /// A tensor of words that have the shape, and whose unused bits are 0.
    pub(crate) fn from_valid_words(dim: D, words: Vec<u32>) -> Self {
        Self { dim, words }
    }

    /// Returns the words of all rows.
    pub fn as_words(&self) -> &[u32] {
        &self.words
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

    /// Returns the size of the words in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        size_of_val(self.words.as_slice())
    }

    /// Returns the values −1 and 1.
    pub fn dequantize(&self) -> Array<f32, D> {
        let mut out = Array::zeros(self.raw_dim());
        self.dequantize_into(&mut out).expect("the array has the shape of the tensor");
        out
    }

    fn row_len(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// Words of a row.
    pub(crate) fn row_words(&self) -> usize {
        self.row_len().div_ceil(WORD)
    }
}

impl<F: Float, D: Dimension> Dequantize<F, D> for BinaryTensor<D> {
    fn raw_dim(&self) -> D {
        self.raw_dim()
    }

    fn size_in_bytes(&self) -> usize {
        self.size_in_bytes()
    }

    fn dequantize_into(&self, out: &mut ArrayRef<F, D>) -> Result<()> {
        check_shapes("dequantized values", self.shape(), out.shape())?;
        for (words, mut out) in self.words.chunks_exact(self.row_words().max(1)).zip(out.rows_mut()) {
            for (i, y) in out.iter_mut().enumerate() {
                *y = F::from_f64(if words[i / WORD] >> (i % WORD) & 1 == 1 { -1.0 } else { 1.0 });
            }
        }
        Ok(())
    }
}

/// Returns the number of words of a tensor.
fn words(shape: &[usize]) -> Result<usize> {
    let count = elements("binary tensor", shape)?;
    let len = shape.last().copied().unwrap_or(1);
    let rows = count.checked_div(len).unwrap_or(0);
    rows.checked_mul(len.div_ceil(WORD))
        .filter(|&words| words <= isize::MAX as usize / size_of::<u32>())
        .ok_or_else(|| Error::too_large("binary tensor", "a tensor that fits in memory", shape))
}

#[inline]
fn word<F: Float>(x: impl Iterator<Item = F>) -> u32 {
    x.enumerate().fold(0, |word, (i, x)| word | u32::from(is_negative(x)) << i)
}

/// Returns whether the sign of a value is −1.
#[inline(always)]
pub(crate) fn is_negative<F: Float>(x: F) -> bool {
    x.to_f64() < 0.0
}
