//! Fake quantization with scales that are candle variables.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor, Var};
use ndarray::ArrayD;
use ndarray_quant::{
    Element, QParams, Scheme,
    qat::{GradientScale, LearnedQuantizer},
};

use crate::tensor::{self, CandleFloat, storage_of, view_of, with_float};

/// Fake quantization with scales that candle's optimizers train together with the weights (LSQ). After each optimizer step,
/// call [`project`](Self::project).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Optimizer, SGD};
/// use ndarray_quant::Scheme;
/// use ndarray_quant_candle::Learned;
///
/// let x = Tensor::arange_step(-1f32, 1.0, 0.02, &Device::Cpu)?;
/// let scheme = Scheme::<i8>::symmetric().with_bits(2).map_err(candle_core::Error::wrap)?;
/// let quantizer = Learned::lsq(scheme, &x)?;
/// let error = || (quantizer.forward(&x)? - &x)?.sqr()?.sum_all();
/// let before = error()?.to_scalar::<f32>()?;
///
/// let mut optimizer = SGD::new(vec![quantizer.scale().clone()], 0.02)?;
/// for _ in 0..50 {
///     optimizer.backward_step(&error()?)?;
///     quantizer.project()?; // keeps scales positive and finite at any learning rate
/// }
/// assert!(error()?.to_scalar::<f32>()? < 0.8 * before);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Learned<T: Element> {
    /// Granularity, zero points, code range and convention; the scales are in `scale`.
    like: QParams<T>,
    gradient_scale: GradientScale,
    scale: Var,
    /// Holds the scales after the last projection.
    projected: Mutex<LearnedQuantizer<T>>,
}

impl<T: Element> Learned<T> {
    /// Initializes the scales from `x` by LSQ's formula, see [`LearnedQuantizer::lsq`].
    ///
    /// # Errors
    /// Same as [`LearnedQuantizer::lsq`], and if `x` is not a float tensor on the CPU.
    pub fn lsq(scheme: Scheme<T>, x: &Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        let storage = storage_of(&storage)?;
        let quantizer = with_float!(x.dtype(), F => {
            LearnedQuantizer::lsq(scheme, &view_of::<F>(storage, layout)?).map_err(Error::wrap)
        })?;
        Self::new(quantizer.params().clone())
    }

    /// Initializes the scales from `params`; its zero points stay fixed.
    ///
    /// # Errors
    /// Same as [`LearnedQuantizer::new`].
    pub fn new(params: QParams<T>) -> Result<Self> {
        let quantizer = LearnedQuantizer::new(params).map_err(Error::wrap)?;
        let like = quantizer.params().clone();
        let scale = Var::from_tensor(&tensor::from_array(like.scale().clone())?)?;
        Ok(Self { like, gradient_scale: GradientScale::Weights, scale, projected: Mutex::new(quantizer) })
    }

    /// Sets LSQ's gradient scale. The default is [`GradientScale::Weights`].
    pub fn with_gradient_scale(mut self, gradient_scale: GradientScale) -> Self {
        self.gradient_scale = gradient_scale;
        self
    }

    /// The scales, for an optimizer.
    pub fn scale(&self) -> &Var {
        &self.scale
    }

    /// The current parameters, with which the trained network is quantized.
    ///
    /// # Errors
    /// If a scale is not positive and finite, because [`Self::project`] was not called after an optimizer step.
    pub fn params(&self) -> Result<QParams<T>> {
        let (storage, layout) = self.scale.storage_and_layout();
        params(&self.like, view_of::<f32>(storage_of(&storage)?, layout)?.to_owned())
    }

    /// Fake-quantizes `x`, with gradients by `x` and by the scales.
    ///
    /// # Errors
    /// Same as [`Self::params`], and if the parameters do not fit `x` or `x` is not a float tensor on the CPU.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op2(&self.scale, Operation { like: self.like.clone(), gradient_scale: self.gradient_scale })
    }

    /// Projects the scales: each changes at most by a factor of two per call, and stays positive and finite, see
    /// [`LearnedQuantizer::set_scale`]. Call it after every optimizer step.
    ///
    /// # Errors
    /// If candle returns an error.
    pub fn project(&self) -> Result<()> {
        let mut quantizer = self.projected.lock().map_err(Error::msg)?;
        {
            let (storage, layout) = self.scale.storage_and_layout();
            quantizer.set_scale(&view_of::<f32>(storage_of(&storage)?, layout)?).map_err(Error::wrap)?;
        }
        self.scale.set(&tensor::from_array(quantizer.scale().clone())?)
    }
}

/// The parameters `like` with other scales.
fn params<T: Element>(like: &QParams<T>, scale: ArrayD<f32>) -> Result<QParams<T>> {
    let (min, max) = like.code_range();
    QParams::new(like.granularity(), scale, like.zero_point().cloned())
        .and_then(|params| params.with_convention(like.convention()).with_code_range(min, max))
        .map_err(Error::wrap)
}

struct Operation<T: Element> {
    like: QParams<T>,
    gradient_scale: GradientScale,
}

impl<T: Element> Operation<T> {
    fn quantizer(&self, storage: &CpuStorage, layout: &Layout) -> Result<LearnedQuantizer<T>> {
        let params = params(&self.like, view_of::<f32>(storage, layout)?.to_owned())?;
        Ok(LearnedQuantizer::new(params).map_err(Error::wrap)?.with_gradient_scale(self.gradient_scale))
    }

    fn backward<F: CandleFloat>(&self, x: &Tensor, scale: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
        let ((x, x_layout), (scale, scale_layout)) = (x.storage_and_layout(), scale.storage_and_layout());
        let (grad, grad_layout) = grad.storage_and_layout();
        let quantizer = self.quantizer(storage_of(&scale)?, scale_layout)?;
        let (x, grad) = (view_of::<F>(storage_of(&x)?, x_layout)?, view_of::<F>(storage_of(&grad)?, grad_layout)?);
        let gradients = quantizer.gradients(&x, &grad).map_err(Error::wrap)?;
        Ok((tensor::from_array(gradients.input)?, tensor::from_array(gradients.scale)?))
    }
}

impl<T: Element> CustomOp2 for Operation<T> {
    fn name(&self) -> &'static str {
        "learned_fake_quantize"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let quantizer = self.quantizer(scale, scale_layout)?;
        let y = with_float!(candle_core::backend::BackendStorage::dtype(x), F => {
            let y = quantizer.params().fake_quantize(&view_of::<F>(x, x_layout)?).map_err(Error::wrap)?;
            Ok(<F as candle_core::WithDType>::to_cpu_storage_owned(y.into_raw_vec_and_offset().0))
        })?;
        Ok((y, x_layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, scale: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (input, scale) = with_float!(x.dtype(), F => self.backward::<F>(x, scale, grad))?;
        Ok((Some(input), Some(scale)))
    }
}
