//! Shape inference: what operators share.

use alloc::vec::Vec;

use crate::error::{Error, Result, ShapeError};
use crate::window::{Placed, Window};

/// The largest number of elements of a tensor, for a batch of one: a small file must not cause a huge allocation.
const MAX_ELEMENTS: usize = 1 << 28;

/// A shape for a batch of one.
pub(crate) type Shape = Vec<usize>;

/// The number of elements. An error if it exceeds [`MAX_ELEMENTS`].
pub(crate) fn elements(shape: &[usize]) -> Result<usize> {
    // ndarray limits the product of the non-zero axes, even if the tensor is empty.
    let count = shape.iter().filter(|&&len| len != 0).try_fold(1usize, |count, &len| count.checked_mul(len));
    let sound = count.is_some_and(|count| count <= MAX_ELEMENTS);
    sound.then(|| shape.iter().product()).ok_or_else(|| Error::too_large("tensor", "at most 2^28 elements", shape))
}

/// Returns an error for numbers that are not finite.
pub(crate) fn check_finite(what: &'static str, values: impl IntoIterator<Item = f32>) -> Result<()> {
    match values.into_iter().find(|x| !x.is_finite()) {
        Some(found) => Err(Error::Argument { what, expected: "finite numbers", found: alloc::format!("{found}") }),
        None => Ok(()),
    }
}

/// The layout of images, for errors.
pub(crate) const NCHW: &str = "4-D [batch, channels, height, width]";

/// Places a kernel on non-empty images.
pub(crate) fn place(x: &[usize], kernel: [usize; 2], window: &Window) -> Result<([usize; 4], Placed)> {
    let [n, c, h, w] = ranked("input", NCHW, x)?;
    if h == 0 || w == 0 {
        return Err(empty_image(x));
    }
    Ok(([n, c, h, w], window.place(kernel, [h, w])?))
}

pub(crate) fn empty_image(x: &[usize]) -> Error {
    Error::layout("input", "[batch, channels, height, width] with at least one pixel", x)
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
pub(crate) fn ranked<const N: usize>(
    what: &'static str,
    expected: &'static str,
    shape: &[usize],
) -> Result<[usize; N]> {
    shape.try_into().map_err(|_| Error::layout(what, expected, shape))
}

/// The number of channels, the second axis.
pub(crate) fn channels(x: &[usize]) -> Result<usize> {
    x.get(1).copied().ok_or_else(|| Error::layout("input", "[batch, channels, ..]", x))
}
