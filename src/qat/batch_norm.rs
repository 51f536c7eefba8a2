//! Batch normalization folded into the weights during training.

use alloc::string::ToString;

use ndarray::{Array, Array1, ArrayRef, ArrayRef1, ArrayViewMut1, Axis, Dimension, RemoveAxis, Zip};

use crate::error::{Error, Result, check_shapes};

/// Batch normalization folded into the weights during training, so that training quantizes the weights of the deployed
/// network. (Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, section 3.2.2; Jacob et
/// al. 2018, section 3.2; PyTorch: the fused modules of `torch.ao.nn.intrinsic.qat`, such as `ConvBn2d`.)
///
/// `z = w · x` is the product with unfolded weights, `μ` and `σ = sqrt(variance + ε)` are the running statistics of `z`, and
/// `μ_b`, `σ_b` the statistics of the batch:
///
/// | | |
/// |---|---|
/// | [`fold`](Self::fold) | `ŵ = w γ / σ`, to be fake-quantized; then `u = fake_quantize(ŵ) · x` |
/// | [`normalize`](Self::normalize) with batch statistics | `y = u σ / σ_b + β - γ μ_b / σ_b` |
/// | [`normalize`](Self::normalize) without, frozen | `y = u + β - γ μ / σ` |
///
/// Weights are folded by the running statistics, so that their scale does not change from batch to batch; the correction
/// `σ / σ_b` makes the output equal batch normalization's. Frozen, `y` is the output of the deployed network with the
/// bias [`folded_bias`](Self::folded_bias). Channels are axis 0 of weights and axis 1 of outputs.
///
/// ```
/// use ndarray::{Array1, array};
/// use ndarray_quant::qat::BatchNormFold;
///
/// let (w, x) = (array![[2.0f32, 0.0], [0.0, 1.0]], array![[1.0f32, 1.0], [3.0, 2.0], [2.0, 6.0]]);
/// let mut bn = BatchNormFold::new(array![1.0, 2.0], array![0.0, 0.5])?;
///
/// // A training step without quantization equals batch normalization.
/// let z = x.dot(&w.t());
/// let batch = bn.observe(&z)?;
/// let y = bn.normalize(&x.dot(&bn.fold(&w)?.t()), Some(&batch))?;
/// let mean = y.mean_axis(ndarray::Axis(0)).unwrap();
/// assert!(mean[0].abs() < 1e-5 && (mean[1] - 0.5).abs() < 1e-5);
///
/// // Frozen: the deployed network.
/// let y = bn.normalize(&x.dot(&bn.fold(&w)?.t()), None)?;
/// assert_eq!(y, x.dot(&bn.fold(&w)?.t()) + bn.folded_bias());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BatchNormFold {
    gamma: Array1<f32>,
    beta: Array1<f32>,
    mean: Array1<f32>,
    variance: Array1<f32>,
    epsilon: f32,
    momentum: f32,
}

/// The mean and the standard deviation of each channel over a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchStatistics {
    mean: Array1<f32>,
    /// `sqrt(variance + ε)` with the biased variance of the batch.
    deviation: Array1<f32>,
    /// The number of values per channel.
    count: usize,
}

impl BatchStatistics {
    /// The mean of each channel.
    pub fn mean(&self) -> &Array1<f32> {
        &self.mean
    }

    /// `sqrt(variance + ε)` of each channel.
    pub fn deviation(&self) -> &Array1<f32> {
        &self.deviation
    }
}

/// The gradients of a loss by the inputs of [`BatchNormFold::normalize`].
#[derive(Debug, Clone, PartialEq)]
pub struct FoldGradients<D: Dimension> {
    /// The gradient by `u`, the product with folded weights.
    pub folded: Array<f32, D>,
    /// The gradient by `z`, the product with unfolded weights, through the batch statistics; 0 if frozen.
    pub unfolded: Array<f32, D>,
    /// The gradient by `γ`, to which the gradient through the folded weights, from [`BatchNormFold::fold_backward`], must be
    /// added.
    pub gamma: Array1<f32>,
    /// The gradient by `β`.
    pub beta: Array1<f32>,
}

