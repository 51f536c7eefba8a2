//! Shape inference.

use alloc::vec::Vec;

use super::op::{Activation, Clamp, Op};
use crate::error::{Error, GraphError, Result, ShapeError, check_shapes};
use crate::window::{Placed, Window};

/// The largest number of elements of a tensor, for a batch of one: a small file must not cause a huge allocation.
const MAX_ELEMENTS: usize = 1 << 28;

/// A shape whose first axis, the batch, is 1.
pub(crate) type Shape = Vec<usize>;

/// The number of elements. An error if it exceeds [`MAX_ELEMENTS`].
pub(crate) fn elements(shape: &[usize]) -> Result<usize> {
    // ndarray limits the product of the non-zero axes, even if the tensor is empty.
    let count = shape.iter().filter(|&&len| len != 0).try_fold(1usize, |count, &len| count.checked_mul(len));
    let sound = count.is_some_and(|count| count <= MAX_ELEMENTS);
    sound.then(|| shape.iter().product()).ok_or_else(|| Error::too_large("tensor", "at most 2^28 elements", shape))
}

/// Checks the number of inputs and the attributes that do not depend on shapes.
pub(crate) fn check_op(op: &Op, inputs: usize) -> Result<()> {
    let (arity, expected) = match op {
        Op::Conv { .. } | Op::Linear => (2..=3, "2 or 3 (input, weights, bias)"),
        Op::BatchNorm { .. } => (5..=5, "5 (input, scale, shift, mean, variance)"),
        Op::Add | Op::Mul => (2..=2, "2"),
        Op::Concat { .. } => (1..=usize::MAX, "at least 1"),
        _ => (1..=1, "1"),
    };
    if !arity.contains(&inputs) {
        let found = alloc::format!("{inputs} for {}", op.name());
        return Err(GraphError::Inputs { expected: expected.into(), found }.into());
    }
    match *op {
        Op::BatchNorm { epsilon } => check_finite("epsilon", [epsilon]),
        Op::Activation(Activation::Clip(clamp)) => check_clamp(clamp),
        Op::Activation(Activation::HardSigmoid { alpha, beta }) => check_finite("alpha and beta", [alpha, beta]),
        Op::Activation(Activation::LeakyRelu { alpha }) => check_finite("alpha", [alpha]),
        _ => Ok(()),
    }
}

/// Returns an error unless the bounds are finite or `None`.
pub(crate) fn check_clamp(clamp: Clamp) -> Result<()> {
    check_finite("bounds of a clamp", clamp.low.into_iter().chain(clamp.high))
}

fn check_finite(what: &'static str, values: impl IntoIterator<Item = f32>) -> Result<()> {
    match values.into_iter().find(|x| !x.is_finite()) {
        Some(found) => Err(Error::Argument { what, expected: "finite numbers", found: alloc::format!("{found}") }),
        None => Ok(()),
    }
}

/// The shape of the output of `op`. `constant[i]` says whether input `i` is constant.
pub(crate) fn infer(op: &Op, inputs: &[&[usize]], constant: &[bool]) -> Result<Shape> {
    check_op(op, inputs.len())?;
    let x = inputs[0];
    let parameters = match op {
        Op::Conv { .. } | Op::Linear | Op::BatchNorm { .. } => &constant[1..],
        _ => &[],
    };
    if parameters.contains(&false) {
        let expected = "constants for weights and other parameters".into();
        return Err(GraphError::Inputs { expected, found: "the output of another node".into() }.into());
    }
    let shape = match op {
        Op::Conv { window, groups } => conv(x, inputs, window, *groups)?,
        Op::Linear => {
            let [n, depth] = ranked("input", "a matrix [batch, in]", x)?;
            let [out, w_depth] = ranked("weights", "a matrix [out, in]", inputs[1])?;
            check_shapes("weights", &[out, depth], &[out, w_depth])?;
            inputs.get(2).map_or(Ok(()), |bias| check_shapes("bias", &[out], bias))?;
            alloc::vec![n, out]
        }
        Op::BatchNorm { .. } => {
            let channels = channels(x)?;
            inputs[1..].iter().try_for_each(|p| check_shapes("parameter of the normalization", &[channels], p))?;
            x.to_vec()
        }
        Op::Add | Op::Mul => {
            check_operands(inputs, constant)?;
            broadcast(x, inputs[1])?
        }
        Op::Activation(_) => x.to_vec(),
        Op::MaxPool { kernel, window } | Op::AveragePool { kernel, window, .. } => {
            let ([n, c, _, _], placed) = place(x, *kernel, window)?;
            let shape = alloc::vec![n, c, placed.output[0], placed.output[1]];
            elements(&shape)?;
            // Without an element under the kernel there is no maximum and no mean.
            if covers_padding_only(&placed, 0) || covers_padding_only(&placed, 1) {
                let (expected, [h, w]) = ("at least one pixel of the image in each window", placed.image);
                let found = alloc::format!("a window of padding only (kernel {kernel:?}, image {h} x {w})");
                return Err(Error::Argument { what: "pooling", expected, found });
            }
            shape
        }
        Op::GlobalAveragePool => {
            let [n, c, h, w] = ranked("input", NCHW, x)?;
            if h * w == 0 {
                return Err(empty_image(x));
            }
            alloc::vec![n, c, 1, 1]
        }
        Op::Concat { axis } => concat(inputs, *axis)?,
        Op::Pad { pads } => {
            let [n, c, h, w] = ranked("input", NCHW, x)?;
            let longer = |len: usize, a: usize, b: usize| len.saturating_add(a).saturating_add(b);
            alloc::vec![n, c, longer(h, pads[0], pads[2]), longer(w, pads[1], pads[3])]
        }
        Op::Resize { scales } => {
            let [n, c, h, w] = ranked("input", NCHW, x)?;
            alloc::vec![n, c, h.saturating_mul(scales[0]), w.saturating_mul(scales[1])]
        }
        Op::Reshape { shape } => {
            let mut full = alloc::vec![x.first().copied().unwrap_or(1)];
            full.extend(shape);
            if elements(&full)? != elements(x)? {
                return Err(Error::shape("reshaped tensor", x, &full));
            }
            full
        }
        Op::Softmax { axis } => {
            inner_axis(*axis, x.len())?;
            x.to_vec()
        }
    };
    elements(&shape)?;
    Ok(shape)
}

