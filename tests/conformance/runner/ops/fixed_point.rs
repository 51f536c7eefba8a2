//! gemmlowp's integer arithmetic, element by element.

use ndarray::{ArrayD, ArrayViewD, Zip};
use ndarray_quant::compat::gemmlowp::{FixedPoint, FixedPointRounding};

use crate::runner::case::Case;
use crate::runner::tensor::Tensor;
use crate::runner::{Outcome, Stop};

/// gemmlowp: `SaturatingRoundingDoublingHighMul`.
pub(crate) fn saturating_rounding_doubling_high_mul(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&[])?;
    let a = case.values::<i32>(0)?;
    let b = broadcast(case, 1, a.shape())?;
    let y = Zip::from(a)
        .and(&b)
        .map_collect(|&a, &b| ndarray_quant::compat::gemmlowp::FixedPoint::saturating_rounding_doubling_high_mul(a, b));
    Ok(vec![Tensor::I32(y)])
}

/// gemmlowp: `RoundingDivideByPOT`.
pub(crate) fn rounding_divide_by_pot(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&[])?;
    let x = case.values::<i32>(0)?;
    let exponent = broadcast(case, 1, x.shape())?;
    let y = Zip::from(x)
        .and(&exponent)
        .map_collect(|&x, &e| ndarray_quant::compat::gemmlowp::FixedPoint::rounding_divide_by_pot(x, e));
    Ok(vec![Tensor::I32(y)])
}

/// TFLite: `QuantizeMultiplier`.
pub(crate) fn quantize_multiplier(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&[])?;
    let m = case.values::<f64>(0)?;
    let parts: Vec<FixedPoint> = m.iter().map(|&m| FixedPoint::from_f64(m)).collect::<Result<_, _>>()?;
    let part = |f: fn(FixedPoint) -> i32| case.like_output::<i32>(0, parts.iter().map(|&p| f(p)).collect());
    Ok(vec![part(FixedPoint::q31)?, part(FixedPoint::shift)?])
}

/// TFLite: `MultiplyByQuantizedMultiplier`.
pub(crate) fn multiply_by_quantized_multiplier(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["rounding"])?;
    let rounding = match case.text("rounding")? {
        Some("double") | None => FixedPointRounding::Double,
        Some("single") => FixedPointRounding::Single,
        Some(other) => return Err(Stop::not_covered(format!("attribute rounding {other}"))),
    };
    let x = case.values::<i32>(0)?;
    let (q31, shift) = (broadcast(case, 1, x.shape())?, broadcast(case, 2, x.shape())?);
    let mut y = ArrayD::zeros(x.raw_dim());
    for (((y, &x), &q31), &shift) in y.iter_mut().zip(x).zip(&q31).zip(&shift) {
        *y = FixedPoint::from_parts(q31, shift)?.multiply(x, rounding);
    }
    Ok(vec![Tensor::I32(y)])
}

/// Returns an integer operand, broadcast to the first operand's shape.
fn broadcast<'a>(case: &'a Case, index: usize, shape: &[usize]) -> Outcome<ArrayViewD<'a, i32>> {
    let operand = case.values::<i32>(index)?;
    let wrong =
        || Stop::failed(format!("{} of shape {:?} against {shape:?}", case.inputs[index].name, operand.shape()));
    operand.broadcast(shape).ok_or_else(wrong)
}
