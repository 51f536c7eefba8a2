//! The shape of a node's output, given those of its inputs.

use alloc::vec::Vec;

use super::op::{Activation, Clamp, Op};
use crate::error::{Error, Result};
use crate::window::{Placed, Window};

/// No tensor of one image has more elements: what comes from a file must not make us ask for any amount of memory.
const MAX_ELEMENTS: usize = 1 << 28;

/// A shape with a batch of 1 as its first axis.
pub(crate) type Shape = Vec<usize>;

/// The number of elements, if it is reasonable.
pub(crate) fn elements(shape: &[usize]) -> Result<usize> {
    // Empty tensors too are arrays, which their other axes must not be too long for.
    let count = shape.iter().filter(|&&len| len != 0).try_fold(1usize, |count, &len| count.checked_mul(len));
    let sound = count.is_some_and(|count| count <= MAX_ELEMENTS);
    sound.then(|| shape.iter().product()).ok_or_else(|| Error::Argument {
        what: "tensor",
        expected: "at most 2^28 elements",
        found: alloc::format!("shape {shape:?}"),
    })
}

/// The shape of the output of `op`; `constant[i]` tells that input `i` is one.
pub(crate) fn infer(op: &Op, inputs: &[&[usize]], constant: &[bool]) -> Result<Shape> {
    let arity = match op {
        Op::Conv { .. } | Op::Linear => 2..=3,
        Op::BatchNorm { .. } => 5..=5,
        Op::Add | Op::Mul => 2..=2,
        Op::Concat { .. } => 1..=usize::MAX,
        _ => 1..=1,
    };
    if !arity.contains(&inputs.len()) {
        let (expected, found) = (alloc::vec![*arity.start()], alloc::vec![inputs.len()]);
        return Err(Error::Shape { what: "number of inputs", expected, found });
    }
    check_finite(op)?;
    let x = inputs[0];
    let parameters = match op {
        Op::Conv { .. } | Op::Linear | Op::BatchNorm { .. } => &constant[1..],
        _ => &[],
    };
    if parameters.contains(&false) {
        let found = "the output of another node".into();
        return Err(Error::Argument { what: "weights", expected: "constants", found });
    }
    let shape = match op {
        Op::Conv { window, groups } => conv(x, inputs, window, *groups)?,
        Op::Linear => {
            let [n, depth] = ranked("rank of the input", x)?;
            let [out, w_depth] = ranked("rank of the weights", inputs[1])?;
            expect("weights", &[out, depth], &[out, w_depth])?;
            inputs.get(2).map_or(Ok(()), |bias| expect("bias", &[out], bias))?;
            alloc::vec![n, out]
        }
        Op::BatchNorm { .. } => {
            let channels = channels(x)?;
            inputs[1..].iter().try_for_each(|p| expect("parameters of the normalization", &[channels], p))?;
            x.to_vec()
        }
        Op::Add | Op::Mul => {
            check_batches(inputs, constant)?;
            broadcast(x, inputs[1])?
        }
        Op::Activation(_) => x.to_vec(),
        Op::MaxPool { kernel, window } | Op::AveragePool { kernel, window, .. } => {
            let ([n, c, _, _], placed) = place(x, *kernel, window)?;
            let shape = alloc::vec![n, c, placed.output[0], placed.output[1]];
            elements(&shape)?;
            // Without an element under the kernel there is no maximum and no mean.
            if covers_padding_only(&placed, 0) || covers_padding_only(&placed, 1) {
                let (expected, found) = ("an element of the tensor under each place of the kernel", window);
                let found = alloc::format!("{found:?} of {kernel:?} on {:?}", placed.image);
                return Err(Error::Argument { what: "window of a pooling", expected, found });
            }
            shape
        }
        Op::GlobalAveragePool => {
            let [n, c, h, w] = ranked("rank of the input", x)?;
            if h * w == 0 {
                return Err(Error::shape("input", &[n, c, 1, 1], x));
            }
            alloc::vec![n, c, 1, 1]
        }
        Op::Concat { axis } => concat(inputs, *axis)?,
        Op::Pad { pads } => {
            let [n, c, h, w] = ranked("rank of the input", x)?;
            let longer = |len: usize, a: usize, b: usize| len.saturating_add(a).saturating_add(b);
            alloc::vec![n, c, longer(h, pads[0], pads[2]), longer(w, pads[1], pads[3])]
        }
        Op::Repeat { factors } => {
            let [n, c, h, w] = ranked("rank of the input", x)?;
            alloc::vec![n, c, h.saturating_mul(factors[0]), w.saturating_mul(factors[1])]
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

/// Refuses attributes that are no numbers or infinite.
fn check_finite(op: &Op) -> Result<()> {
    let (name, attributes) = match *op {
        Op::BatchNorm { epsilon } => ("epsilon", [Some(epsilon), None]),
        Op::Activation(Activation::Clip(Clamp { low, high })) => ("bounds of a clamp", [low, high]),
        Op::Activation(Activation::HardSigmoid { alpha, beta }) => ("alpha and beta", [Some(alpha), Some(beta)]),
        Op::Activation(Activation::LeakyRelu { alpha }) => ("alpha", [Some(alpha), None]),
        _ => return Ok(()),
    };
    match attributes.into_iter().flatten().find(|x| !x.is_finite()) {
        Some(found) => {
            Err(Error::Argument { what: name, expected: "finite numbers", found: alloc::format!("{found}") })
        }
        None => Ok(()),
    }
}

/// Activations that meet have the batch as their first axis, and constants have one for all images.
fn check_batches(inputs: &[&[usize]], constant: &[bool]) -> Result<()> {
    let activations = || inputs.iter().zip(constant).filter(|(_, constant)| !**constant).map(|(shape, _)| shape.len());
    let Some(ndim) = activations().next() else { return Ok(()) };
    match inputs.iter().zip(constant).find(|(s, constant)| if **constant { s.len() > ndim } else { s.len() != ndim }) {
        Some((shape, _)) => Err(Error::shape("rank of the operand", &[ndim], &[shape.len()])),
        None => Ok(()),
    }
}

/// A kernel on images, which must not be empty.
fn place(x: &[usize], kernel: [usize; 2], window: &Window) -> Result<([usize; 4], Placed)> {
    let [n, c, h, w] = ranked("rank of the input", x)?;
    if h == 0 || w == 0 {
        return Err(Error::shape("image, at least one pixel", &[n, c, h.max(1), w.max(1)], x));
    }
    Ok(([n, c, h, w], window.place(kernel, [h, w])?))
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
    let [out, depth, kh, kw] = ranked("rank of the weights", inputs[1])?;
    let ([n, channels, ..], placed) = place(x, [kh, kw], window)?;
    if groups == 0 || !channels.is_multiple_of(groups) || !out.is_multiple_of(groups) {
        let found = alloc::format!("{groups} for {channels} to {out} channels");
        return Err(Error::Argument { what: "groups", expected: "a divisor of the numbers of channels", found });
    }
    expect("weights", &[out, channels / groups, kh, kw], &[out, depth, kh, kw])?;
    inputs.get(2).map_or(Ok(()), |bias| expect("bias", &[out], bias))?;
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
        expect("concatenated tensor", &expected, input)?;
        shape[axis] = shape[axis].saturating_add(input[axis]);
    }
    Ok(shape)
}

/// The common shape of two tensors: axes are matched from the last one on, and a length of 1 fits all.
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
        _ => Err(Error::shape("broadcast tensor", a, b)),
    };
    (0..ndim).map(axis).collect()
}

pub(crate) fn ranked<const N: usize>(what: &'static str, shape: &[usize]) -> Result<[usize; N]> {
    shape.try_into().map_err(|_| Error::shape(what, &[N], &[shape.len()]))
}

fn channels(x: &[usize]) -> Result<usize> {
    x.get(1).copied().ok_or_else(|| Error::shape("rank of the input", &[2], &[x.len()]))
}

/// Refuses the batch, and axes that there are not.
fn inner_axis(axis: usize, ndim: usize) -> Result<()> {
    if axis == 0 {
        let found = "0, the batch".into();
        return Err(Error::Argument { what: "axis", expected: "one within an image", found });
    }
    if axis < ndim { Ok(()) } else { Err(Error::Axis { ndim, found: axis }) }
}

fn expect(what: &'static str, expected: &[usize], found: &[usize]) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::shape(what, expected, found)) }
}
