//! Ternary weights: −1, 0 and 1 times a scale.

use alloc::vec::Vec;

use ndarray::{Array, ArrayD, ArrayRef, Axis, Dimension};

use crate::element::Float;
use crate::element::integer::I2;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::granularity::{Blocks, Granularity};
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::quantize::Quantize;
use crate::range::mean_magnitudes;

/// Quantizes weights to the codes −1, 0 and 1 times a scale of each block: `w ≈ scale * code`.
///
/// | | scale | code |
/// |---|---|---|
/// | [`absmean`](Self::absmean) | `mean(abs(w))` | `clamp(rne(w / scale), -1, 1)` |
/// | [`twn`](Self::twn) | `mean(abs(w))` of the `w` with `abs(w) > Δ` | `sign(w)` if `abs(w) > Δ`, otherwise 0; `Δ = 0.7 * mean(abs(w))` |
///
/// `absmean` is BitNet b1.58's (Ma et al., "The era of 1-bit LLMs: all large language models are in 1.58 bits", 2024), without its
/// `ε`: the scale of a block of zeros is 1. `twn` are ternary weight networks (Li, Zhang and Liu, "Ternary weight networks", 2016,
/// equations 5 and 6), whose threshold nearly minimizes the squared error. Use `absmean` where training decides, and `twn` for
/// weights that are quantized after training.
///
/// Means are sums in `f64` in row-major order, rounded to `f32` at the end. A block is the tensor, unless the granularity is per
/// axis or per group. [`LinearNBits`](crate::nn::LinearNBits) multiplies the result, four codes to a byte.
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::Ternary;
///
/// let w = array![[0.75f32, -1.25, 0.25, 0.0], [-0.5, 0.5, 0.0, 0.25]];
/// let q = Ternary::twn().per_axis(Axis(0)).quantize(&w)?;
/// assert_eq!(q.unpacked_codes(), array![[1, -1, 0, 0], [-1, 1, 0, 1]]);
/// assert_eq!(q.params().scales()[0], 1.0); // the mean of 0.75 and 1.25
/// assert_eq!(q.size_in_bytes(), 8 / 4 + 2 * 4);
///
/// let q = Ternary::absmean().quantize(&array![0.5f32, -1.5, 1.0, 0.0])?;
/// assert_eq!(q.dequantize(), array![0.75, -0.75, 0.75, 0.0]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ternary {
    /// True for ternary weight networks, false for the mean magnitude.
    threshold: bool,
    granularity: Granularity,
}

impl Ternary {
    /// Scales by the mean magnitude, and rounds (BitNet b1.58).
    pub fn absmean() -> Self {
        Self { threshold: false, granularity: Granularity::PerTensor }
    }

    /// Drops small weights, and scales by the mean magnitude of the others (ternary weight networks).
    pub fn twn() -> Self {
        Self { threshold: true, granularity: Granularity::PerTensor }
    }

    /// Sets the granularity to one scale per index of `axis`.
    pub fn per_axis(self, axis: Axis) -> Self {
        self.with_granularity(Granularity::per_axis(axis))
    }

    /// Sets the granularity to one scale per group of `size` elements along `axis`.
    pub fn per_group(self, axis: Axis, size: usize) -> Self {
        self.with_granularity(Granularity::per_group(axis, size))
    }

    /// Sets the granularity.
    pub fn with_granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// Returns the scales of the blocks of `x`, with the code range `-1..=1`. By `absmean`, [`QParams::quantize`] with them gives
    /// the codes of [`quantize`](Self::quantize).
    ///
    /// # Errors
    /// [`Error::Value`] with the index of the first NaN or infinity. [`Error::Params`] if groups have 0 elements, or a scale is
    /// too small or too great for `f32`. [`Error::Shape`] if `x` does not have the axis.
    pub fn params_of<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<QParams<I2>> {
        self.params(x, &mean_magnitudes(x, self.granularity, |_| None)?)
    }

    /// Returns the scales of blocks with these mean magnitudes.
    fn params<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>, means: &ArrayD<f64>) -> Result<QParams<I2>> {
        let scale = |mean: f64| if mean > 0.0 { mean as f32 } else { 1.0 };
        let scales = match self.threshold {
            false => means.mapv(scale),
            true => mean_magnitudes(x, self.granularity, |block| Some(threshold(means, block)))?.mapv(scale),
        };
        QParams::new(self.granularity, scales, None)?.with_code_range(-1, 1)
    }

    /// Quantizes weights of any shape and strides.
    ///
    /// # Errors
    /// Same as [`params_of`](Self::params_of).
    pub fn quantize<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<QTensor<I2, D>> {
        let means = mean_magnitudes(x, self.granularity, |_| None)?;
        let params = self.params(x, &means)?;
        if !self.threshold {
            return params.quantize(x);
        }
        let mut codes = Vec::with_capacity(x.len());
        Blocks::new(self.granularity, x.ndim())?.for_each_run(x, |run, values| {
            codes.extend(values.iter().enumerate().map(|(i, x)| {
                let (x, threshold) = (x.to_f64(), threshold(&means, run.block(i)));
                i8::from(x > threshold) - i8::from(x < -threshold)
            }));
        });
        let codes = Array::from_shape_vec(x.raw_dim(), codes).expect("a code for each element");
        QTensor::from_valid_codes(codes, params)
    }
}

