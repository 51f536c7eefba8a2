use alloc::vec::Vec;

use ndarray::{Array2, ArrayRef1, ArrayRef2, ArrayView2, s};

use crate::element::HalfFloat;
use crate::error::{Error, Result, check_shapes};
use crate::ops::float_matmul;

/// Rows of the weights that are converted to `f32` together, so that they stay in the cache.
const ROWS: usize = 64;

/// A linear layer with half-precision weights: `y = x · f32(w)ᵀ + bias`, products and sums in `f32`.
///
/// Weights are stored in half precision, `[out, in]`, and converted to `f32` in blocks of rows while the layer runs, so
/// memory is halved at little cost in time. Accuracy is close to `f32`; use [`Linear`](crate::nn::Linear) for 8 bits
/// and fewer. Another crate orders the sums (`gemm`
/// with the feature of that name, `matrixmultiply` without), so their last bits may differ between machines.
///
/// ```
/// use half::f16;
/// use ndarray::array;
/// use ndarray_quant::{Quantize, half::{HalfCast, Overflow}, nn::HalfLinear};
/// let w = HalfCast::<f16>::new(Overflow::Error).quantize(&array![[1.0f32, -0.5]])?;
/// let fc = HalfLinear::new(w, Some(&array![0.25]))?;
/// assert_eq!(fc.forward(&array![[2.0, 1.0]])?, array![[1.75]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HalfLinear<H: HalfFloat> {
    /// `[out, in]`, row-major.
    weights: Array2<H>,
    bias: Option<Vec<f32>>,
}

impl<H: HalfFloat> HalfLinear<H> {
    /// Takes weights `[out, in]` and a bias `[out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bias does not have one element per output.
    pub fn new(weights: Array2<H>, bias: Option<&ArrayRef1<f32>>) -> Result<Self> {
        match bias {
            Some(bias) if bias.len() != weights.nrows() => Err(Error::shape("bias", &[weights.nrows()], bias.shape())),
            _ => {
                let weights =
                    if weights.is_standard_layout() { weights } else { weights.as_standard_layout().into_owned() };
                Ok(Self { weights, bias: bias.map(|b| b.iter().copied().collect()) })
            }
        }
    }

    /// Computes `x · f32(w)ᵀ + bias`: `[batch, in]` to `[batch, out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]`.
    pub fn forward(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut y = Array2::zeros((x.nrows(), self.weights.nrows()));
        self.forward_into(x, &mut y)?;
        Ok(y)
    }

    /// [`Self::forward`] into a caller-provided array of any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `x` is `[batch, in]` and `out` is `[batch, out]`. Then nothing is written.
    pub fn forward_into(&self, x: &ArrayRef2<f32>, out: &mut ArrayRef2<f32>) -> Result<()> {
        let (outputs, depth) = self.weights.dim();
        check_shapes("x, [batch, in]", &[x.nrows(), depth], x.shape())?;
        check_shapes("out, [batch, out]", &[x.nrows(), outputs], out.shape())?;
        let weights = self.weights.as_slice().expect("in row-major order");
        let mut block = alloc::vec![0.0; depth * ROWS.min(outputs)];
        for first in (0..outputs).step_by(ROWS) {
            let rows = ROWS.min(outputs - first);
            let block = &mut block[..rows * depth];
            H::widen_slice(&weights[first * depth..], block);
            let block = ArrayView2::from_shape((rows, depth), &*block).expect("the block has rows * depth elements");
            float_matmul(x.view(), block.t(), out.slice_mut(s![.., first..first + rows]));
        }
        if let Some(bias) = &self.bias {
            for mut row in out.rows_mut() {
                row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        Ok(())
    }

    /// Returns the size of weights and bias in memory, in bytes.
    pub fn size_in_bytes(&self) -> usize {
        size_of::<H>() * self.weights.len() + size_of::<f32>() * self.bias.as_ref().map_or(0, Vec::len)
    }
}
