//! Elementwise operators on codes: `ops::Add`, `ops::Mul`, `ops::Lookup`.

use ndarray::IxDyn;
use ndarray_quant::gemm::Int8;
use ndarray_quant::ops::{Add, Lookup, Mul};
use ndarray_quant::{
    Convention, QParams, QTensor,
    compat::gemmlowp::FixedPointRounding,
    nn::{Arithmetic, Output},
};

use super::requantize::{scalar, zero_point};
use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, Typed, with_byte};
use crate::runner::{Outcome, Stop};

/// ONNX Runtime: `QLinearAdd`; TFLite: `ADD`.
pub(crate) fn add(case: &Case) -> Outcome<Vec<Tensor>> {
    knows(case, 20)?;
    with_byte!(case.output(0)?.dtype(), T => {
        let Operands { a, b, to } = operands::<T>(case)?;
        codes(Add::new(a.params(), b.params(), &to)?.forward(&a, &b)?)
    })
}

/// ONNX Runtime: `QLinearMul`; TFLite: `MUL`.
pub(crate) fn mul(case: &Case) -> Outcome<Vec<Tensor>> {
    knows(case, 0)?;
    with_byte!(case.output(0)?.dtype(), T => {
        let Operands { a, b, to } = operands::<T>(case)?;
        codes(Mul::new(a.params(), b.params(), &to)?.forward(&a, &b)?)
    })
}

/// ONNX Runtime: `QLinearSigmoid`; TFLite: `LOGISTIC`.
pub(crate) fn sigmoid(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["rounding", "y_scale", "y_zero_point"])?;
    case.expects("rounding", "half_even")?;
    with_byte!(case.output(0)?.dtype(), T => {
        let x = tensor::<T>(case, 0)?;
        let y = match (case.number("y_scale")?, case.integer("y_zero_point")?) {
            (Some(scale), Some(zero)) => {
                let zero = T::try_from(zero).map_err(|_| Stop::failed(format!("zero point {zero}")))?;
                QParams::<T>::per_tensor(scale as f32, zero)?.with_convention(Convention::TfLite)
            }
            _ => QParams::<T>::per_tensor(scalar(case, 3)?, zero_point::<T>(case, 4)?)?,
        };
        let y = Lookup::sigmoid(x.params(), &y)?.forward(&x)?;
        Ok(vec![T::tensor(y.unpacked_codes().into_owned())])
    })
}

fn knows(case: &Case, left_shift: i64) -> Outcome<()> {
    case.knows(&["rounding", "activation", "left_shift"])?;
    case.expects("rounding", "half_even")?;
    case.expects("left_shift", left_shift)
}

struct Operands<T: Int8> {
    a: QTensor<T, IxDyn>,
    b: QTensor<T, IxDyn>,
    to: Output<T>,
}

/// Reads the operands and the output, each as codes, scale and zero point, in this order.
fn operands<T: Int8 + Typed<Value = T>>(case: &Case) -> Outcome<Operands<T>> {
    let y = QParams::<T>::per_tensor(scalar(case, 6)?, zero_point::<T>(case, 7)?)?;
    let to = match case.source.as_str() {
        "ort" => Output::to(&y),
        "tflite" | "litert" => Output::to(&y.with_convention(Convention::TfLite))
            .with_arithmetic(Arithmetic::FixedPoint(FixedPointRounding::Double)),
        other => return Err(Stop::not_covered(format!("elementwise arithmetic as {other}"))),
    };
    let to = match case.text("activation")? {
        None | Some("none") => to,
        Some("relu") => to.relu(),
        Some("relu6") => to.relu6(),
        Some(other) => return Err(Stop::not_covered(format!("activation {other}"))),
    };
    Ok(Operands { a: tensor(case, 0)?, b: tensor(case, 3)?, to })
}

/// Reads codes, scale and zero point from three inputs, starting at this one.
fn tensor<T: Int8 + Typed<Value = T>>(case: &Case, first: usize) -> Outcome<QTensor<T, IxDyn>> {
    let params = QParams::<T>::per_tensor(scalar(case, first + 1)?, zero_point::<T>(case, first + 2)?)?;
    Ok(QTensor::from_codes(case.values::<T>(first)?.clone(), params)?)
}

fn codes<T: Int8 + Typed<Value = T>>(y: QTensor<T, IxDyn>) -> Outcome<Vec<Tensor>> {
    Ok(vec![T::tensor(y.unpacked_codes().into_owned())])
}