/// Returns the `Δ` of a block.
fn threshold(means: &ArrayD<f64>, block: usize) -> f64 {
    0.7 * means.as_slice().map_or(0.0, |means| means[block])
}

impl<F: Float, D: Dimension> Quantize<F, D> for Ternary {
    type Output = QTensor<I2, D>;

    fn quantize(&self, x: &ArrayRef<F, D>) -> Result<Self::Output> {
        self.quantize(x)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ndarray::Array2;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;
    use crate::error::Error;

    fn mean(x: impl Iterator<Item = f64>) -> f64 {
        let (sum, count) = x.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// The formulas of a block, plainly.
    fn expected(ternary: Ternary, block: &[f32]) -> (f32, Vec<i8>) {
        let magnitudes = || block.iter().map(|x| f64::from(x.abs()));
        let scale_of = |mean: f64| if mean > 0.0 { mean as f32 } else { 1.0 };
        if ternary.threshold {
            let delta = 0.7 * mean(magnitudes());
            let scale = scale_of(mean(magnitudes().filter(|&x| x > delta)));
            let code = |&x: &f32| if f64::from(x.abs()) <= delta { 0 } else { x.signum() as i8 };
            return (scale, block.iter().map(code).collect());
        }
        let scale = scale_of(mean(magnitudes()));
        (scale, block.iter().map(|x| (x / scale).round_ties_even().clamp(-1.0, 1.0) as i8).collect())
    }

    fn check(
        ternary: Ternary,
        x: &Array2<f32>,
        blocks: &[Vec<(usize, usize)>],
    ) -> core::result::Result<(), TestCaseError> {
        let q = ternary.quantize(x).unwrap();
        prop_assert_eq!(q.params().code_range(), (-1, 1));
        prop_assert_eq!(q.params(), &ternary.params_of(x).unwrap());
        for (i, block) in blocks.iter().enumerate() {
            let values: Vec<f32> = block.iter().map(|&at| x[at]).collect();
            let (scale, codes) = expected(ternary, &values);
            prop_assert_eq!(q.params().scales()[i], scale);
            let found: Vec<i8> = block.iter().map(|&at| q.unpacked_codes()[at]).collect();
            prop_assert_eq!(found, codes);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn scales_and_codes_are_those_of_the_papers(rows in 1..6usize, cols in 1..40usize, size in 1..20usize, zeros: bool, seed: u64) {
            let mut rng = Pcg64::seed_from_u64(seed);
            let x = Array2::from_shape_simple_fn((rows, cols), || {
                if zeros && rng.random_range(0..3) > 0 { 0.0 } else { rng.random_range(-2.0..2.0f32) }
            });
            let row = |i: usize| (0..cols).map(move |j| (i, j));
            let rows_of = || (0..rows).map(row);
            let groups = rows_of().flat_map(|row| row.collect::<Vec<_>>().chunks(size).map(<[_]>::to_vec).collect::<Vec<_>>());
            let groups: Vec<_> = groups.collect();
            for ternary in [Ternary::absmean(), Ternary::twn()] {
                check(ternary, &x, &[rows_of().flatten().collect()])?;
                check(ternary.per_axis(Axis(0)), &x, &rows_of().map(Iterator::collect).collect::<Vec<_>>())?;
                check(ternary.per_group(Axis(1), size), &x, &groups)?;
                // Any strides.
                let q = ternary.per_axis(Axis(0)).quantize(&x).unwrap();
                let transposed = ternary.per_axis(Axis(1)).quantize(&x.t()).unwrap();
                prop_assert_eq!(transposed.dequantize().reversed_axes(), q.dequantize());
            }
        }
    }

    #[test]
    fn errors() {
        assert!(matches!(Ternary::twn().quantize(&ndarray::array![1.0, f32::NAN]), Err(Error::Value(_))));
        assert!(matches!(Ternary::absmean().quantize(&ndarray::array![f32::INFINITY]), Err(Error::Value(_))));
        assert!(matches!(Ternary::twn().per_axis(Axis(1)).quantize(&ndarray::array![1.0f32]), Err(Error::Shape(_))));
        assert!(matches!(
            Ternary::twn().per_group(Axis(0), 0).quantize(&ndarray::array![1.0f32]),
            Err(Error::Params(_))
        ));
        assert_eq!(
            Ternary::twn().quantize(&ndarray::array![0.0f32, 0.0]).unwrap().dequantize(),
            ndarray::array![0.0, 0.0]
        );
        assert!(Ternary::twn().quantize(&Array2::<f32>::zeros((0, 3))).unwrap().is_empty());
    }
}
