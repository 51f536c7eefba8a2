//! Signs and ternary weights in training.

use alloc::vec::Vec;

use ndarray::{Array, ArrayRef, Axis, Dimension, Zip};

use crate::binary::is_negative;
use crate::element::Float;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, check_shapes};
use crate::granularity::{Blocks, Granularity};
use crate::range::{check_finite, mean_magnitudes};
use crate::ternary::Ternary;

/// Binarization in training: the forward pass takes signs, the backward pass is the clipped straight-through estimator.
///
/// | | [`new`](Self::new) | [`scaled`](Self::scaled), `s = mean(abs(x))` of a block of `n` elements |
/// |---|---|---|
/// | `y` | `sign(x)` | `s * sign(x)` |
/// | `∂L/∂x` | `∂L/∂y` where `abs(x) <= 1`, otherwise 0 | `s * ∂L/∂y` where `abs(x) <= 1`, otherwise 0, plus `sign(x) / n * Σ ∂L/∂y * sign(x)` |
///
/// `sign(x)` is -1 below 0 and otherwise 1. The estimator is that of binarized neural networks (Courbariaux et al., "Binarized
/// neural networks", 2016, section 1.3), the scale that of XNOR-Net (Rastegari et al. 2016, equation 6). The second term is the
/// derivative of the scale. Use `new` for activations and `scaled` for weights; clip the trained weights to `-1..=1` after each
/// step, so that none leaves the range in which it has a gradient.
///
/// [`BinaryTensor::sign`](crate::BinaryTensor::sign) gives the same signs, packed, and
/// [`BinaryLinear`](crate::nn::BinaryLinear) and [`BinaryConv2d`](crate::nn::BinaryConv2d) multiply them.
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::qat::FakeSign;
///
/// let (x, grad) = (array![[0.5f32, -2.0, 0.0]], array![[1.0f32, 1.0, 1.0]]);
/// let fake = FakeSign::new();
/// assert_eq!(fake.forward(&x)?, array![[1.0, -1.0, 1.0]]);
/// assert_eq!(fake.gradient(&x, &grad)?, array![[1.0, 0.0, 1.0]]);
///
/// let fake = FakeSign::scaled().per_axis(Axis(0));
/// let w = array![[0.5f32, -1.5]];
/// assert_eq!(fake.forward(&w)?, array![[1.0, -1.0]]);
/// // s * 1 + (1 - 0) / 2, and 0 - (1 - 0) / 2.
/// assert_eq!(fake.gradient(&w, &array![[1.0f32, 0.0]])?, array![[1.5, -0.5]]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FakeSign {
    /// None without a scale.
    scale: Option<Granularity>,
}

impl FakeSign {
    /// Takes signs, for activations.
    pub fn new() -> Self {
        Self { scale: None }
    }

    /// Takes signs times the mean magnitude of the tensor, for weights.
    pub fn scaled() -> Self {
        Self { scale: Some(Granularity::PerTensor) }
    }

    /// Sets the granularity to one mean magnitude per index of `axis`, and adds the scale if there is none.
    pub fn per_axis(self, axis: Axis) -> Self {
        Self { scale: Some(Granularity::per_axis(axis)) }
    }

