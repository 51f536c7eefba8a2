//! Quantization-aware training in candle: fake quantization by [`ndarray_quant`], with gradients through candle's autograd.
//!
//! | | gradients | use it for |
//! |---|---|---|
//! | [`fake_quantize`] | by the input (straight-through) | fixed or observed parameters, 8 bits |
//! | [`Learned`] | by the input and by the scales (LSQ) | 4 bits and fewer |
//!
//! Values equal `ndarray_quant`'s, so the network is trained with the values that its integer form represents. Tensors
//! must be on the CPU and of type `f32`, `f64`, `f16` or `bf16`; any strides work.
//!
//! ```
//! use candle_core::{Device, Var};
//! use ndarray_quant::{QParams, qat::FakeQuantize};
//! use ndarray_quant_candle::fake_quantize;
//!
//! let x = Var::new(&[0.3f32, -0.8, 2.0], &Device::Cpu)?;
//! let params = QParams::<i8>::per_tensor(0.5, 0).and_then(|p| p.with_code_range(-2, 1));
//! let y = fake_quantize(&x, &FakeQuantize::new(params.map_err(candle_core::Error::wrap)?))?;
//! assert_eq!(y.to_vec1::<f32>()?, [0.5, -1.0, 0.5]);
//! let gradients = y.sum_all()?.backward()?;
//! assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>()?, [1.0, 1.0, 0.0]); // 2.0 is clipped
//! # Ok::<(), candle_core::Error>(())
//! ```

#![deny(missing_docs)]

mod learned;
mod tensor;

use std::sync::Mutex;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use ndarray::IxDyn;
use ndarray_quant::{
    Element,
    qat::{FakeQuantize, SteMask},
};

pub use learned::Learned;
use tensor::{CandleFloat, storage_of, view_of, with_float};

/// Fake quantization with fixed parameters. The gradient by `x` is straight-through: the gradient of the output where the
/// value was not clipped, otherwise 0.
///
/// # Errors
/// If the parameters do not fit `x`, or `x` is not a float tensor on the CPU.
pub fn fake_quantize<T: Element>(x: &Tensor, fake: &FakeQuantize<T>) -> Result<Tensor> {
    x.apply_op1(StraightThrough { fake: fake.clone(), mask: Mutex::new(SteMask::default()) })
}

/// One application of the operation. It keeps one bit per element from the forward to the backward pass.
struct StraightThrough<T: Element> {
    fake: FakeQuantize<T>,
    mask: Mutex<SteMask<IxDyn>>,
}

impl<T: Element> StraightThrough<T> {
    fn forward<F: CandleFloat>(&self, storage: &CpuStorage, layout: &Layout) -> Result<CpuStorage> {
        let (y, mask) = self.fake.forward(&view_of::<F>(storage, layout)?).map_err(candle_core::Error::wrap)?;
        *self.mask.lock().map_err(candle_core::Error::msg)? = mask;
        Ok(F::to_cpu_storage_owned(y.into_raw_vec_and_offset().0))
    }

    fn backward<F: CandleFloat>(&self, grad: &Tensor) -> Result<Tensor> {
        let (storage, layout) = grad.storage_and_layout();
        let mask = self.mask.lock().map_err(candle_core::Error::msg)?;
        let grad = view_of::<F>(storage_of(&storage)?, layout)?;
        let input = self.fake.backward(&mask, &grad).map_err(candle_core::Error::wrap)?;
        tensor::from_array(input)
    }
}

impl<T: Element> CustomOp1 for StraightThrough<T> {
    fn name(&self) -> &'static str {
        "fake_quantize"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let y =
            with_float!(candle_core::backend::BackendStorage::dtype(storage), F => self.forward::<F>(storage, layout))?;
        Ok((y, layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        with_float!(grad.dtype(), F => self.backward::<F>(grad)).map(Some)
    }
}
