//! Convolutions: `ops::conv_integer`, `ops::qlinear_conv`.

use ndarray::{Array4, ArrayD, Axis, Ix1, Ix4};
use ndarray_quant::gemm::Int8;
use ndarray_quant::{
    Convention, Element, QParams, QTensor,
    compat::gemmlowp::FixedPointRounding,
    nn::{Arithmetic, Output},
};
use ndarray_quant::{
    nn::{Padding, Window},
    ops,
};

use super::affine::zero_points;
use super::matmul::repeated;
use super::requantize::{arithmetic, scalar, scales, zero_point};
use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, Typed, with_byte};
use crate::runner::{Outcome, Stop};

/// ONNX: `ConvInteger`.
pub(crate) fn conv_integer(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["group", "kernel_shape", "strides", "dilations", "pads", "layout", "weight_layout"])?;
    with_byte!(case.input(0)?.dtype(), X => with_byte!(case.input(1)?.dtype(), W => {
        let x_zero_point = match case.named("x_zero_point") {
            Some(tensor) => zero_points::<X>(tensor)?.first().copied().unwrap_or_default(),
            None => X::default(),
        };
        let w_zero_points = match case.named("w_zero_point").or(case.named("w_zero_points")) {
            Some(tensor) => zero_points::<W>(tensor)?.iter().copied().collect(),
            None => vec![W::default()],
        };
        let (x, w) = (channels_last(case.values::<X>(0)?)?, channels_last(case.values::<W>(1)?)?);
        let y = ops::conv_integer(&x, x_zero_point, &w, &w_zero_points, &onnx_window(case)?, groups(case)?)?;
        Ok(vec![Tensor::I32(channels_first(y).into_dyn())])
    }))
}

/// ONNX: `QLinearConv`.
pub(crate) fn qlinear_conv(case: &Case) -> Outcome<Vec<Tensor>> {
    let geometry = ["group", "kernel_shape", "strides", "dilations", "pads", "layout", "weight_layout"];
    case.knows(&[&geometry[..], &["rounding", "weight_params"]].concat())?;
    case.expects("rounding", "half_even")?;
    with_byte!(case.input(0)?.dtype(), X => with_byte!(case.input(3)?.dtype(), W => {
        with_byte!(case.output(0)?.dtype(), Y => qlinear_conv_as::<X, W, Y>(case))
    }))
}

fn qlinear_conv_as<X, W, Y>(case: &Case) -> Outcome<Vec<Tensor>>
where
    X: Int8 + Typed<Value = X>,
    W: Int8 + Typed<Value = W>,
    Y: Int8 + Typed<Value = Y>,
{
    let x_params = QParams::per_tensor(scalar(case, 1)?, zero_point::<X>(case, 2)?)?;
    let x = quantized::<X>(channels_last(case.values::<X>(0)?)?, x_params)?;
    let w_zero_points: Vec<W> = zero_points::<W>(case.input(5)?)?.iter().copied().collect();
    let w = channels_last(case.values::<W>(3)?)?;
    let w_params = channel_params(&scales(case, 4)?, &w_zero_points, w.dim().0)?;
    let w = quantized::<W>(w, w_params)?;
    let to = Output::to(&QParams::<Y>::per_tensor(scalar(case, 6)?, zero_point::<Y>(case, 7)?)?);
    let y = ops::qlinear_conv(&x, &w, bias(case)?.as_deref(), &onnx_window(case)?, groups(case)?, &to)?;
    Ok(vec![Y::tensor(channels_first(y.unpacked_codes().into_owned()).into_dyn())])
}

/// TFLite: `CONV_2D`.
pub(crate) fn conv_2d(case: &Case) -> Outcome<Vec<Tensor>> {
    case.expects("weight_layout", "OHWI")?;
    tflite_conv(case, false)
}

/// TFLite: `DEPTHWISE_CONV_2D`.
pub(crate) fn depthwise_conv_2d(case: &Case) -> Outcome<Vec<Tensor>> {
    case.expects("weight_layout", "1HWO")?;
    tflite_conv(case, true)
}

fn tflite_conv(case: &Case, depthwise: bool) -> Outcome<Vec<Tensor>> {
    let geometry = ["layout", "weight_layout", "strides", "dilations", "padding", "depth_multiplier"];
    case.knows(&[&geometry[..], &["activation", "w_zero_point", "weight_params"]].concat())?;
    case.expects("layout", "NHWC")?;
    case.expects("w_zero_point", 0)?;
    with_byte!(case.input(0)?.dtype(), X => with_byte!(case.output(0)?.dtype(), Y => {
        tflite_conv_as::<X, Y>(case, depthwise)
    }))
}

