//! Integer products and linear layers: `ops::matmul_integer`, `ops::qlinear_matmul`, `ops::fully_connected`.

use ndarray::{Array1, Array2, ArrayD, ArrayView2, Axis, Ix1, Ix2};
use ndarray_quant::gemm::Int8;
use ndarray_quant::{Convention, Element, Granularity, QParams, QTensor, nn::Output, ops};

use super::affine::zero_points;
use super::requantize::{arithmetic, scalar, scales, zero_point};
use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, Typed, with_byte};
use crate::runner::{Outcome, Stop};

/// ONNX: `MatMulInteger`.
pub(crate) fn matmul_integer(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["b_zero_point", "a_zero_point"])?;
    with_byte!(case.input(0)?.dtype(), A => with_byte!(case.input(1)?.dtype(), B => {
        let a_zero_point = optional_zero_points::<A>(case, "a_zero_point")?;
        let b_zero_points = optional_zero_points::<B>(case, "b_zero_point")?;
        let &[a_zero_point] = a_zero_point.as_slice() else {
            return Err(Stop::not_covered("zero points per row of the LHS"));
        };
        let (a, b) = (case.values::<A>(0)?, case.values::<B>(1)?);
        per_column(case, "b_zero_point", b)?;
        let y = batched(a, b, |a, b| Ok(ops::matmul_integer(&a, a_zero_point, &b, &b_zero_points)?))?;
        Ok(vec![Tensor::I32(y)])
    }))
}

/// ONNX: `QLinearMatMul`.
pub(crate) fn qlinear_matmul(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["b_params", "rounding"])?;
    case.expects("rounding", "half_even")?;
    with_byte!(case.input(0)?.dtype(), A => with_byte!(case.input(3)?.dtype(), B => {
        with_byte!(case.output(0)?.dtype(), Y => qlinear_matmul_as::<A, B, Y>(case))
    }))
}

fn qlinear_matmul_as<A, B, Y>(case: &Case) -> Outcome<Vec<Tensor>>
where
    A: Int8 + Typed<Value = A>,
    B: Int8 + Typed<Value = B>,
    Y: Element + Typed<Value = <Y as Element>::Code>,
{
    let (a, b) = (case.values::<A>(0)?, case.values::<B>(3)?);
    per_column(case, "b_scale", b)?;
    per_column(case, "b_zero_point", b)?;
    let a_params = QParams::<A>::per_tensor(scalar(case, 1)?, zero_point::<A>(case, 2)?)?;
    let b_params = channel_params::<B>(case, 4, Some(5), Axis(1))?;
    let y_params = QParams::<Y>::per_tensor(scalar(case, 6)?, zero_point::<Y>(case, 7)?)?;
    let y = batched(a, b, |a, b| {
        let a = QTensor::<A, Ix2>::from_codes(a.to_owned(), a_params.clone())?;
        let b = QTensor::<B, Ix2>::from_codes(b.to_owned(), b_params.clone())?;
        Ok(ops::qlinear_matmul(&a, &b, &y_params)?.unpacked_codes().into_owned())
    })?;
    Ok(vec![Y::tensor(y)])
}

/// TFLite: `FULLY_CONNECTED`. All axes of the input but the last are one batch.
pub(crate) fn fully_connected(case: &Case) -> Outcome<Vec<Tensor>> {
    case.knows(&["weight_layout", "activation", "w_zero_point"])?;
    case.expects("weight_layout", "[out, in]")?;
    case.expects("w_zero_point", 0)?;
    with_byte!(case.input(0)?.dtype(), X => with_byte!(case.input(3)?.dtype(), W => {
        with_byte!(case.output(0)?.dtype(), Y => fully_connected_as::<X, W, Y>(case))
    }))
}

fn fully_connected_as<X, W, Y>(case: &Case) -> Outcome<Vec<Tensor>>
where
    X: Int8 + Typed<Value = X>,
    W: Int8 + Typed<Value = W>,
    Y: Int8 + Typed<Value = Y>,
{
    let weights = matrix(case.values::<W>(3)?)?;
    let x = matrix(case.values::<X>(0)?)?;
    let x_params = QParams::<X>::per_tensor(scalar(case, 1)?, zero_point::<X>(case, 2)?)?;
    let x = QTensor::<X, Ix2>::from_codes(x, x_params)?;
    let w_params = channel_params::<W>(case, 4, None, Axis(0))?;
    let weights = QTensor::<W, Ix2>::from_codes(weights, w_params)?;
    // An optional bias comes between the weights and the output parameters.
    let bias_at = case.inputs.iter().position(|input| input.name == "bias");
    let bias = bias_at.map(|index| case.values::<i32>(index)).transpose()?;
    let bias = bias.map(|bias| bias.clone().into_dimensionality::<Ix1>()).transpose().map_err(shape_error)?;
    let y_at = if bias.is_some() { 6 } else { 5 };
    let y_params = QParams::<Y>::per_tensor(scalar(case, y_at)?, zero_point::<Y>(case, y_at + 1)?)?;
    // The bounds of activations are quantized as TFLite does it.
    let to = Output::to(&y_params.with_convention(Convention::TfLite));
    let to = match case.text("activation")? {
        None | Some("none") => to,
        Some("relu") => to.relu(),
        Some("relu6") => to.relu6(),
        Some(other) => return Err(Stop::not_covered(format!("activation {other}"))),
    };
    let to = to.with_arithmetic(arithmetic(&case.source)?);
    let y = ops::fully_connected(&x, &weights, bias.as_deref(), &to)?;
    let y = y.unpacked_codes().iter().copied().collect();
    Ok(vec![case.like_output::<Y>(0, y)?])
}

