//! Hadamard rotation of a layer's input and weights.

use alloc::vec::Vec;

use ndarray::{Array2, ArrayRef2};

use crate::affine::split_mix;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shapes};
use crate::simd::{self, Task};

/// A Hadamard rotation of a layer's input and weights (QuaRot: Ashkboos et al., 2024; SpinQuant: Liu et al., 2024), which
/// spreads outliers of single channels over all of them.
///
/// `R` is orthogonal, so `x · wᵀ = (x · R) · (w · R)ᵀ`, up to the rounding of `f32`. Quantize `w · R`, and rotate `x` when the
/// layer runs, by `O(in · log in)` sums per row.
///
/// `R = S · H`: `S` is a diagonal of signs, and `H` has Hadamard matrices of Sylvester's form, divided by the square root of
/// their size, on its diagonal. Their sizes are the powers of two that sum to `in`, largest first: one for 4096 channels,
/// 128 and 16 for 144.
///
/// [`Graph::transform_inputs`](crate::graph::Graph::transform_inputs) rotates the inputs of linear layers in a network.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use ndarray_quant::{I4, Scheme, metrics::sqnr_db, nn::LinearNBits, ptq::Hadamard};
///
/// let outlier = |i: usize| if i == 3 { 30.0 } else { 1.0 };
/// let weights = Array2::from_shape_fn((8, 64), |(o, i)| outlier(i) * ((o * 64 + i) as f32 * 0.7).sin());
/// let x = Array2::from_shape_fn((10, 64), |(n, i)| ((n * 64 + i) as f32 * 0.9).cos());
///
/// let rotation = Hadamard::new(64, 1);
/// let scheme = Scheme::<I4>::symmetric().per_axis(Axis(0));
/// let layer = LinearNBits::new(&scheme.quantize(&rotation.rotate(&weights)?)?, None)?;
/// let nearest = LinearNBits::new(&scheme.quantize(&weights)?, None)?;
/// let y = x.dot(&weights.t());
/// assert!(sqnr_db(&y, &layer.forward(&rotation.rotate(&x)?)?)? > sqnr_db(&y, &nearest.forward(&x)?)? + 1.0);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Hadamard {
    /// 1 or -1.
    signs: Vec<f32>,
}

impl Hadamard {
    /// Creates the rotation of this many channels, with signs from a seed.
    pub fn new(channels: usize, seed: u64) -> Self {
        let bits = |i: u64| split_mix(split_mix(seed).wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let signs = (1..=channels as u64).map(|i| if bits(i) >> 63 == 0 { 1.0 } else { -1.0 });
        Self { signs: signs.collect() }
    }

    /// Returns `x · R` of rows `[rows, in]`: inputs or weights.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of channels.
    pub fn rotate(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut rotated = self.checked(x)?;
        self.rotate_rows(rotated.as_slice_mut().expect(ROW_MAJOR));
        Ok(rotated)
    }

    /// [`rotate`](Self::rotate) in place, for whole rows.
    pub(crate) fn rotate_rows(&self, rows: &mut [f32]) {
        self.apply_signs(rows);
        simd::run(Transform { values: rows, channels: self.signs.len() });
    }

    /// Returns `x · Rᵀ`, which undoes [`rotate`](Self::rotate).
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of channels.
    pub fn rotate_back(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        let mut rotated = self.checked(x)?;
        let rows = rotated.as_slice_mut().expect(ROW_MAJOR);
        simd::run(Transform { values: rows, channels: self.signs.len() });
        self.apply_signs(rows);
        Ok(rotated)
    }

    fn apply_signs(&self, rows: &mut [f32]) {
        for row in rows.chunks_exact_mut(self.signs.len().max(1)) {
            row.iter_mut().zip(&self.signs).for_each(|(x, sign)| *x *= sign);
        }
    }

    /// A copy in row-major order.
    fn checked(&self, x: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        check_shapes("x, [rows, in]", &[x.nrows(), self.signs.len()], x.shape())?;
        Ok(x.as_standard_layout().into_owned())
    }

    pub(crate) fn size_in_bytes(&self) -> usize {
        size_of_val(&self.signs[..])
    }
}

const ROW_MAJOR: &str = "a copy in row-major order";

/// The fast Walsh–Hadamard transform of each row, block by block.
struct Transform<'a> {
    values: &'a mut [f32],
    channels: usize,
}

impl Task for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.values.chunks_exact_mut(self.channels.max(1)) {
            let mut rest = row;
            while !rest.is_empty() {
                let size = 1 << rest.len().ilog2();
                let (block, after) = rest.split_at_mut(size);
                let mut half = 1;
                while half < size {
                    for pair in block.chunks_exact_mut(2 * half) {
                        let (a, b) = pair.split_at_mut(half);
                        for (a, b) in a.iter_mut().zip(b) {
                            (*a, *b) = (*a + *b, *a - *b);
                        }
                    }
                    half *= 2;
                }
                let factor = 1.0 / num_traits::Float::sqrt(size as f32);
                block.iter_mut().for_each(|x| *x *= factor);
                rest = after;
            }
        }
    }
}
