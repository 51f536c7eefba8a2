//! Networks written in Rust.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayRef, Axis, Dimension, Zip};

use super::network::{Constant, Graph, Input, Node, Parts, infer};
use super::op::{Activation, Clamp, Op};
use super::shape::{self, Shape};
use crate::error::{Error, Result};
use crate::window::Window;

/// Builds a [`Graph`] node by node. Methods take the names of tensors and return the name of the one that is new.
///
/// ```
/// use ndarray::{Array, Array1, IxDyn};
/// use ndarray_quant::{graph::{Activation, GraphBuilder}, nn::Window};
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("image", &[1, 3, 8, 8])?;
/// let weights = Array::from_elem((4, 3, 3, 3), 0.1);
/// let x = g.conv("first", &x, &weights, Some(&Array1::zeros(4)), Window::new().with_padding(1), 1)?;
/// let x = g.activation("relu", &x, Activation::relu())?;
/// let x = g.global_average_pool("mean", &x)?;
/// let x = g.flatten("features", &x)?;
/// let x = g.linear("scores", &x, &Array::from_elem((2, 4), 0.5), None)?;
/// let graph = g.build(&[&x])?;
///
/// assert_eq!(graph.shape("first"), Some(&[1, 4, 8, 8][..]));
/// let y = graph.run(&Array::from_elem(IxDyn(&[2, 3, 8, 8]), 1.0))?;
/// assert_eq!(y.shape(), [2, 2]); // any batch
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct GraphBuilder {
    parts: Parts,
    shapes: BTreeMap<String, Shape>,
}

