//! Views candle tensors as ndarray views, without copying.

use candle_core::{CpuStorage, DType, Device, Error, Layout, Result, Storage, Tensor, WithDType};
use ndarray::{ArrayD, ArrayViewD, IxDyn, ShapeBuilder};

/// The float types that candle and `ndarray_quant` share.
pub(crate) trait CandleFloat: ndarray_quant::Float + WithDType {}
impl CandleFloat for f32 {}
impl CandleFloat for f64 {}
impl CandleFloat for half::f16 {}
impl CandleFloat for half::bf16 {}

/// Evaluates `$body` with `$F` standing for the float type of a tensor.
macro_rules! with_float {
    ($dtype:expr, $F:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $F = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $F = f64;
                $body
            }
            candle_core::DType::F16 => {
                type $F = half::f16;
                $body
            }
            candle_core::DType::BF16 => {
                type $F = half::bf16;
                $body
            }
            other => Err($crate::tensor::not_a_float(other)),
        }
    };
}
pub(crate) use with_float;

pub(crate) fn not_a_float(dtype: DType) -> Error {
    Error::Msg(format!("expected a tensor of f32, f64, f16 or bf16, found {dtype:?}"))
}

pub(crate) fn storage_of(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => Err(Error::Msg("expected a tensor on the CPU, found one on another device".into())),
    }
}

pub(crate) fn view_of<'a, F: CandleFloat>(storage: &'a CpuStorage, layout: &Layout) -> Result<ArrayViewD<'a, F>> {
    let values = &F::cpu_storage_as_slice(storage)?[layout.start_offset()..];
    let shape = IxDyn(layout.dims()).strides(IxDyn(layout.stride()));
    ArrayViewD::from_shape(shape, values).map_err(Error::wrap)
}

/// Copies an array into a new tensor.
pub(crate) fn from_array<F: CandleFloat>(values: ArrayD<F>) -> Result<Tensor> {
    let shape = values.shape().to_vec();
    Tensor::from_vec(values.into_iter().collect(), shape, &Device::Cpu)
}
