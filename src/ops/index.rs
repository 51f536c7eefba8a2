//! Positions in errors: from an element of a buffer to an index of the caller's tensor.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::nhwc::{Dims, Layout};
use crate::error::{Error, GraphError, ValueError};

/// Replaces the index of a [`ValueError::NonFinite`]; other errors stay.
pub(crate) fn map_index(error: Error, map: impl FnOnce(Vec<usize>) -> Vec<usize>) -> Error {
    match error {
        Error::Value(ValueError::NonFinite { what, found, index }) => {
            ValueError::NonFinite { what, found, index: map(index) }.into()
        }
        Error::Graph(GraphError::Node { node, error }) => {
            GraphError::Node { node, error: Box::new(map_index(*error, map)) }.into()
        }
        error => error,
    }
}

/// The logical index of element `position` of a buffer.
pub(crate) fn from_buffer(position: usize, dims: Dims<'_>) -> Vec<usize> {
    match (from_row_major(position, &dims.in_memory())[..].as_ref(), dims.layout) {
        (&[n, h, w, c], Layout::ChannelsLast) => alloc::vec![n, c, h, w],
        (index, _) => index.to_vec(),
    }
}

/// The index of element `position` of a row-major tensor. The batch axis takes any position.
pub(crate) fn from_row_major(mut position: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = alloc::vec![0; shape.len()];
    for (axis, at) in index.iter_mut().enumerate().rev() {
        let len = if axis == 0 { usize::MAX } else { shape[axis].max(1) };
        (*at, position) = (position % len, position / len);
    }
    index
}