impl BatchNormFold {
    /// Starts with running means of 0, variances of 1, `ε = 1e-5` and a momentum of 0.1, PyTorch's defaults.
    ///
    /// # Errors
    /// [`Error::Shape`] if their lengths differ.
    pub fn new(gamma: Array1<f32>, beta: Array1<f32>) -> Result<Self> {
        let (mean, variance) = (Array1::zeros(gamma.len()), Array1::ones(gamma.len()));
        check_channels("beta", gamma.len(), &beta)?;
        Ok(Self { gamma, beta, mean, variance, epsilon: 1e-5, momentum: 0.1 })
    }

    /// Sets the running statistics, for example from a pretrained network.
    ///
    /// # Errors
    /// [`Error::Shape`] if a length is not the number of channels, [`Error::Argument`] if a variance is negative or not
    /// finite.
    pub fn with_running_statistics(mut self, mean: Array1<f32>, variance: Array1<f32>) -> Result<Self> {
        check_channels("running mean", self.gamma.len(), &mean)?;
        check_channels("running variance", self.gamma.len(), &variance)?;
        if let Some((channel, bad)) = variance.iter().enumerate().find(|(_, v)| !(v.is_finite() && **v >= 0.0)) {
            let (expected, found) = ("finite values of at least 0", alloc::format!("{bad} at channel {channel}"));
            return Err(Error::Argument { what: "running variance", expected, found });
        }
        (self.mean, self.variance) = (mean, variance);
        Ok(self)
    }

    /// Sets `ε`, which is added to variances. The default is 1e-5.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `epsilon` is positive and finite.
    pub fn with_epsilon(mut self, epsilon: f32) -> Result<Self> {
        if !(epsilon > 0.0 && epsilon.is_finite()) {
            let found = epsilon.to_string();
            return Err(Error::Argument {
                what: "epsilon of batch normalization",
                expected: "above 0 and finite",
                found,
            });
        }
        self.epsilon = epsilon;
        Ok(self)
    }

