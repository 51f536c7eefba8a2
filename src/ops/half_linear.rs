use alloc::vec::Vec;

use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayRef1, ArrayRef2, ArrayView2, s};

use crate::element::HalfFloat;
use crate::error::{Error, Result};

/// Rows of the weights that are widened at a time: they stay in the cache.
const ROWS: usize = 64;

/// A linear layer with half-precision weights: `y = x · f32(w)ᵀ + bias`, products and sums in `f32`.
///
/// Weights stay in half precision, and some rows at a time are widened while the layer runs: that costs little time,
/// and no memory. `ndarray` orders the sums, so their last bits may differ between machines.
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
    /// In row-major order.
    weights: Array2<H>,
    bias: Option<Vec<f32>>,
}

impl<H: HalfFloat> HalfLinear<H> {
    /// Weights are `[out, in]`, the bias is `[out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the bias has another length.
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

    /// `[batch, in]` to `[batch, out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another depth.
    pub fn forward(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let (outputs, depth) = self.weights.dim();
        if x.ncols() != depth {
            return Err(Error::shape("input", &[x.nrows(), depth], x.shape()));
        }
        let mut y = Array2::zeros((x.nrows(), outputs));
        let weights = self.weights.as_slice().expect("in row-major order");
        let mut wide = alloc::vec![0.0; depth * ROWS.min(outputs)];
        for first in (0..outputs).step_by(ROWS) {
            let rows = ROWS.min(outputs - first);
            let wide = &mut wide[..rows * depth];
            H::widen_slice(&weights[first * depth..], wide);
            let wide = ArrayView2::from_shape((rows, depth), &*wide).expect("as many elements");
            general_mat_mul(1.0, x, &wide.t(), 0.0, &mut y.slice_mut(s![.., first..first + rows]));
        }
        if let Some(bias) = &self.bias {
            for mut row in y.rows_mut() {
                row.iter_mut().zip(bias).for_each(|(y, bias)| *y += bias);
            }
        }
        Ok(y)
    }

    /// The bytes that weights and bias take in memory.
    pub fn size_in_bytes(&self) -> usize {
        size_of::<H>() * self.weights.len() + size_of::<f32>() * self.bias.as_ref().map_or(0, Vec::len)
    }
}
