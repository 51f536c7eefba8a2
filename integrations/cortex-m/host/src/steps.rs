//! A network of all kinds of steps, with weights that a formula gives: it is compared, not trained.

use ndarray::{Array, Array4, Dimension, IntoDimension, array};
use ndarray_quant::graph::{Activation, Graph, GraphBuilder, op};
use ndarray_quant::nn::{Padding, Window};

use crate::program::Result;

/// Values between -1 and 1 of any shape.
fn wave<S: IntoDimension>(shape: S, period: f32) -> Array<f32, S::Dim>
where
    S::Dim: Dimension,
{
    let dim = shape.into_dimension();
    let values = (0..dim.size()).map(|i| (i as f32 * period).sin()).collect();
    Array::from_shape_vec(dim, values).expect("one value for each element")
}

/// The network, and inputs of three channels.
pub(crate) fn network() -> Result<(Graph, Array4<f32>)> {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 3, 12, 10])?;
    let same = Window::new().with_padding(Padding::Same);
    let x = g.conv("conv", x, &wave([8, 3, 3, 3], 0.7), Some(&wave([8], 1.1)), same.with_strides([2, 1]), 1)?;
    let x = g.relu6("relu6", x)?;
    let y = g.conv("depthwise", x, &wave([8, 1, 3, 3], 1.3), None, same.with_dilations([1, 2]), 8)?;
    let y = g.conv("pointwise", y, &wave([8, 8, 1, 1], 0.9), Some(&wave([8], 0.3)), Window::new(), 1)?;
    let x = g.add("residual", x, y)?;
    let x = g.activation("hard swish", x, Activation::HardSwish)?;
    let y = g.conv("groups", x, &wave([8, 4, 2, 3], 1.9), None, same, 2)?;
    let mean = g.global_average_pool("mean", y)?;
    let gate = g.activation("gate", mean, Activation::Sigmoid)?;
    let y = g.mul("gated", y, gate)?;
    let offset = g.constant("offset", &array![0.25f32])?;
    let y = g.node("shifted", op::Binary::Sub, &[y, offset])?;
    let x = g.concat("concat", &[x, y], 1)?;
    let a = g.max_pool("max pool", x, [2, 3], Window::new().with_strides([2, 2]).with_padding(1))?;
    let b = g.average_pool("average pool", x, [2, 3], Window::new().with_strides([2, 2]).with_padding(1), true)?;
    let x = g.add("pools", a, b)?;
    let x = g.pad("pad", x, [0, 1, 1, 0])?;
    let x = g.flatten("features", x)?;
    let features = g.shape(x)?[1];
    let y = g.linear("scores", x, &wave([5, features], 0.37), Some(&wave([5], 0.5)))?;
    Ok((g.build(&[y])?, wave([8, 3, 12, 10], 0.11)))
}
