//! Requantization: accumulators → codes, and codes → codes with other parameters.

use ndarray::ArrayD;
use ndarray_quant::{
    Element,
    compat::gemmlowp::FixedPointRounding,
    element::Code,
    nn::{Arithmetic, Multiplier},
};

use super::affine::zero_points;
use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, Typed, with_element};
use crate::runner::{Outcome, Stop};

/// TFLite: `QUANTIZE` of codes: gemmlowp's arithmetic on `x - x_zero_point`.
pub(crate) fn requantize(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["qdtype", "qmin", "qmax"])?;
    if !matches!(case.source.as_str(), "tflite" | "litert") {
        return Err(Stop::not_covered(format!("requantize as {}", case.source)));
    }
    let double_rounding = Arithmetic::FixedPoint(FixedPointRounding::Double);
    let multiplier = Multiplier::new(scalar(case, 1)?, 1.0, scalar(case, 3)?, double_rounding)?;
    let acc = with_element!(case.input(0)?.dtype(), X => differences::<X>(case))?;
    with_element!(case.output(0)?.dtype(), Y => codes::<Y>(case, 4, &acc, |_| multiplier))
}

/// TFLite: the output stage of `FULLY_CONNECTED`.
pub(crate) fn requantize_acc(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["multiplier_f64", "qdtype", "qmin", "qmax"])?;
    let arithmetic = arithmetic(&case.source)?;
    let (x_scale, y_scale) = (scalar(case, 1)?, scalar(case, 3)?);
    // One weight scale, or one per channel, which is the last axis.
    let w_scale = scales(case, 2)?;
    let rescales: Vec<Multiplier> =
        w_scale.iter().map(|&w| Multiplier::new(x_scale, w, y_scale, arithmetic)).collect::<Result<_, _>>()?;
    let acc = case.values::<i32>(0)?;
    if rescales.len() != 1 && acc.shape().last() != Some(&rescales.len()) {
        return Err(Stop::failed(format!("{} weight scales for accumulators {:?}", rescales.len(), acc.shape())));
    }
    with_element!(case.output(0)?.dtype(), Y => codes::<Y>(case, 4, acc, |i| rescales[i % rescales.len()]))
}

/// Returns the arithmetic mode in which a system requantizes the accumulators of a fully connected layer.
pub(crate) fn arithmetic(source: &str) -> Outcome<Arithmetic> {
    match source {
        "tflite" => Ok(Arithmetic::FixedPoint(FixedPointRounding::Double)),
        "litert" => Ok(Arithmetic::F64),
        "litert_xnn" | "ort" => Ok(Arithmetic::F32),
        other => Err(Stop::not_covered(format!("arithmetic as {other}"))),
    }
}

/// Returns the scales of an input. Half precision is widened to `f32`, which is exact.
pub(crate) fn scales(case: &Case, index: usize) -> Outcome<Vec<f32>> {
    let input = case.input(index)?;
    let floats = input.floats().filter(|_| input.dtype() != "f64");
    let floats = floats.ok_or_else(|| Stop::not_covered(format!("scales of dtype {}", input.dtype())))?;
    Ok(floats.iter().map(|&x| x as f32).collect())
}

/// Returns the scale of an input that must hold one.
pub(crate) fn scalar(case: &Case, index: usize) -> Outcome<f32> {
    match scales(case, index)?.as_slice() {
        &[scale] => Ok(scale),
        several => Err(Stop::not_covered(format!("{} values of {}", several.len(), case.inputs[index].name))),
    }
}

/// Returns `code - zero_point`; the zero point is the third input.
fn differences<X>(case: &Case) -> Outcome<ArrayD<i32>>
where
    X: Element + Typed<Value = <X as Element>::Code>,
{
    let zero_point = zero_point::<X>(case, 2)?;
    let difference = |x: X::Code| x.to_i32().checked_sub(zero_point.to_i32());
    let codes = case.values::<X>(0)?;
    let values = codes.iter().map(|&x| difference(x)).collect::<Option<_>>();
    let values = values.ok_or_else(|| Stop::failed("a code less its zero point does not fit 32 bits"))?;
    ArrayD::from_shape_vec(codes.raw_dim(), values).map_err(|error| Stop::failed(error.to_string()))
}

/// Requantizes accumulators. `multiplier` returns the multiplier of the element at a row-major position.
fn codes<Y>(
    case: &Case,
    zero: usize,
    acc: &ArrayD<i32>,
    multiplier: impl Fn(usize) -> Multiplier,
) -> Outcome<Vec<Tensor>>
where
    Y: Element + Typed<Value = <Y as Element>::Code>,
{
    let zero_point = zero_point::<Y>(case, zero)?;
    let values = acc.iter().enumerate().map(|(i, &acc)| multiplier(i).requantize::<Y>(acc, zero_point)).collect();
    let codes = ArrayD::from_shape_vec(acc.raw_dim(), values).map_err(|error| Stop::failed(error.to_string()))?;
    Ok(vec![Y::tensor(codes)])
}

/// Returns the zero point of an input that must hold one.
pub(crate) fn zero_point<T: Element>(case: &Case, index: usize) -> Outcome<T::Code> {
    let values = zero_points::<T>(case.input(index)?)?;
    let wrong = || Stop::not_covered(format!("{} zero points", values.len()));
    values.iter().copied().next().filter(|_| values.len() == 1).ok_or_else(wrong)
}
