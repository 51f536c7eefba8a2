//! Pooling: `ops::AveragePool`, `ops::GlobalAveragePool`.

use ndarray::{Array4, Ix4};
use ndarray_quant::gemm::Int8;
use ndarray_quant::{
    QParams, QTensor,
    compat::gemmlowp::FixedPointRounding,
    nn::{Arithmetic, Output},
};
use ndarray_quant::{
    nn::Window,
    ops::{AveragePool, GlobalAveragePool},
};

use super::conv::{channels_first, channels_last, image, onnx_window, pair, quantized, tflite_padding};
use super::requantize::{scalar, zero_point};
use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, Typed, with_byte};
use crate::runner::{Outcome, Stop};

/// ONNX Runtime: `QLinearAveragePool`.
pub(crate) fn qlinear_average_pool(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["kernel_shape", "strides", "pads", "count_include_pad", "layout", "rounding"])?;
    case.expects("rounding", "half_even")?;
    with_byte!(case.output(0)?.dtype(), T => {
        let (x, to) = (input::<T>(case)?, output::<T>(case)?);
        let include = case.integer("count_include_pad")?.unwrap_or(0) != 0;
        let pool = AveragePool::new(x.params(), pair(case, "kernel_shape")?, &onnx_window(case)?, &to)?;
        in_layout::<T>(case, pool.count_include_pad(include).forward(&x)?)
    })
}

/// ONNX Runtime: `QLinearGlobalAveragePool`.
pub(crate) fn qlinear_global_average_pool(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["layout", "rounding"])?;
    case.expects("rounding", "half_even")?;
    with_byte!(case.output(0)?.dtype(), T => {
        let (x, to) = (input::<T>(case)?, output::<T>(case)?);
        in_layout::<T>(case, GlobalAveragePool::new(x.params(), &to)?.forward(&x)?)
    })
}

/// TFLite: `AVERAGE_POOL_2D`.
pub(crate) fn average_pool_2d(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["kernel_shape", "strides", "padding", "layout"])?;
    with_byte!(case.output(0)?.dtype(), T => {
        let x = input::<T>(case)?;
        let to = Output::to(x.params());
        let to = to.with_arithmetic(Arithmetic::FixedPoint(FixedPointRounding::Double));
        let window = Window::new().with_strides(pair(case, "strides")?).with_padding(tflite_padding(case)?);
        let pool = AveragePool::new(x.params(), pair(case, "kernel_shape")?, &window, &to)?;
        in_layout::<T>(case, pool.forward(&x)?)
    })
}

fn is_channels_last(case: &Case) -> Outcome<bool> {
    match case.text("layout")? {
        Some("NHWC") => Ok(true),
        Some("NCHW") => Ok(false),
        other => Err(Stop::not_covered(format!("layout {other:?}"))),
    }
}

fn input<T: Int8 + Typed<Value = T>>(case: &Case) -> Outcome<QTensor<T, Ix4>> {
    let codes = case.values::<T>(0)?;
    let codes: Array4<T> = if is_channels_last(case)? { image(codes)? } else { channels_last(codes)? };
    quantized(codes, QParams::per_tensor(scalar(case, 1)?, zero_point::<T>(case, 2)?)?)
}

fn output<T: Int8>(case: &Case) -> Outcome<Output<T>> {
    Ok(Output::to(&QParams::<T>::per_tensor(scalar(case, 3)?, zero_point::<T>(case, 4)?)?))
}

fn in_layout<T: Int8 + Typed<Value = T>>(case: &Case, y: QTensor<T, Ix4>) -> Outcome<Vec<Tensor>> {
    let codes = y.unpacked_codes().into_owned();
    let codes = if is_channels_last(case)? { codes } else { channels_first(codes) };
    Ok(vec![T::tensor(codes.into_dyn())])
}