    /// Returns the signs, times the scales.
    ///
    /// # Errors
    /// [`Error::Value`] with the index of the first NaN or infinity. [`Error::Shape`] if `x` does not have the axis.
    pub fn forward<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        check_finite("x", x)?;
        let means = self.means(x)?;
        Ok(self.map(x, |x, block| F::from_f64(means.as_ref().map_or(1.0, |means| means[block]) * sign(x))))
    }

    /// Returns the gradient by `x`, given the input of the forward pass and the gradient `grad` of its output.
    ///
    /// Sums over a block are in `f64`, in row-major order.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` and `grad` differ in shape. Otherwise the same as [`forward`](Self::forward).
    pub fn gradient<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>, grad: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        check_shapes("gradient", x.shape(), grad.shape())?;
        check_finite("x", x)?;
        let passes = |x: F| x.to_f64().abs() <= 1.0;
        let Some(means) = self.means(x)? else {
            return Ok(Zip::from(x).and(grad).map_collect(|&x, &grad| grad.only_if(passes(x))));
        };
        let (mut sums, mut grads) = (alloc::vec![(0.0, 0.0); means.len()], grad.iter());
        self.map(x, |x, block| {
            let grad = grads.next().map_or(0.0, |grad| grad.to_f64());
            sums[block] = (sums[block].0 + sign(x) * grad, sums[block].1 + 1.0);
        });
        let mut grads = grad.iter();
        Ok(self.map(x, |x, block| {
            let grad = grads.next().map_or(0.0, |grad| grad.to_f64());
            let (sum, count) = sums[block];
            let by_sign = if passes(x) { means[block] * grad } else { 0.0 };
            F::from_f64(by_sign + sign(x) * sum / count)
        }))
    }

    /// Returns the mean magnitude of each block, in row-major order.
    fn means<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<Option<Vec<f64>>> {
        let means = |granularity| mean_magnitudes(x, granularity, |_| None).map(|means| means.into_iter().collect());
        self.scale.map(means).transpose()
    }

    /// Calls `f` with each element and its block, in row-major order. The means have checked the axis.
    fn map<F: Float, A, D: Dimension>(&self, x: &ArrayRef<F, D>, mut f: impl FnMut(F, usize) -> A) -> Array<A, D> {
        let mut values = Vec::with_capacity(x.len());
        let blocks = Blocks::new(self.scale.unwrap_or_default(), x.ndim()).expect("an axis of the tensor");
        blocks.for_each_run(x, |run, x| values.extend(x.iter().enumerate().map(|(i, &x)| f(x, run.block(i)))));
        Array::from_shape_vec(x.raw_dim(), values).expect("a value for each element")
    }
}

impl Default for FakeSign {
    fn default() -> Self {
        Self::new()
    }
}

fn sign<F: Float>(x: F) -> f64 {
    if is_negative(x) { -1.0 } else { 1.0 }
}

/// Ternary weights in training: the forward pass is [`Ternary`]'s, the backward pass is the straight-through estimator.
///
/// `y = dequantize(quantize(x))` and `∂L/∂x = ∂L/∂y`: the gradient by the ternary weights is the gradient by the weights (Li et al.
/// 2016, section 2.3; BitNet b1.58). With [`Ternary::absmean`], [`FakeQuantize`](super::FakeQuantize) with the parameters of each
/// step and [`SteClipping::Never`](super::SteClipping::Never) is the same, and can be trained in a
/// [`FakeLinear`](super::FakeLinear).
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::{Ternary, qat::FakeTernary};
///
/// let (w, grad) = (array![1.0f32, -0.25, 0.5], array![1.0f32, 2.0, 3.0]);
/// let fake = FakeTernary::new(Ternary::twn());
/// assert_eq!(fake.forward(&w)?, array![0.75, 0.0, 0.75]);
/// assert_eq!(fake.gradient(&w, &grad)?, grad);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FakeTernary {
    ternary: Ternary,
}

impl FakeTernary {
    /// Quantizes in this way.
    pub fn new(ternary: Ternary) -> Self {
        Self { ternary }
    }