    /// Sets the weight of the newest batch in the running statistics. The default is PyTorch's 0.1.
    ///
    /// # Errors
    /// [`Error::Argument`] unless `0 <= momentum <= 1`.
    pub fn with_momentum(mut self, momentum: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&momentum) {
            let found = momentum.to_string();
            return Err(Error::Argument { what: "momentum of batch normalization", expected: "in 0..=1", found });
        }
        self.momentum = momentum;
        Ok(self)
    }

    /// `γ`, one per channel.
    pub fn gamma(&self) -> &Array1<f32> {
        &self.gamma
    }

    /// `γ`, mutable for an optimizer.
    pub fn gamma_mut(&mut self) -> ArrayViewMut1<'_, f32> {
        self.gamma.view_mut()
    }

    /// `β`, one per channel.
    pub fn beta(&self) -> &Array1<f32> {
        &self.beta
    }

    /// `β`, mutable for an optimizer.
    pub fn beta_mut(&mut self) -> ArrayViewMut1<'_, f32> {
        self.beta.view_mut()
    }

    /// The running means and variances, one per channel.
    pub fn running_statistics(&self) -> (&Array1<f32>, &Array1<f32>) {
        (&self.mean, &self.variance)
    }

    /// Computes the statistics of a batch of `z`, the product with unfolded weights, and updates the running statistics:
    /// `running += momentum * (batch - running)`, with the unbiased variance (denominator `n - 1`) as in PyTorch.
    ///
    /// # Errors
    /// [`Error::Shape`] if the length of axis 1 is not the number of channels, `z` is empty or there is no axis 1.
    pub fn observe<D: RemoveAxis>(&mut self, z: &ArrayRef<f32, D>) -> Result<BatchStatistics> {
        self.check(z)?;
        let channels = self.gamma.len();
        let count = z.len() / channels.max(1);
        if count == 0 {
            return Err(Error::shape("values of a batch", &[1, channels], z.shape()));
        }
        let mut batch = BatchStatistics { mean: Array1::zeros(channels), deviation: Array1::zeros(channels), count };
        for (c, z) in z.axis_iter(Axis(1)).enumerate() {
            let mean = z.iter().map(|&z| z as f64).sum::<f64>() / count as f64;
            let square = z.iter().map(|&z| (z as f64 - mean) * (z as f64 - mean)).sum::<f64>();
            batch.mean[c] = mean as f32;
            batch.deviation[c] = num_traits::Float::sqrt(square / count as f64 + self.epsilon as f64) as f32;
            let unbiased = square / (count - 1).max(1) as f64;
            self.mean[c] += self.momentum * (mean as f32 - self.mean[c]);
            self.variance[c] += self.momentum * (unbiased as f32 - self.variance[c]);
        }
        Ok(batch)
    }

    /// The folded weights `ŵ = w γ / σ`, with channels on axis 0.
    ///
    /// # Errors
    /// [`Error::Shape`] if the length of axis 0 is not the number of channels.
    pub fn fold<D: RemoveAxis>(&self, w: &ArrayRef<f32, D>) -> Result<Array<f32, D>> {
        self.check_weights(w)?;
        let mut folded = w.to_owned();
        for (c, mut w) in folded.axis_iter_mut(Axis(0)).enumerate() {
            w *= self.gamma[c] / self.deviation(c);
        }
        Ok(folded)
    }

    /// The bias of the deployed network, `β - γ μ / σ`.
    pub fn folded_bias(&self) -> Array1<f32> {
        (0..self.gamma.len()).map(|c| self.beta[c] - self.gamma[c] * self.mean[c] / self.deviation(c)).collect()
    }

    /// The output for `u`, the product with folded weights: `u σ / σ_b + β - γ μ_b / σ_b` with batch statistics, otherwise
    /// `u + folded_bias`.
    ///
    /// # Errors
    /// [`Error::Shape`] if the length of axis 1 is not the number of channels, or there is no axis 1.
    pub fn normalize<D: RemoveAxis>(
        &self,
        u: &ArrayRef<f32, D>,
        batch: Option<&BatchStatistics>,
    ) -> Result<Array<f32, D>> {
        self.check(u)?;
        let (mut y, bias) = (u.to_owned(), self.folded_bias());
        for (c, mut y) in y.axis_iter_mut(Axis(1)).enumerate() {
            let (factor, bias) = match batch {
                Some(b) => {
                    let bias = self.beta[c] - self.gamma[c] * b.mean[c] / b.deviation[c];
                    (self.deviation(c) / b.deviation[c], bias)
                }
                None => (1.0, bias[c]),
            };
            y.mapv_inplace(|u| u * factor + bias);
        }
        Ok(y)
    }

    /// The backward pass of [`normalize`](Self::normalize), with the running statistics as constants. `batch` holds `z` and
    /// its statistics, or is `None` if frozen.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes differ, the length of axis 1 is not the number of channels, or there is no axis 1.
    pub fn normalize_backward<D: RemoveAxis>(
        &self,
        u: &ArrayRef<f32, D>,
        batch: Option<(&ArrayRef<f32, D>, &BatchStatistics)>,
        grad: &ArrayRef<f32, D>,
    ) -> Result<FoldGradients<D>> {
        self.check(u)?;
        check_shapes("gradient", u.shape(), grad.shape())?;
        let channels = self.gamma.len();
        let mut out = FoldGradients {
            folded: grad.to_owned(),
            unfolded: Array::zeros(u.raw_dim()),
            gamma: Array1::zeros(channels),
            beta: Array1::zeros(channels),
        };
        if let Some((z, _)) = batch {
            check_shapes("products with unfolded weights", u.shape(), z.shape())?;
        }
        for c in 0..channels {
            let (u, grad) = (u.index_axis(Axis(1), c), grad.index_axis(Axis(1), c));
            let total = grad.iter().map(|&g| g as f64).sum::<f64>();
            out.beta[c] = total as f32;
            let Some((z, b)) = batch else {
                out.gamma[c] = -total as f32 * self.mean[c] / self.deviation(c);
                continue;
            };
            let (gamma, mean, deviation) = (self.gamma[c] as f64, b.mean[c] as f64, b.deviation[c] as f64);
            let running = self.deviation(c) as f64;
            out.folded.index_axis_mut(Axis(1), c).mapv_inplace(|g| (g as f64 * running / deviation) as f32);
            out.gamma[c] = (-total * mean / deviation) as f32;
            // The derivatives of y = u σ / σ_b + β - γ μ_b / σ_b by μ_b and by σ_b.
            let along: f64 = grad.iter().zip(u).map(|(&g, &u)| g as f64 * u as f64).sum();
            let by_mean = -gamma / deviation * total;
            let by_deviation = (-running * along + gamma * mean * total) / (deviation * deviation);
            let count = b.count as f64;
            Zip::from(out.unfolded.index_axis_mut(Axis(1), c)).and(z.index_axis(Axis(1), c)).for_each(|out, &z| {
                *out = ((by_mean + by_deviation * (z as f64 - mean) / deviation) / count) as f32;
            });
        }
        Ok(out)
    }

    /// The backward pass of [`fold`](Self::fold): the gradients by `w`, `∂L/∂ŵ γ / σ`, and by `γ`, `sum(∂L/∂ŵ w) / σ` per
    /// channel, given `grad = ∂L/∂ŵ`.
    ///
    /// # Errors
    /// [`Error::Shape`] if shapes differ or the length of axis 0 is not the number of channels.
    pub fn fold_backward<D: RemoveAxis>(
        &self,
        w: &ArrayRef<f32, D>,
        grad: &ArrayRef<f32, D>,
    ) -> Result<(Array<f32, D>, Array1<f32>)> {
        self.check_weights(w)?;
        check_shapes("gradient of the folded weights", w.shape(), grad.shape())?;
        let mut gamma = Array1::zeros(self.gamma.len());
        for (c, (w, grad)) in w.axis_iter(Axis(0)).zip(grad.axis_iter(Axis(0))).enumerate() {
            let along: f64 = w.iter().zip(grad).map(|(&w, &g)| w as f64 * g as f64).sum();
            gamma[c] = (along / self.deviation(c) as f64) as f32;
        }
        // Folding is linear in the weights, so their gradient is folded alike.
        Ok((self.fold(grad)?, gamma))
    }

    /// `σ` of a channel, from the running variance.
    fn deviation(&self, channel: usize) -> f32 {
        num_traits::Float::sqrt(self.variance[channel] + self.epsilon)
    }

    fn check<D: Dimension>(&self, u: &ArrayRef<f32, D>) -> Result<()> {
        self.check_axis("outputs", u, 1)
    }

    fn check_weights<D: Dimension>(&self, w: &ArrayRef<f32, D>) -> Result<()> {
        self.check_axis("weights", w, 0)
    }

    fn check_axis<D: Dimension>(&self, what: &'static str, x: &ArrayRef<f32, D>, axis: usize) -> Result<()> {
        if x.ndim() <= axis {
            return Err(Error::axis(x.ndim(), axis));
        }
        let mut expected = x.raw_dim();
        expected[axis] = self.gamma.len();
        check_shapes(what, expected.slice(), x.shape())
    }
}

fn check_channels(what: &'static str, channels: usize, values: &ArrayRef1<f32>) -> Result<()> {
    check_shapes(what, &[channels], values.shape())
}
