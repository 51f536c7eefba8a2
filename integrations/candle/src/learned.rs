//! Scales that are variables of candle.

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp2, Error, Layout, Result, Shape, Tensor, Var};
use ndarray::{ArrayD, IxDyn};
use ndarray_quant::{
    Element, QParams, Scheme,
    qat::{GradientScale, LearnedQuantizer, project_scale},
};

use crate::tensor::{self, Float, storage_of, view_of, with_float};

/// Fake quantization whose scales are trained by the optimizer that trains the weights (LSQ).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Optimizer, SGD};
/// use ndarray_quant::Scheme;
/// use ndarray_quant_candle::Learned;
///
/// let x = Tensor::arange_step(-1f32, 1.0, 0.02, &Device::Cpu)?;
/// let scheme = Scheme::<i8>::symmetric().bits(2).map_err(candle_core::Error::wrap)?;
/// let quantizer = Learned::lsq(scheme, &x)?;
/// let error = || (quantizer.forward(&x)? - &x)?.sqr()?.sum_all();
/// let before = error()?.to_scalar::<f32>()?;
///
/// let mut optimizer = SGD::new(vec![quantizer.scale().clone()], 0.02)?;
/// for _ in 0..50 {
///     optimizer.backward_step(&error()?)?;
///     quantizer.project()?; // after every step: positive and finite, whatever the learning rate
/// }
/// assert!(error()?.to_scalar::<f32>()? < 0.8 * before);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Learned<T: Element> {
    /// All but the scales.
    like: QParams<T, IxDyn>,
    factor: GradientScale,
    scale: Var,
    /// The scales as they were projected last.
    last: Mutex<ArrayD<f32>>,
}

impl<T: Element> Learned<T> {
    /// With scales that start from `x` by LSQ's formula, see [`LearnedQuantizer::lsq`].
    ///
    /// # Errors
    /// Those of [`LearnedQuantizer::lsq`], and if `x` is not a float tensor on the CPU.
    pub fn lsq(scheme: Scheme<T>, x: &Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        let storage = storage_of(&storage)?;
        let quantizer = with_float!(x.dtype(), F => {
            LearnedQuantizer::lsq(scheme, &view_of::<F>(storage, layout)?).map_err(Error::wrap)
        })?;
        Self::new(quantizer.params().clone())
    }

    /// With scales that start from these parameters; zero points stay as they are.
    ///
    /// # Errors
    /// Those of [`LearnedQuantizer::new`].
    pub fn new(params: QParams<T, IxDyn>) -> Result<Self> {
        let params = LearnedQuantizer::new(params).map_err(Error::wrap)?.params().clone();
        let scale = Var::from_tensor(&tensor::from_array(params.scale().clone())?)?;
        let last = Mutex::new(params.scale().clone());
        Ok(Self { like: params, factor: GradientScale::Weights, scale, last })
    }

    /// With the gradients of the scales multiplied by this.
    pub fn with_gradient_scale(mut self, factor: GradientScale) -> Self {
        self.factor = factor;
        self
    }

    /// The scales, for an optimizer.
    pub fn scale(&self) -> &Var {
        &self.scale
    }

    /// The present parameters: what the trained network is quantized with.
    ///
    /// # Errors
    /// If a scale is not positive and finite: [`Self::project`] was not called after a step.
    pub fn params(&self) -> Result<QParams<T, IxDyn>> {
        let (storage, layout) = self.scale.storage_and_layout();
        params(&self.like, view_of::<f32>(storage_of(&storage)?, layout)?.to_owned())
    }

    /// `x` on its grid, with gradients by `x` and by the scales.
    ///
    /// # Errors
    /// Those of [`Self::params`], and if the parameters do not fit `x`, or it is not a float tensor on the CPU.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        x.apply_op2(&self.scale, Operation { like: self.like.clone(), factor: self.factor })
    }

    /// Brings the scales to where [`project_scale`] lets them be. Call it after every step of the optimizer.
    ///
    /// # Errors
    /// If candle fails.
    pub fn project(&self) -> Result<()> {
        let mut scale = self.last.lock().map_err(Error::msg)?;
        {
            let (storage, layout) = self.scale.storage_and_layout();
            let proposed = view_of::<f32>(storage_of(&storage)?, layout)?;
            scale.zip_mut_with(&proposed, |scale, &proposed| *scale = project_scale(*scale, proposed));
        }
        self.scale.set(&tensor::from_array(scale.clone())?)
    }
}

/// The same parameters with other scales.
fn params<T: Element>(like: &QParams<T, IxDyn>, scale: ArrayD<f32>) -> Result<QParams<T, IxDyn>> {
    let (min, max) = like.code_range();
    QParams::new(like.granularity(), scale, like.zero_point().cloned())
        .and_then(|params| params.with_convention(like.convention()).with_code_range(min, max))
        .map_err(Error::wrap)
}

struct Operation<T: Element> {
    like: QParams<T, IxDyn>,
    factor: GradientScale,
}

impl<T: Element> Operation<T> {
    fn quantizer(&self, storage: &CpuStorage, layout: &Layout) -> Result<LearnedQuantizer<T, IxDyn>> {
        let params = params(&self.like, view_of::<f32>(storage, layout)?.to_owned())?;
        Ok(LearnedQuantizer::new(params).map_err(Error::wrap)?.with_gradient_scale(self.factor))
    }

    fn backward<F: Float>(&self, x: &Tensor, scale: &Tensor, grad: &Tensor) -> Result<(Tensor, Tensor)> {
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