fn tflite_conv_as<X, Y>(case: &Case, depthwise: bool) -> Outcome<Vec<Tensor>>
where
    X: Int8 + Typed<Value = X>,
    Y: Int8 + Typed<Value = Y>,
{
    let x = image(case.values::<X>(0)?)?;
    let mut w = image(case.values::<i8>(3)?)?;
    if depthwise {
        w = w.permuted_axes([3, 1, 2, 0]);
    }
    let groups = if depthwise { x.dim().3 } else { 1 };
    let window = Window::new().with_strides(pair(case, "strides")?).with_dilations(pair(case, "dilations")?);
    let window = window.with_padding(tflite_padding(case)?);
    let x = quantized::<X>(x, QParams::per_tensor(scalar(case, 1)?, zero_point::<X>(case, 2)?)?)?;
    let w_params = channel_params(&scales(case, 4)?, &[0i8], w.dim().0)?;
    let w = quantized::<i8>(w, w_params)?;
    let (scale, zero) = (position(case, "y_scale")?, position(case, "y_zero_point")?);
    let to = to_tflite::<Y>(case, QParams::per_tensor(scalar(case, scale)?, zero_point::<Y>(case, zero)?)?)?;
    // LiteRT's reference kernels for convolution equal TFLite's.
    let to = to.with_arithmetic(match case.source.as_str() {
        "litert" => Arithmetic::FixedPoint(FixedPointRounding::Double),
        source => arithmetic(source)?,
    });
    let y = ops::qlinear_conv(&x, &w, bias(case)?.as_deref(), &window, groups, &to)?;
    Ok(vec![Y::tensor(y.unpacked_codes().into_owned().into_dyn())])
}

/// Output parameters with the case's activation, its bounds quantized as TFLite does it.
pub(crate) fn to_tflite<Y: Element>(case: &Case, params: QParams<Y>) -> Outcome<Output<Y>> {
    let to = Output::to(&params.with_convention(Convention::TfLite));
    match case.text("activation")? {
        None | Some("none") => Ok(to),
        Some("relu") => Ok(to.relu()),
        Some("relu6") => Ok(to.relu6()),
        Some(other) => Err(Stop::not_covered(format!("activation {other}"))),
    }
}

pub(crate) fn tflite_padding(case: &Case) -> Outcome<Padding> {
    match case.text("padding")? {
        Some("VALID") => Ok(Padding::Valid),
        Some("SAME") => Ok(Padding::Same),
        other => Err(Stop::not_covered(format!("padding {other:?}"))),
    }
}

/// Strides, dilations and padding of an ONNX operator.
pub(crate) fn onnx_window(case: &Case) -> Outcome<Window> {
    let window = Window::new().with_strides(pair(case, "strides")?).with_dilations(pair(case, "dilations")?);
    Ok(match case.integers("pads")? {
        None => window,
        Some(pads) => {
            let pads = pads.try_into().map_err(|pads| Stop::not_covered(format!("pads {pads:?}")))?;
            window.with_padding(Padding::Explicit(pads))
        }
    })
}

/// Returns two sizes, 1 if the case has none.
pub(crate) fn pair(case: &Case, name: &str) -> Outcome<[usize; 2]> {
    match case.integers(name)? {
        None => Ok([1, 1]),
        Some(sizes) => sizes.try_into().map_err(|sizes| Stop::not_covered(format!("{name} {sizes:?}"))),
    }
}

fn groups(case: &Case) -> Outcome<usize> {
    let groups = case.integer("group")?.unwrap_or(1);
    usize::try_from(groups).map_err(|_| Stop::failed(format!("group {groups}")))
}

fn position(case: &Case, name: &str) -> Outcome<usize> {
    let position = case.inputs.iter().position(|input| input.name == name);
    position.ok_or_else(|| Stop::failed(format!("input {name} is missing")))
}

fn bias(case: &Case) -> Outcome<Option<ndarray::Array1<i32>>> {
    let bias = case.inputs.iter().position(|input| input.name == "bias");
    let bias = bias.map(|index| case.values::<i32>(index)).transpose()?;
    bias.map(|bias| bias.clone().into_dimensionality::<Ix1>()).transpose().map_err(shape_error)
}

fn channel_params<W: Int8>(scales: &[f32], zero_points: &[W], channels: usize) -> Outcome<QParams<W>> {
    match (scales, zero_points) {
        (&[scale], &[zero_point]) => Ok(QParams::per_tensor(scale, zero_point)?),
        _ => {
            let zero_points = repeated(zero_points, channels).into();
            Ok(QParams::per_axis(Axis(0), repeated(scales, channels).into(), Some(zero_points))?)
        }
    }
}

pub(crate) fn quantized<T: Int8>(codes: Array4<T>, params: QParams<T>) -> Outcome<QTensor<T, Ix4>> {
    Ok(QTensor::from_codes(codes, params)?)
}

pub(crate) fn image<A: Clone>(x: &ArrayD<A>) -> Outcome<Array4<A>> {
    x.clone().into_dimensionality::<Ix4>().map_err(|_| Stop::not_covered(format!("images of {} axes", x.ndim())))
}

/// Views NCHW as NHWC, and OIHW as OHWI.
pub(crate) fn channels_last<A: Clone>(x: &ArrayD<A>) -> Outcome<Array4<A>> {
    Ok(image(x)?.permuted_axes([0, 2, 3, 1]))
}

/// Copies NHWC to NCHW.
pub(crate) fn channels_first<A: Clone>(y: Array4<A>) -> Array4<A> {
    y.permuted_axes([0, 3, 1, 2])
}

fn shape_error(error: ndarray::ShapeError) -> Stop {
    Stop::failed(error.to_string())
}