/// Flattens all axes but the last into one.
fn matrix<A: Copy>(x: &ArrayD<A>) -> Outcome<Array2<A>> {
    let columns = x.shape().last().copied().unwrap_or(1);
    let rows = x.shape().iter().rev().skip(1).product();
    Array2::from_shape_vec((rows, columns), x.iter().copied().collect()).map_err(shape_error)
}

/// Parameters of a matrix: one scale and zero point, or one of either per index of `axis`.
fn channel_params<T: Int8>(case: &Case, scale: usize, zero: Option<usize>, axis: Axis) -> Outcome<QParams<T>> {
    let scales = scales(case, scale)?;
    let zero_points: Vec<T> = match zero {
        Some(zero) => zero_points::<T>(case.input(zero)?)?.iter().copied().collect(),
        None => vec![T::default()],
    };
    let channels = scales.len().max(zero_points.len());
    let scales = Array1::from(repeated(&scales, channels));
    let zero_points = Array1::from(repeated(&zero_points, channels));
    let granularity = if channels == 1 { Granularity::PerTensor } else { Granularity::per_axis(axis) };
    Ok(QParams::new(granularity, scales, Some(zero_points))?)
}

pub(crate) fn repeated<A: Copy>(values: &[A], len: usize) -> Vec<A> {
    match values {
        &[value] => vec![value; len],
        values => values.to_vec(),
    }
}

/// Returns zero points by name; absent ones are 0.
fn optional_zero_points<T: Int8>(case: &Case, name: &str) -> Outcome<Vec<T>> {
    match case.named(name) {
        Some(tensor) => Ok(zero_points::<T>(tensor)?.iter().copied().collect()),
        None => Ok(vec![T::default()]),
    }
}

/// Checks that parameters are shared by the matrices of a batch and vary along the last axis only.
fn per_column<B>(case: &Case, name: &str, b: &ArrayD<B>) -> Outcome<()> {
    let shape = case.named(name).map_or(&[][..], Tensor::shape);
    let values: usize = shape.iter().product();
    let columns = if b.ndim() > 1 { b.shape()[b.ndim() - 1] } else { 1 };
    let along_columns = shape.last() == Some(&columns) && values == columns;
    if values == 1 || along_columns { Ok(()) } else { Err(Stop::not_covered(format!("{name} of shape {shape:?}"))) }
}

/// Applies `product` to two stacks of matrices, broadcast as by `numpy.matmul`.
fn batched<A: Copy, B: Copy, Y: Copy>(
    a: &ArrayD<A>,
    b: &ArrayD<B>,
    product: impl Fn(ArrayView2<'_, A>, ArrayView2<'_, B>) -> Outcome<Array2<Y>>,
) -> Outcome<ArrayD<Y>> {
    // A vector is one row as LHS and one column as RHS.
    let (row, column) = (a.ndim() == 1, b.ndim() == 1);
    let a = if row { a.view().insert_axis(Axis(0)) } else { a.view() };
    let b = if column { b.view().insert_axis(Axis(1)) } else { b.view() };
    if a.ndim() < 2 || b.ndim() < 2 {
        return Err(Stop::failed("a product with a scalar"));
    }
    let (a_batch, a_matrix) = a.shape().split_at(a.ndim() - 2);
    let (b_batch, b_matrix) = b.shape().split_at(b.ndim() - 2);
    let batch = broadcast_shape(a_batch, b_batch)?;
    let stack = |matrix: &[usize]| [&batch[..], matrix].concat();
    let count: usize = batch.iter().product();
    let wrong = || Stop::failed(format!("no product of {:?} and {:?}", a.shape(), b.shape()));
    let a3 = a.broadcast(stack(a_matrix)).ok_or_else(wrong)?;
    let b3 = b.broadcast(stack(b_matrix)).ok_or_else(wrong)?;
    let flat = |matrix: &[usize]| (count, matrix[0], matrix[1]);
    let a3 = a3.to_shape(flat(a_matrix)).map_err(shape_error)?;
    let b3 = b3.to_shape(flat(b_matrix)).map_err(shape_error)?;
    let mut values = Vec::new();
    for (a, b) in a3.outer_iter().zip(b3.outer_iter()) {
        values.extend(product(a, b)?);
    }
    let mut shape = batch.clone();
    shape.extend((!row).then_some(a_matrix[0]));
    shape.extend((!column).then_some(b_matrix[1]));
    ArrayD::from_shape_vec(shape, values).map_err(shape_error)
}

/// Broadcasts two shapes as numpy does.
fn broadcast_shape(a: &[usize], b: &[usize]) -> Outcome<Vec<usize>> {
    let len = a.len().max(b.len());
    let at = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(len).map_or(1, |i| shape[i]);
    (0..len)
        .map(|i| match (at(a, i), at(b, i)) {
            (1, n) | (n, 1) => Ok(n),
            (n, m) if n == m => Ok(n),
            _ => Err(Stop::failed(format!("shapes {a:?} and {b:?} do not broadcast"))),
        })
        .collect()
}

fn shape_error(error: ndarray::ShapeError) -> Stop {
    Stop::failed(error.to_string())
}