impl GraphBuilder {
    /// A graph of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A tensor that the caller will provide, of this shape for a batch of one.
    ///
    /// # Errors
    /// [`Error::Name`] if a tensor has that name, [`Error::Shape`] unless the first axis has a length of 1.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> Result<String> {
        if shape.first() != Some(&1) {
            return Err(Error::shape("input of the graph, for a batch of one", &[1], shape));
        }
        self.define(name, shape.to_vec())?;
        self.parts.inputs.push(Input { name: name.into(), shape: shape.into() });
        Ok(name.into())
    }

    /// A tensor that is known.
    ///
    /// # Errors
    /// [`Error::Name`] if a tensor has that name, [`Error::NonFinite`] if it holds a NaN or an infinity.
    pub fn constant<D: Dimension>(&mut self, name: &str, value: &ArrayRef<f32, D>) -> Result<String> {
        if let Some((index, found)) =
            crate::granularity::positions(value.raw_dim()).zip(value).find(|(_, x)| !x.is_finite())
        {
            return Err(Error::NonFinite { found: (*found).into(), index });
        }
        self.define(name, value.shape().to_vec())?;
        let value: Constant = value.as_standard_layout().into_owned().into_dyn().into_shared();
        self.parts.constants.insert(name.into(), value);
        Ok(name.into())
    }

    /// Any operator on any tensors. Its output has the node's name. One on constants is computed now, and its output
    /// is a constant too.
    ///
    /// # Errors
    /// [`Error::Name`] if a tensor or a node has that name or an input is unknown, and [`Error::Node`] with what is
    /// wrong with the shapes of the inputs.
    pub fn node(&mut self, name: &str, op: Op, inputs: &[&str]) -> Result<String> {
        let inputs = inputs.iter().map(|name| name.to_string()).collect();
        self.push(Node { name: name.into(), op, inputs, clamp: Clamp::NONE, output: name.into() })
    }

    pub(crate) fn push(&mut self, node: Node) -> Result<String> {
        let constants = &self.parts.constants;
        let known = node.inputs.iter().map(|name| constants.get(name)).collect::<Option<Vec<_>>>();
        if let Some(inputs) = known.filter(|inputs| !inputs.is_empty()) {
            let value = evaluate(&node.op, &inputs).map_err(|e| e.at(&node.name))?;
            return self.constant(&node.output, &value);
        }
        let shape = infer(&node, &self.shapes, |name| constants.contains_key(name)).map_err(|e| e.at(&node.name))?;
        self.define(&node.output, shape)?;
        let output = node.output.clone();
        self.parts.nodes.push(node);
        Ok(output)
    }

    /// [`Op::Conv`] of `[batch, in, height, width]` with weights `[out, in / groups, kernel height, kernel width]` and
    /// a bias `[out]`. They become constants with the node's name and `.weight` or `.bias` behind it. Errors as
    /// [`Self::node`] and [`Self::constant`].
    pub fn conv(
        &mut self,
        name: &str,
        x: &str,
        weights: &ndarray::ArrayRef4<f32>,
        bias: Option<&ndarray::ArrayRef1<f32>>,
        window: Window,
        groups: usize,
    ) -> Result<String> {
        self.weighted(name, Op::Conv { window, groups }, x, weights, bias)
    }

    /// [`Op::Linear`] of `[batch, in]` with weights `[out, in]` and a bias `[out]`, which become constants as those of
    /// [`conv`](Self::conv) do. Errors as [`Self::node`] and [`Self::constant`].
    pub fn linear(
        &mut self,
        name: &str,
        x: &str,
        weights: &ndarray::ArrayRef2<f32>,
        bias: Option<&ndarray::ArrayRef1<f32>>,
    ) -> Result<String> {
        self.weighted(name, Op::Linear, x, weights, bias)
    }

    fn weighted<D: Dimension>(
        &mut self,
        name: &str,
        op: Op,
        x: &str,
        weights: &ArrayRef<f32, D>,
        bias: Option<&ndarray::ArrayRef1<f32>>,
    ) -> Result<String> {
        let mut inputs = alloc::vec![x.to_string(), self.constant(&alloc::format!("{name}.weight"), weights)?];
        if let Some(bias) = bias {
            inputs.push(self.constant(&alloc::format!("{name}.bias"), bias)?);
        }
        self.push(Node { name: name.into(), op, inputs, clamp: Clamp::NONE, output: name.into() })
    }

    /// [`Op::Activation`], of any shape. Errors as [`Self::node`].
    pub fn activation(&mut self, name: &str, x: &str, activation: Activation) -> Result<String> {
        self.node(name, Op::Activation(activation), &[x])
    }

    /// [`Op::Add`] of tensors that broadcast: axes are matched from the last one on. Errors as [`Self::node`].
    pub fn add(&mut self, name: &str, a: &str, b: &str) -> Result<String> {
        self.node(name, Op::Add, &[a, b])
    }

    /// [`Op::Mul`] of tensors that broadcast. Errors as [`Self::node`].
    pub fn mul(&mut self, name: &str, a: &str, b: &str) -> Result<String> {
        self.node(name, Op::Mul, &[a, b])
    }

    /// [`Op::MaxPool`] of `[batch, channels, height, width]`. Errors as [`Self::node`].
    pub fn max_pool(&mut self, name: &str, x: &str, kernel: [usize; 2], window: Window) -> Result<String> {
        self.node(name, Op::MaxPool { kernel, window }, &[x])
    }

    /// [`Op::GlobalAveragePool`]: `[batch, channels, height, width]` to `[batch, channels, 1, 1]`. Errors as
    /// [`Self::node`].
    pub fn global_average_pool(&mut self, name: &str, x: &str) -> Result<String> {
        self.node(name, Op::GlobalAveragePool, &[x])
    }

    /// [`Op::Reshape`] to one axis beside the batch: `[batch, c, h, w]` to `[batch, c * h * w]`. Errors as
    /// [`Self::node`].
    pub fn flatten(&mut self, name: &str, x: &str) -> Result<String> {
        let features = self.shape(x).map_or(0, |shape| shape.iter().product());
        self.node(name, Op::Reshape { shape: alloc::vec![features] }, &[x])
    }

    /// The shape of a tensor, for a batch of one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// The value of a constant.
    #[cfg(feature = "onnx")]
    pub(crate) fn constant_value(&self, name: &str) -> Option<&Constant> {
        self.parts.constants.get(name)
    }

    /// The graph that computes these tensors.
    ///
    /// # Errors
    /// [`Error::Name`] if one of them is unknown or two nodes have the same name.
    pub fn build(mut self, outputs: &[&str]) -> Result<Graph> {
        self.parts.outputs = outputs.iter().map(|name| name.to_string()).collect();
        Graph::new(self.parts)
    }

    fn define(&mut self, name: &str, shape: Shape) -> Result<()> {
        shape::elements(&shape)?;
        if self.shapes.contains_key(name) {
            return Err(Error::Name { what: "tensor", expected: "a name of its own", found: name.into() });
        }
        self.shapes.insert(name.into(), shape);
        Ok(())
    }
}

/// The output of an operator on constants.
fn evaluate(op: &Op, inputs: &[&Constant]) -> Result<ArrayD<f32>> {
    let pair = |f: fn(f32, f32) -> f32| {
        let [a, b] = inputs else { return Err(Error::shape("number of inputs", &[2], &[inputs.len()])) };
        let shape = shape::broadcast(a.shape(), b.shape())?;
        shape::elements(&shape)?;
        let [a, b] = [a, b].map(|x| x.broadcast(&shape[..]).expect("the common shape of both"));
        Ok(Zip::from(&a).and(&b).map_collect(|&a, &b| f(a, b)))
    };
    match op {
        Op::Add => pair(|a, b| a + b),
        Op::Mul => pair(|a, b| a * b),
        Op::Activation(activation) => Ok(inputs[0].mapv(|x| activation.eval(x))),
        Op::Concat { axis } if *axis < inputs[0].ndim() => {
            let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
            let shapes: Vec<_> = inputs.iter().map(|x| x.shape().to_vec()).collect();
            let different = |_| Error::shape("concatenated tensor", &shapes[0], &shapes[shapes.len() - 1]);
            ndarray::concatenate(Axis(*axis), &views).map_err(different)
        }
        _ => Err(Error::Argument {
            what: "inputs",
            expected: "at least one that is not constant",
            found: "constants only".to_string(),
        }),
    }
}
