//! Quantization and dequantization: `QParams` and `Scheme`.

use ndarray::{ArrayD, IxDyn};
use ndarray_quant::minifloat::{Minifloat, MinifloatParams, MinifloatTensor};
use ndarray_quant::{Convention, Element, Float, Granularity, QParams, QTensor, Scheme, element::Code};

use super::cast::overflow;
use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, Typed, with_element, with_float, with_minifloat};
use crate::runner::{Outcome, Stop};

/// ONNX: `QuantizeLinear`.
pub(crate) fn quantize_linear(case: &Case) -> Outcome<Vec<Tensor>> {
    case.expects("rounding", "half_even")?;
    quantize_in(case, Convention::Onnx)
}

/// TFLite: `QUANTIZE` of floats.
pub(crate) fn quantize(case: &Case) -> Outcome<Vec<Tensor>> {
    case.expects("rounding", "half_away")?;
    quantize_in(case, Convention::TfLite)
}

/// PyTorch: `quantize_per_tensor`, `quantize_per_channel`.
pub(crate) fn quantize_torch(case: &Case) -> Outcome<Vec<Tensor>> {
    case.expects("rounding", "half_even")?;
    quantize_in(case, Convention::Torch)
}

/// ONNX: `DequantizeLinear`.
pub(crate) fn dequantize_linear(case: &Case) -> Outcome<Vec<Tensor>> {
    dequantize_in(case, Convention::Onnx)
}

/// TFLite: `DEQUANTIZE`.
pub(crate) fn dequantize(case: &Case) -> Outcome<Vec<Tensor>> {
    dequantize_in(case, Convention::TfLite)
}

/// PyTorch: `Tensor.dequantize`.
pub(crate) fn dequantize_torch(case: &Case) -> Outcome<Vec<Tensor>> {
    dequantize_in(case, Convention::Torch)
}

/// ONNX: `DynamicQuantizeLinear`.
pub(crate) fn dynamic_quantize_linear(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["qmin", "qmax", "rounding"])?;
    case.expects("qmin", 0)?;
    case.expects("qmax", 255)?;
    case.expects("rounding", "half_even")?;
    let q = Scheme::<u8>::asymmetric().quantize(case.values::<f32>(0)?)?;
    let scale = q.params().scale().iter().copied().collect();
    let zero_point = q.params().zero_point().map_or(vec![0], |z| z.iter().copied().collect());
    Ok(vec![Tensor::U8(q.codes().clone()), case.like_output::<f32>(1, scale)?, case.like_output::<u8>(2, zero_point)?])
}

const ATTRS: [&str; 9] =
    ["axis", "block_size", "qdtype", "qmin", "qmax", "rounding", "saturate", "nan", "output_dtype"];

fn quantize_in(case: &Case, convention: Convention) -> Outcome<Vec<Tensor>> {
    case.knows(&ATTRS)?;
    if case.output(0)?.is_minifloat() {
        return with_minifloat!(case.output(0)?.dtype(), T => with_float!(case.input(0)?.dtype(), F => {
            let x = case.values::<F>(0)?;
            let params = minifloat_params::<T>(case, x.shape())?.with_overflow(overflow(case));
            Ok(vec![T::tensor(params.quantize(x)?.into_parts().0)])
        }));
    }
    with_element!(case.output(0)?.dtype(), T => with_float!(case.input(0)?.dtype(), F => {
        quantize_as::<T, F>(case, convention)
    }))
}

fn dequantize_in(case: &Case, convention: Convention) -> Outcome<Vec<Tensor>> {
    case.knows(&ATTRS)?;
    if case.input(0)?.is_minifloat() {
        return with_minifloat!(case.input(0)?.dtype(), T => with_float!(case.output(0)?.dtype(), F => {
            let codes = case.values::<T>(0)?;
            let params = minifloat_params::<T>(case, codes.shape())?;
            Ok(vec![F::tensor(MinifloatTensor::new(codes.clone(), params)?.dequantize_as::<F>())])
        }));
    }
    with_element!(case.input(0)?.dtype(), T => with_float!(case.output(0)?.dtype(), F => {
        dequantize_as::<T, F>(case, convention)
    }))
}

fn quantize_as<T, F>(case: &Case, convention: Convention) -> Outcome<Vec<Tensor>>
where
    T: Element + Typed<Value = <T as Element>::Code>,
    F: Float + Typed<Value = F>,
{
    let x = case.values::<F>(0)?;
    let params = params::<T>(case, x.shape(), convention)?;
    Ok(vec![T::tensor(params.quantize(x)?.unpacked_codes().into_owned())])
}

fn dequantize_as<T, F>(case: &Case, convention: Convention) -> Outcome<Vec<Tensor>>
where
    T: Element + Typed<Value = <T as Element>::Code>,
    F: Float + Typed<Value = F>,
{
    let codes = case.values::<T>(0)?;
    let params = params::<T>(case, codes.shape(), convention)?;
    let q = QTensor::<T, IxDyn>::from_codes(codes.clone(), params)?;
    Ok(vec![F::tensor(q.dequantize_as::<F>())])
}

