//! Linear layers of signs.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use ndarray::{Array2, ArrayRef1, ArrayRef2, ArrayView2, Ix2};

use super::weights::{Output, SignRows, SignWeights, mean_magnitudes};
use crate::binary::BinaryTensor;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shapes};
use crate::gemm::Workspace;
use crate::ops::linear::output_shape;
use crate::simd::Isa;

/// A linear layer whose weights and activations are −1 and 1 (XNOR-Net: Rastegari et al. 2016; Larq: `QuantDense` with binary
/// inputs; Larq Compute Engine: a 1 × 1 `LceBConv2d`).
///
/// `y = scale * (depth - 2 * popcount(x ^ w)) + bias`: the count is exact, product and sum round to `f32`, in this order. Scales
/// may have any sign, so a batch normalization of the output folds into scale and bias.
///
/// | form | output | use it for |
/// |---|---|---|
/// | [`forward`](Self::forward) | `f32` | the last layer, and layers before other activations |
/// | [`forward_sign`](Self::forward_sign) | signs of the same `f32`, by comparing the count with a threshold | layers between binary layers |
///
/// Weights take a bit each, in panels of 16 outputs and words of 32. Results are the same bits on every instruction set and
/// number of threads, which split rows.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{BinaryTensor, nn::BinaryLinear};
///
/// let w = array![[0.5f32, -1.5, 1.0], [2.0, 2.0, -2.0]];
/// let layer = BinaryLinear::new(&w, Some(&array![0.25, 0.0]))?; // scales 1 and 2
/// let x = BinaryTensor::sign(&array![[0.3f32, -0.1, -7.0]])?;
/// assert_eq!(layer.forward(&x)?, array![[1.25, 2.0]]); // 1 * (1 + 1 - 1) + 0.25, 2 * (1 - 1 + 1)
/// assert_eq!(layer.forward_sign(&x)?.dequantize(), array![[1.0, 1.0]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BinaryLinear {
    weights: SignWeights,
    depth: usize,
}

impl BinaryLinear {
    /// Takes the signs of weights `[out, in]`, with the mean magnitude of each output as its scale (XNOR-Net), and a bias `[out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bias does not have one element per output. [`Error::Value`] if weights or bias hold a NaN or an
    /// infinity, or the depth is more than 2²⁹.
    pub fn new(weights: &ArrayRef2<f32>, bias: Option<&ArrayRef1<f32>>) -> Result<Self> {
        Self::from_signs(&BinaryTensor::sign(weights)?, &mean_magnitudes(weights)?, bias)
    }

    /// Packs weights `[out, in]` that are signs, with a scale and a bias for each output.
    ///
    /// # Errors
    /// [`Error::Shape`] if scales or bias do not have one element per output. [`Error::Value`] if they hold a NaN or an infinity, or
    /// the depth is more than 2²⁹.
    pub fn from_signs(
        weights: &BinaryTensor<Ix2>,
        scales: &ArrayRef1<f32>,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<Self> {
        let (outputs, depth) = (weights.shape()[0], weights.shape()[1]);
        let rows = ArrayView2::from_shape((outputs, weights.row_words()), weights.as_words());
        let rows = rows.expect("the words of a tensor have its shape");
        Ok(Self { weights: SignWeights::new(rows, depth, scales, bias)?, depth })
    }

    /// Returns the shape of the output, `[batch, out]`, for an input of this shape.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`.
    pub fn output_shape(&self, x: &[usize]) -> Result<[usize; 2]> {
        output_shape([self.depth, self.weights.outputs()], x)
    }

    /// Computes `f32`: `[batch, in]` to `[batch, out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`.
    pub fn forward(&self, x: &BinaryTensor<Ix2>) -> Result<Array2<f32>> {
        let mut out = Array2::zeros(self.output_shape(x.shape())?);
        self.forward_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`Self::forward`] into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]` and `out` is `[batch, out]`. Nothing is written then.
    pub fn forward_into(
        &self,
        x: &BinaryTensor<Ix2>,
        out: &mut ArrayRef2<f32>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        check_shapes("out, [batch, out]", &self.output_shape(x.shape())?, out.shape())?;
        if let Some(out) = out.as_slice_mut() {
            self.multiply(Isa::current(), x, out, workspace);
            return Ok(());
        }
        let mut y = Array2::zeros(out.raw_dim());
        self.multiply(Isa::current(), x, y.as_slice_mut().unwrap_or_default(), workspace);
        out.assign(&y);
        Ok(())
    }

    /// Computes the signs of [`Self::forward`].
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`.
    pub fn forward_sign(&self, x: &BinaryTensor<Ix2>) -> Result<BinaryTensor<Ix2>> {
        let [batch, outputs] = self.output_shape(x.shape())?;
        let mut words = vec![0; batch * u32::row_len(outputs)];
        self.multiply(Isa::current(), x, &mut words, &mut Workspace::new());
        Ok(BinaryTensor::from_valid_words(Ix2(batch, outputs), words))
    }

    pub(super) fn multiply<O: Output>(
        &self,
        isa: Isa,
        x: &BinaryTensor<Ix2>,
        out: &mut [O],
        workspace: &mut Workspace,
    ) {
        self.weights.multiply(isa, &Words { words: x.as_words(), row: self.weights.words() }, out, workspace);
    }

    /// Returns the size of packed weights, scales, thresholds and bias in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.weights.size_in_bytes()
    }
}

/// Rows in memory.
pub(super) struct Words<'a> {
    pub(super) words: &'a [u32],
    /// Words of a row.
    pub(super) row: usize,
}

impl SignRows for Words<'_> {
    fn rows<'a>(&'a self, rows: Range<usize>, _: &'a mut Vec<u32>) -> &'a [u32] {
        &self.words[rows.start * self.row..rows.end * self.row]
    }
}
