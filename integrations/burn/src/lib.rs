//! Quantization-aware training in burn: fake quantization by [`ndarray_quant`], with gradients through burn's autodiff.
//!
//! | | gradients | use it for |
//! |---|---|---|
//! | [`fake_quantize`] | by the input (straight-through) | fixed or observed parameters, 8 bits |
//! | [`learned_fake_quantize`] | by the input and by the scales (LSQ) | 4 bits and fewer |
//!
//! Since version 0.22 the type of a burn tensor does not name its backend, and custom operations are *backend
//! extensions* that are dispatched at run time. These run on the CPU backend `Flex`, with or without autodiff, on `f32`
//! tensors.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use ndarray_quant::{QParams, qat::FakeQuantize};
//! use ndarray_quant_burn::fake_quantize;
//!
//! let device = Device::flex().autodiff();
//! let x = Tensor::<1>::from_floats([0.3, -0.8, 2.0], &device).require_grad();
//! let fake = FakeQuantize::new(QParams::<i8>::per_tensor(0.5, 0)?.with_code_range(-2, 1)?);
//! let y = fake_quantize(x.clone(), &fake)?;
//! assert_eq!(y.to_data().try_to_vec::<f32>().unwrap(), [0.5, -1.0, 0.5]);
//! let gradients = y.sum().backward();
//! assert_eq!(x.grad(&gradients).unwrap().to_data().try_to_vec::<f32>().unwrap(), [1.0, 1.0, 0.0]); // 2.0 is clipped
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

#![deny(missing_docs)]

mod extension;

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::{DType, Tensor};
use ndarray_quant::{
    Element, Error, QParams, Result,
    qat::{FakeQuantize, GradientScale, LearnedQuantizer},
};

use extension::{Fixed, Learned, QuantizationBackend};

/// Fake quantization with fixed parameters. The gradient by `x` is straight-through: the gradient of the output where
/// the value was not clipped, otherwise 0.
///
/// # Errors
/// [`Error::Shape`] if the parameters do not fit `x`, [`Error::Argument`] unless `x` is of type `f32`.
pub fn fake_quantize<T: Element, const D: usize>(x: Tensor<D>, fake: &FakeQuantize<T>) -> Result<Tensor<D>> {
    check_dtype(&x)?;
    fake.params().check(&x.dims())?;
    let fixed = Fixed(Arc::new(fake.clone()));
    Ok(Tensor::from_dispatch(<Dispatch as QuantizationBackend>::fixed(x.into_dispatch(), fixed)))
}

/// Fake quantization with scales that are trained: gradients by `x` and by `scale` (LSQ).
///
/// `like` gives all other parameters: granularity, zero points, code range and convention. `scale` has the shape of
/// `like.scale()`. After each optimizer step, project the scales with [`LearnedQuantizer::set_scale`], which keeps them
/// positive and finite.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use ndarray::array;
/// use ndarray_quant::{Scheme, qat::{GradientScale, LearnedQuantizer}};
/// use ndarray_quant_burn::learned_fake_quantize;
///
/// let start = LearnedQuantizer::lsq(Scheme::<i8>::symmetric().with_bits(2)?, &array![0.3f32, -0.8, 2.0].into_dyn())?;
/// let device = Device::flex().autodiff();
/// let x = Tensor::<1>::from_floats([0.3, -0.8, 2.0], &device).require_grad();
/// let scale = Tensor::<1>::from_floats([start.params().scales()[0]], &device).require_grad();
/// let y = learned_fake_quantize(x, scale.clone(), start.params(), GradientScale::Weights)?;
/// let gradients = y.sum().backward();
/// assert!(scale.grad(&gradients).is_some());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
///
/// # Errors
/// Same as [`fake_quantize`], and [`Error::Params`] unless all scales are positive and finite.
pub fn learned_fake_quantize<T: Element, const D: usize, const S: usize>(
    x: Tensor<D>,
    scale: Tensor<S>,
    like: &QParams<T>,
    gradient_scale: GradientScale,
) -> Result<Tensor<D>> {
    check_dtype(&x)?;
    check_dtype(&scale)?;
    like.check(&x.dims())?;
    let values = extension::array(scale.to_data());
    let (min, max) = like.code_range();
    let params = QParams::<T>::new(like.granularity(), values, like.zero_point().cloned())?;
    let params = params.with_convention(like.convention()).with_code_range(min, max)?;
    let quantizer = LearnedQuantizer::new(params)?.with_gradient_scale(gradient_scale);
    let learned = Learned(Arc::new(quantizer));
    let y = <Dispatch as QuantizationBackend>::learned(x.into_dispatch(), scale.into_dispatch(), learned);
    Ok(Tensor::from_dispatch(y))
}

fn check_dtype<const D: usize>(x: &Tensor<D>) -> Result<()> {
    match x.dtype() {
        DType::F32 => Ok(()),
        other => {
            let found = format!("{other:?}");
            Err(Error::Argument { what: "element type of a tensor", expected: "f32", found })
        }
    }
}
