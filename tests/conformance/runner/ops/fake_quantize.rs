//! Fake quantization and its gradients, as PyTorch trains.

use ndarray::ArrayD;
use ndarray_quant::{
    Convention, QParams,
    element::Code,
    qat::{FakeQuantize, GradientScale, LearnedQuantizer},
};

use super::affine::granularity;
use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, Typed};
use crate::runner::{Outcome, Stop};

/// Holds the codes of every case. The case sets the code range.
type Wide = i16;

/// PyTorch: `fake_quantize_per_tensor_affine`, `fake_quantize_per_channel_affine`.
pub(crate) fn fake_quantize(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["axis", "qmin", "qmax", "rounding", "zero_point_dtype"])?;
    case.expects("rounding", "half_even")?;
    let (params, zero_points) = parameters(case)?;
    let fake = if case.attr("zero_point_dtype").is_some() {
        case.expects("zero_point_dtype", "f32")?;
        FakeQuantize::new(params).with_float_zero_points(&zero_points)?
    } else {
        FakeQuantize::new(with_zero_points(params, &zero_points)?)
    };
    let (y, mask) = fake.forward(case.values::<f32>(0)?)?;
    Ok(vec![f32::tensor(y), f32::tensor(fake.backward(&mask, case.values::<f32>(3)?)?)])
}

/// PyTorch: `_fake_quantize_learnable_per_tensor_affine`, `_fake_quantize_learnable_per_channel_affine`.
pub(crate) fn fake_quantize_learnable(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["axis", "qmin", "qmax", "rounding", "grad_factor"])?;
    case.expects("rounding", "half_even")?;
    let (params, zero_points) = parameters(case)?;
    let factor = case.number("grad_factor")?.unwrap_or(1.0) as f32;
    let mut quantizer = LearnedQuantizer::lsq_plus(params)?.with_gradient_scale(GradientScale::Fixed(factor));
    quantizer.set_zero_point(&zero_points)?;
    let x = case.values::<f32>(0)?;
    let (y, _) = quantizer.as_fake_quantize().forward(x)?;
    let gradients = quantizer.gradients(x, case.values::<f32>(3)?)?;
    Ok(vec![
        f32::tensor(y),
        f32::tensor(gradients.input),
        case.like_output::<f32>(2, gradients.scale.into_iter().collect())?,
        case.like_output::<f32>(3, gradients.zero_point.into_iter().collect())?,
    ])
}

/// Reads parameters without zero points, and the zero points as floats in the shape of the scales.
fn parameters(case: &Case) -> Outcome<(QParams<Wide>, ArrayD<f32>)> {
    let (x, scale) = (case.input(0)?.shape(), case.values::<f32>(1)?);
    let (granularity, shape) = granularity(case, x, scale.shape())?;
    let zero_points = case.input(2)?;
    let values = zero_points.floats().or_else(|| zero_points.integers().map(|z| z.mapv(|z| z as f64)));
    let values = values.ok_or_else(|| Stop::not_covered(format!("zero points of dtype {}", zero_points.dtype())))?;
    let (min, max) = case.code_range()?.ok_or_else(|| Stop::failed("no codes"))?;
    let wrong = |what: &str| Stop::failed(format!("{what} do not fit {x:?} {granularity:?}"));
    let scale = scale.clone().into_shape_with_order(shape.clone()).map_err(|_| wrong("scales"))?;
    let values = values.mapv(|z| z as f32).into_shape_with_order(shape).map_err(|_| wrong("zero points"))?;
    let params = QParams::new(granularity, scale, None)?.with_convention(Convention::Torch);
    Ok((params.with_code_range(min, max)?, values))
}

fn with_zero_points(params: QParams<Wide>, zero_points: &ArrayD<f32>) -> Outcome<QParams<Wide>> {
    let (min, max) = params.code_range();
    let zero_points = zero_points.mapv(|z| Wide::from_i32(z as i32));
    let params = QParams::new(params.granularity(), params.scale().clone(), Some(zero_points))?;
    Ok(params.with_convention(Convention::Torch).with_code_range(min, max)?)
}