    /// Returns the fake-quantized values.
    ///
    /// # Errors
    /// Same as [`Ternary::quantize`].
    pub fn forward<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        Ok(self.ternary.quantize(x)?.dequantize_as())
    }

    /// Returns the gradient by `x`, given the input of the forward pass and the gradient `grad` of its output.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` and `grad` differ in shape.
    pub fn gradient<F: Float, D: Dimension>(&self, x: &ArrayRef<F, D>, grad: &ArrayRef<F, D>) -> Result<Array<F, D>> {
        check_shapes("gradient", x.shape(), grad.shape())?;
        Ok(grad.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use ndarray::{Array2, Axis, Zip};
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_pcg::Pcg64;

    use super::*;
    use crate::BinaryTensor;
    use crate::error::Error;
    use crate::qat::{FakeQuantize, SteClipping};

    fn uniform(shape: (usize, usize), rng: &mut Pcg64) -> Array2<f64> {
        Array2::from_shape_simple_fn(shape, || rng.random_range(-2.0..2.0))
    }

    /// `Σ grad * mean(abs(x)) * signs` with these signs, whatever `x` is.
    fn loss(x: &Array2<f64>, signs: &Array2<f64>, grad: &Array2<f64>) -> f64 {
        let rows = x.rows().into_iter().zip(signs.rows()).zip(grad.rows());
        rows.map(|((x, signs), grad)| x.mapv(f64::abs).mean().unwrap() * (&signs * &grad).sum()).sum()
    }

    proptest! {
        #[test]
        fn signs_and_their_gradients(rows in 1..5usize, cols in 1..12usize, seed: u64) {
            let rng = &mut Pcg64::seed_from_u64(seed);
            let (x, grad) = (uniform((rows, cols), rng), uniform((rows, cols), rng));
            let signs = x.mapv(|x| if x < 0.0 { -1.0 } else { 1.0 });
            let plain = FakeSign::new();
            prop_assert_eq!(&plain.forward(&x).unwrap(), &signs);
            prop_assert_eq!(BinaryTensor::sign(&x).unwrap().dequantize().mapv(f64::from), signs.clone());
            let passed = Zip::from(&x).and(&grad).map_collect(|x, &grad| if x.abs() <= 1.0 { grad } else { 0.0 });
            prop_assert_eq!(&plain.gradient(&x, &grad).unwrap(), &passed);

            let scaled = FakeSign::scaled().per_axis(Axis(0));
            let means = x.mapv(f64::abs).mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
            let y = scaled.forward(&x).unwrap();
            prop_assert!((&y - &(&signs * &means)).iter().all(|error| error.abs() < 1e-12));
            // The derivative through the scale is that of finite differences.
            let through_scale = scaled.gradient(&x, &grad).unwrap() - &passed * &means;
            for (at, &found) in through_scale.indexed_iter() {
                const STEP: f64 = 1e-6;
                prop_assume!(x[at].abs() > 2.0 * STEP);
                let moved = |step: f64| { let mut x = x.clone(); x[at] += step; loss(&x, &signs, &grad) };
                let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
                prop_assert!((found - expected).abs() < 1e-6, "{} instead of {}", found, expected);
            }
            let transposed = FakeSign::scaled().per_axis(Axis(1)).gradient(&x.t(), &grad.t()).unwrap();
            prop_assert!((&transposed.t() - &scaled.gradient(&x, &grad).unwrap()).iter().all(|error| error.abs() < 1e-12));
        }

        /// `FakeTernary` by the mean magnitude is fake quantization whose gradient always passes.
        #[test]
        fn ternary_is_fake_quantization(rows in 1..5usize, cols in 1..12usize, seed: u64) {
            let rng = &mut Pcg64::seed_from_u64(seed);
            let (x, grad) = (uniform((rows, cols), rng).mapv(|x| x as f32), uniform((rows, cols), rng).mapv(|x| x as f32));
            let ternary = Ternary::absmean().per_axis(Axis(0));
            let fake = FakeQuantize::new(ternary.params_of(&x).unwrap()).with_clipping(SteClipping::Never);
            let (y, mask) = fake.forward(&x).unwrap();
            prop_assert_eq!(mask.clipped(), 0);
            let other = FakeTernary::new(ternary);
            prop_assert_eq!(&other.forward(&x).unwrap(), &y);
            prop_assert_eq!(&other.forward(&x).unwrap(), &ternary.quantize(&x).unwrap().dequantize());
            prop_assert_eq!(&fake.backward(&mask, &grad).unwrap(), &grad);
            prop_assert_eq!(&other.gradient(&x, &grad).unwrap(), &grad);
            let gradients = fake.gradients(&x, &grad).unwrap();
            prop_assert_eq!(&gradients.input, &grad);
            for (i, &by_scale) in gradients.scale.iter().enumerate() {
                let scale = fake.params().scales()[i];
                let terms = x.row(i).into_iter().zip(y.row(i)).zip(grad.row(i));
                let expected: f32 = terms.map(|((x, y), grad)| grad * (y - x) / scale).sum();
                prop_assert!((by_scale - expected).abs() < 1e-4, "{} instead of {}", by_scale, expected);
            }
        }
    }

    #[test]
    fn errors() {
        let (x, nan) = (ndarray::array![1.0f32, -1.0], ndarray::array![1.0, f32::NAN]);
        for fake in [FakeSign::new(), FakeSign::scaled()] {
            assert!(matches!(fake.forward(&nan), Err(Error::Value(_))));
            assert!(matches!(fake.gradient(&x, &ndarray::array![1.0]), Err(Error::Shape(_))));
            assert!(matches!(fake.per_axis(Axis(1)).forward(&x), Err(Error::Shape(_))));
        }
        assert!(matches!(FakeTernary::new(Ternary::twn()).forward(&nan), Err(Error::Value(_))));
    }
}