/// The parameters of a case: scales are its second input, zero points the optional third.
fn params<T: Element>(case: &Case, shape: &[usize], convention: Convention) -> Outcome<QParams<T>> {
    let scale = case.input(1)?;
    let scale = scale.floats().ok_or_else(|| Stop::not_covered(format!("scales of dtype {}", scale.dtype())))?;
    let (granularity, params_shape) = granularity(case, shape, scale.shape())?;
    let zero_point = case.inputs.get(2).map(|z| zero_points::<T>(&z.tensor)).transpose()?;
    let spread = |what: &str, len: usize| Stop::failed(format!("{len} {what} do not fit {shape:?} {granularity:?}"));
    let zero_point = match zero_point {
        // One zero point may serve all scales.
        Some(z) if z.len() == 1 => z.iter().next().map(|&z| ArrayD::from_elem(params_shape.clone(), z)),
        Some(z) => {
            let len = z.len();
            Some(z.into_shape_with_order(params_shape.clone()).map_err(|_| spread("zero points", len))?)
        }
        None => None,
    };
    let len = scale.len();
    let scale = scale.into_shape_with_order(params_shape).map_err(|_| spread("scales", len))?;
    let params = QParams::<T>::from_f64(granularity, scale, zero_point)?.with_convention(convention);
    Ok(match case.code_range()? {
        Some((min, max)) => params.with_code_range(min, max)?,
        None => params,
    })
}

/// The scales of float codes, the second input of a case. A zero point, if there is one, must be 0.
fn minifloat_params<T: Minifloat>(case: &Case, shape: &[usize]) -> Outcome<MinifloatParams<T>> {
    let scale = case.input(1)?;
    let scale = scale.floats().ok_or_else(|| Stop::not_covered(format!("scales of dtype {}", scale.dtype())))?;
    let zero_point = case.inputs.get(2).and_then(|z| z.tensor.minifloats());
    if zero_point.is_some_and(|z| z.iter().any(|&z| z != 0.0)) {
        return Err(Stop::not_covered("zero points of float codes"));
    }
    let (granularity, params_shape) = granularity(case, shape, scale.shape())?;
    let scale = scale.mapv(|scale| scale as f32).into_shape_with_order(params_shape);
    let scale = scale.map_err(|error| Stop::failed(format!("scales do not fit {shape:?}: {error}")))?;
    Ok(MinifloatParams::new(granularity, scale)?)
}

/// Returns the granularity of a case and the shape of its parameters.
///
/// Follows ONNX: a `block_size` of 0 or none means not blocked; without an axis, a single scale is per tensor, and
/// several are along axis 1.
pub(crate) fn granularity(case: &Case, shape: &[usize], scale: &[usize]) -> Outcome<(Granularity, Vec<usize>)> {
    let axis = case.integer("axis")?;
    let single = scale.iter().product::<usize>() == 1;
    // A list of one scale belongs to an axis only if that has one index; PyTorch multiplies by doubles there.
    let channels = axis.and_then(|axis| checked_axis(axis, shape.len()).ok()).map(|axis| shape[axis]);
    let per_tensor = scale.is_empty() || single && channels != Some(1);
    let axis = || checked_axis(axis.unwrap_or(1), shape.len());
    match case.integer("block_size")?.unwrap_or(0) {
        0 if per_tensor => Ok((Granularity::PerTensor, Vec::new())),
        0 => {
            let axis = axis()?;
            Ok((Granularity::PerAxis { axis }, vec![scale.iter().product()]))
        }
        size => {
            let size = usize::try_from(size).map_err(|_| Stop::failed(format!("block_size {size}")))?;
            Ok((Granularity::PerGroup { axis: axis()?, size }, scale.to_vec()))
        }
    }
}

/// An axis, counted from the end if negative.
pub(crate) fn checked_axis(axis: i64, ndim: usize) -> Outcome<usize> {
    let from_start = if axis < 0 { axis + ndim as i64 } else { axis };
    let valid = usize::try_from(from_start).ok().filter(|&axis| axis < ndim);
    valid.ok_or_else(|| Stop::failed(format!("axis {axis} of a tensor with {ndim} axes")))
}

/// Casts zero points of any integer type to codes.
pub(crate) fn zero_points<T: Element>(tensor: &Tensor) -> Outcome<ArrayD<T::Code>> {
    let wide = tensor.integers();
    let wide = wide.ok_or_else(|| Stop::not_covered(format!("zero points of dtype {}", tensor.dtype())))?;
    let range = T::MIN as i64..=T::MAX as i64;
    match wide.iter().find(|z| !range.contains(z)) {
        Some(z) => Err(Stop::failed(format!("zero point {z} is no {} code", T::DTYPE))),
        None => Ok(wide.mapv(|z| T::Code::from_i32(z as i32))),
    }
}