/// Checks the ranks of two operands that broadcast: activations have equal ranks, so that their batch axes align, and a
/// constant has no more axes than they.
fn check_operands(inputs: &[&[usize]], constant: &[bool]) -> Result<()> {
    let activations = || inputs.iter().zip(constant).filter(|(_, constant)| !**constant).map(|(shape, _)| shape.len());
    let Some(ndim) = activations().next() else { return Ok(()) };
    match inputs.iter().zip(constant).find(|(s, constant)| if **constant { s.len() > ndim } else { s.len() != ndim }) {
        Some(_) => {
            let expected = "activations of equal rank, and constants of at most that rank".into();
            let found = alloc::format!("shapes {:?} and {:?}", inputs[0], inputs[1]);
            Err(GraphError::Inputs { expected, found }.into())
        }
        None => Ok(()),
    }
}

/// The layout of images, for errors.
const NCHW: &str = "4-D [batch, channels, height, width]";

/// Places a kernel on non-empty images.
fn place(x: &[usize], kernel: [usize; 2], window: &Window) -> Result<([usize; 4], Placed)> {
    let [n, c, h, w] = ranked("input", NCHW, x)?;
    if h == 0 || w == 0 {
        return Err(empty_image(x));
    }
    Ok(([n, c, h, w], window.place(kernel, [h, w])?))
}

fn empty_image(x: &[usize]) -> Error {
    Error::layout("input", "[batch, channels, height, width] with at least one pixel", x)
}

/// Returns whether some output along an axis has a kernel that covers padding only.
fn covers_padding_only(placed: &Placed, axis: usize) -> bool {
    let is_empty = |at: usize| placed.kernel_range(axis, at).is_empty();
    let outputs = placed.output[axis];
    if placed.dilations[axis] <= placed.image[axis] {
        // No gap of the kernel spans the image: if the first and the last kernel reach it, all between do.
        outputs > 0 && (is_empty(0) || is_empty(outputs - 1))
    } else {
        (0..outputs).any(is_empty)
    }
}

fn conv(x: &[usize], inputs: &[&[usize]], window: &Window, groups: usize) -> Result<Shape> {
    let [out, depth, kh, kw] = ranked("weights", "4-D [out, in / groups, height, width]", inputs[1])?;
    let ([n, channels, ..], placed) = place(x, [kh, kw], window)?;
    if groups == 0 || !channels.is_multiple_of(groups) || !out.is_multiple_of(groups) {
        let found = alloc::format!("{groups} groups for {channels} input and {out} output channels");
        return Err(Error::Argument { what: "groups", expected: "a divisor of both numbers of channels", found });
    }
    check_shapes("weights", &[out, channels / groups, kh, kw], &[out, depth, kh, kw])?;
    inputs.get(2).map_or(Ok(()), |bias| check_shapes("bias", &[out], bias))?;
    Ok(alloc::vec![n, out, placed.output[0], placed.output[1]])
}

fn concat(inputs: &[&[usize]], axis: usize) -> Result<Shape> {
    let mut shape = inputs[0].to_vec();
    inner_axis(axis, shape.len())?;
    for input in &inputs[1..] {
        let mut expected = inputs[0].to_vec();
        if input.len() == expected.len() {
            expected[axis] = input[axis];
        }
        check_shapes("concatenated tensor", &expected, input)?;
        shape[axis] = shape[axis].saturating_add(input[axis]);
    }
    Ok(shape)
}

/// The shape that two tensors broadcast to: axes are aligned at the last one, and a length of 1 fits any length.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Shape> {
    let ndim = a.len().max(b.len());
    let at = |shape: &[usize], axis: usize| {
        let missing = ndim - shape.len();
        if axis < missing { 1 } else { shape[axis - missing] }
    };
    let axis = |axis| match (at(a, axis), at(b, axis)) {
        (a, b) if a == b => Ok(a),
        (a, 1) => Ok(a),
        (1, b) => Ok(b),
        _ => Err(ShapeError::Broadcast { a: a.to_vec(), b: b.to_vec() }.into()),
    };
    (0..ndim).map(axis).collect()
}

/// The axes of a tensor of rank `N`. `expected` names them.
fn ranked<const N: usize>(what: &'static str, expected: &'static str, shape: &[usize]) -> Result<[usize; N]> {
    shape.try_into().map_err(|_| Error::layout(what, expected, shape))
}

fn channels(x: &[usize]) -> Result<usize> {
    x.get(1).copied().ok_or_else(|| Error::layout("input", "[batch, channels, ..]", x))
}

/// Returns an error for the batch axis and for axes that do not exist.
fn inner_axis(axis: usize, ndim: usize) -> Result<()> {
    if axis == 0 || axis >= ndim {
        let found = alloc::format!("{axis} for a tensor of {ndim} axes");
        return Err(Error::Argument { what: "axis", expected: "an axis of the tensor, not the batch (axis 0)", found });
    }
    Ok(())
}
