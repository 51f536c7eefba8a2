//! Builds graphs in Rust.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{ArrayD, ArrayRef, ArrayRef1, ArrayRef2, ArrayRef4, ArrayViewD, Dimension};

use super::network::{
    Constant, Graph, Input, Node, Parts, check_file_input, check_input, check_operator, duplicate, infer,
    only_constants,
};
use super::op;
use crate::error::{Error, GraphError, Result};
use crate::ops::clamp::Clamp;
use crate::ops::operator::Inputs;
use crate::ops::registry::Op;
use crate::ops::shape::{Shape, elements};
use crate::range::check_finite;
use crate::window::Window;

/// A handle of a tensor in a [`GraphBuilder`].
///
/// A handle is valid in the builder that returned it, and in clones made later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TensorId {
    builder: usize,
    index: usize,
}

/// Builds a [`Graph`], node by node.
///
/// Each method adds one tensor and returns its handle, which later methods take as an input. The first argument names the
/// tensor; [recipes](super::Recipe), reports and errors use the name. The shape of every tensor is inferred and checked
/// at once.
///
/// There are methods for the most common operators; [`node`](Self::node) takes any operator as a value, with its attributes
/// from [`op`].
///
/// ```
/// use ndarray::{Array, Array1, IxDyn};
/// use ndarray_quant::{graph::GraphBuilder, nn::Window};
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("image", &[1, 3, 8, 8])?;
/// let weights = Array::from_elem((4, 3, 3, 3), 0.1);
/// let x = g.conv("conv", x, &weights, Some(&Array1::zeros(4)), Window::new().with_padding(1), 1)?;
/// let x = g.relu("relu", x)?;
/// assert_eq!(g.shape(x)?, [1, 4, 8, 8]);
/// let x = g.global_average_pool("pool", x)?;
/// let x = g.flatten("features", x)?;
/// let y = g.linear("scores", x, &Array::from_elem((2, 4), 0.5), None)?;
/// let graph = g.build(&[y])?;
///
/// let y = graph.run(&Array::from_elem(IxDyn(&[2, 3, 8, 8]), 1.0))?; // a batch of two
/// assert_eq!(y.shape(), [2, 2]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
///
/// # Errors
/// Methods that add a node return
/// - [`Error::Graph`] for a handle of another builder, and if a tensor already has the name,
/// - [`Error::Graph`] with the cause if the inputs do not have the shapes, or the attributes the values, that the operator
///   needs,
/// - [`Error::Value`] if weights or biases hold a NaN or an infinity.
#[derive(Debug)]
pub struct GraphBuilder {
    /// Unique in the process.
    id: usize,
    /// All tensors: their handles, by index, and their names.
    tensors: Vec<(TensorId, String)>,
    parts: Parts,
    shapes: BTreeMap<String, Shape>,
}

impl Default for GraphBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for GraphBuilder {
    /// The handles of this builder are valid in the clone. Handles that either of them returns later are not valid in the
    /// other.
    fn clone(&self) -> Self {
        let Self { tensors, parts, shapes, .. } = self;
        Self { id: next_id(), tensors: tensors.clone(), parts: parts.clone(), shapes: shapes.clone() }
    }
}

fn next_id() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl GraphBuilder {
    /// Creates a builder of an empty graph.
    pub fn new() -> Self {
        Self { id: next_id(), tensors: Vec::new(), parts: Parts::default(), shapes: BTreeMap::new() }
    }

    /// The nodes so far.
    #[cfg(feature = "onnx")]
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.parts.nodes
    }

    /// Adds an input of this shape. The first axis is the batch and has length 1 here; the network runs on any batch.
    ///
    /// # Errors
    /// [`Error::Graph`] if a tensor already has the name, or, with [`Error::Shape`] as its source, unless the first axis
    /// has length 1.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> Result<TensorId> {
        check_input(name, shape)?;
        self.add_input(name, shape)
    }

    /// Adds an input whose first axis holds any number of rows of each sample.
    pub(crate) fn add_input(&mut self, name: &str, shape: &[usize]) -> Result<TensorId> {
        check_file_input(name, shape)?;
        let x = self.define(name, shape.to_vec())?;
        self.parts.inputs.push(Input { name: name.into(), shape: shape.into() });
        Ok(x)
    }

    /// Adds a constant.
    ///
    /// # Errors
    /// [`Error::Value`] if it holds a NaN or an infinity, [`Error::Graph`] if a tensor already has the name.
    pub fn constant<D: Dimension>(&mut self, name: &str, value: &ArrayRef<f32, D>) -> Result<TensorId> {
        check_finite("constant", value)?;
        let x = self.define(name, value.shape().to_vec())?;
        let value: Constant = value.as_standard_layout().into_owned().into_dyn().into_shared();
        self.parts.constants.insert(name.into(), value);
        Ok(x)
    }

    /// Adds a node of any operator. If all inputs are constant, the output is computed now and is a constant too;
    /// that is supported for elementwise operators and `Concat`.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn node(&mut self, name: &str, op: impl Into<Op>, inputs: &[TensorId]) -> Result<TensorId> {
        self.add_node(name, op.into(), inputs)
    }

    fn add_node(&mut self, name: &str, op: Op, inputs: &[TensorId]) -> Result<TensorId> {
        let inputs = inputs.iter().map(|&x| self.name(x).map(String::from)).collect::<Result<_>>()?;
        self.push(op, inputs, name).map_err(|e| match e {
            Error::Graph(GraphError::Name { .. }) => e,
            e => e.at(name),
        })
    }

    /// Adds a node on named tensors. Errors do not name the node.
    pub(crate) fn push(&mut self, op: Op, inputs: Vec<String>, output: &str) -> Result<TensorId> {
        let constants = &self.parts.constants;
        let known = inputs.iter().map(|name| constants.get(name)).collect::<Option<Vec<_>>>();
        if let Some(inputs) = known.filter(|inputs| !inputs.is_empty()) {
            let value = evaluate(&op, &inputs)?;
            return self.constant(output, &value);
        }
        let node = Node { op, inputs, clamp: Clamp::NONE, output: output.into() };
        let shape = infer(&node, &self.shapes, |name| constants.contains_key(name))?;
        let y = self.define(output, shape)?;
        self.parts.nodes.push(node);
        Ok(y)
    }

    /// Convolution ([`op::Conv`]) of `[batch, in, height, width]` with weights `[out, in / groups, kernel height, kernel
    /// width]` and an optional bias `[out]`. The weights become the constant `name.weight`, the bias `name.bias`.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn conv(
        &mut self,
        name: &str,
        x: TensorId,
        weights: &ArrayRef4<f32>,
        bias: Option<&ArrayRef1<f32>>,
        window: Window,
        groups: usize,
    ) -> Result<TensorId> {
        let constants = [("weight", Some(weights.view().into_dyn())), ("bias", bias.map(|b| b.view().into_dyn()))];
        self.layer(name, op::Conv { window, groups }.into(), x, &constants)
    }

    /// Linear layer ([`op::Linear`]) on `[batch, in]` with weights `[out, in]` and an optional bias `[out]`. The weights
    /// become the constant `name.weight`, the bias `name.bias`.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn linear(
        &mut self,
        name: &str,
        x: TensorId,
        weights: &ArrayRef2<f32>,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<TensorId> {
        let constants = [("weight", Some(weights.view().into_dyn())), ("bias", bias.map(|b| b.view().into_dyn()))];
        self.layer(name, op::Linear.into(), x, &constants)
    }

    /// Adds constants named `name.part` and a node that reads `x` and them. Adds nothing on failure.
    fn layer(
        &mut self,
        name: &str,
        op: Op,
        x: TensorId,
        constants: &[(&str, Option<ArrayViewD<'_, f32>>)],
    ) -> Result<TensorId> {
        let before = self.tensors.len();
        let mut inputs = alloc::vec![x];
        let add = || {
            for (part, value) in constants {
                let Some(value) = value else { continue };
                let name = alloc::format!("{name}.{part}");
                let constant = self.constant(&name, value).map_err(|e| match e {
                    Error::Value(_) => e.at(&name),
                    e => e,
                });
                inputs.push(constant?);
            }
            self.add_node(name, op, &inputs)
        };
        let added = add();
        if added.is_err() {
            for (_, name) in self.tensors.drain(before..) {
                self.shapes.remove(&name);
                self.parts.constants.remove(&name);
            }
        }
        added
    }

    /// Batch normalization ([`op::BatchNorm`]) of the channels (axis 1):
    /// `(x - mean) / sqrt(variance + epsilon) * scale + shift`. All four arrays are `[channels]`; they become the
    /// constants `name.scale`, `name.shift`, `name.mean` and `name.variance`.
    ///
    /// [`Graph::simplify`] folds it into the convolution or linear layer before it.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    #[allow(clippy::too_many_arguments, reason = "the inputs of ONNX BatchNormalization, in its order")]
    pub fn batch_norm(
        &mut self,
        name: &str,
        x: TensorId,
        scale: &ArrayRef1<f32>,
        shift: &ArrayRef1<f32>,
        mean: &ArrayRef1<f32>,
        variance: &ArrayRef1<f32>,
        epsilon: f32,
    ) -> Result<TensorId> {
        let constants = [("scale", scale), ("shift", shift), ("mean", mean), ("variance", variance)];
        let constants = constants.map(|(part, value)| (part, Some(value.view().into_dyn())));
        self.layer(name, op::BatchNorm { epsilon }.into(), x, &constants)
    }

    /// Sum of two tensors ([`op::Binary::Add`]), which broadcast as in ONNX and NumPy. One of them may be a constant.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn add(&mut self, name: &str, a: TensorId, b: TensorId) -> Result<TensorId> {
        self.node(name, op::Binary::Add, &[a, b])
    }

    /// Elementwise product of two tensors ([`op::Binary::Mul`]), which broadcast as in ONNX and NumPy. One of them may be a
    /// constant.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn mul(&mut self, name: &str, a: TensorId, b: TensorId) -> Result<TensorId> {
        self.node(name, op::Binary::Mul, &[a, b])
    }

    /// Elementwise function ([`op::Activation`]) of a tensor of any shape.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn activation(&mut self, name: &str, x: TensorId, activation: op::Activation) -> Result<TensorId> {
        self.node(name, activation, &[x])
    }

    /// ReLU: `max(x, 0)`. [`Graph::simplify`] fuses it into the layer before it.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn relu(&mut self, name: &str, x: TensorId) -> Result<TensorId> {
        self.activation(name, x, op::Activation::relu())
    }

    /// ReLU6: `min(max(x, 0), 6)`. [`Graph::simplify`] fuses it into the layer before it.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn relu6(&mut self, name: &str, x: TensorId) -> Result<TensorId> {
        self.activation(name, x, op::Activation::relu6())
    }

    /// Max pooling ([`op::MaxPool`]) of `[batch, channels, height, width]`. Padding is ignored.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn max_pool(&mut self, name: &str, x: TensorId, kernel: [usize; 2], window: Window) -> Result<TensorId> {
        self.node(name, op::MaxPool { kernel, window }, &[x])
    }

    /// Average pooling ([`op::AveragePool`]) of `[batch, channels, height, width]`. `count_include_pad` counts padding as
    /// zeros in the mean (PyTorch's default); otherwise it is ignored (ONNX's default).
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn average_pool(
        &mut self,
        name: &str,
        x: TensorId,
        kernel: [usize; 2],
        window: Window,
        count_include_pad: bool,
    ) -> Result<TensorId> {
        self.node(name, op::AveragePool { kernel, window, count_include_pad }, &[x])
    }

    /// Mean of each channel ([`op::GlobalAveragePool`]): `[batch, channels, height, width]` to `[batch, channels, 1, 1]`.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn global_average_pool(&mut self, name: &str, x: TensorId) -> Result<TensorId> {
        self.node(name, op::GlobalAveragePool, &[x])
    }

    /// Concatenation along `axis` ([`op::Concat`]), which is not the batch. All other axes have equal lengths.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn concat(&mut self, name: &str, inputs: &[TensorId], axis: usize) -> Result<TensorId> {
        self.node(name, op::Concat { axis }, inputs)
    }

    /// Zero padding ([`op::Pad`]) of `[batch, channels, height, width]` by `[top, left, bottom, right]`.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn pad(&mut self, name: &str, x: TensorId, pads: [usize; 4]) -> Result<TensorId> {
        self.node(name, op::Pad { pads }, &[x])
    }

    /// Nearest-neighbour upsampling ([`op::Resize`]) of `[batch, channels, height, width]` by integer factors of height
    /// and width.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn resize(&mut self, name: &str, x: TensorId, scales: [usize; 2]) -> Result<TensorId> {
        self.node(name, op::Resize { scales }, &[x])
    }

    /// Reshapes each sample ([`op::Reshape`]). `shape` leaves out the batch.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn reshape(&mut self, name: &str, x: TensorId, shape: &[usize]) -> Result<TensorId> {
        self.node(name, op::Reshape { shape: [&[1], shape].concat() }, &[x])
    }

    /// Reshapes to `[batch, features]`: `[batch, c, h, w]` to `[batch, c * h * w]`.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn flatten(&mut self, name: &str, x: TensorId) -> Result<TensorId> {
        let features = self.shape(x)?.iter().product();
        self.reshape(name, x, &[features])
    }

    /// Softmax ([`op::Softmax`]) along `axis`, which is not the batch.
    ///
    /// # Errors
    /// See [`GraphBuilder`](Self#errors).
    pub fn softmax(&mut self, name: &str, x: TensorId, axis: usize) -> Result<TensorId> {
        self.node(name, op::Softmax { axis }, &[x])
    }

    /// The name of a tensor.
    ///
    /// # Errors
    /// [`Error::Graph`] for a handle of another builder.
    pub fn name(&self, x: TensorId) -> Result<&str> {
        let tensor = self.tensors.get(x.index).filter(|(handle, _)| *handle == x);
        tensor.map(|(_, name)| name.as_str()).ok_or_else(|| {
            let (expected, found) = ("a handle that this graph builder returned", "a handle of another graph builder");
            GraphError::Mismatch { what: "tensor handle", expected, found: found.into() }.into()
        })
    }

    /// The shape of a tensor, for a batch of one.
    ///
    /// # Errors
    /// [`Error::Graph`] for a handle of another builder.
    pub fn shape(&self, x: TensorId) -> Result<&[usize]> {
        Ok(&self.shapes[self.name(x)?])
    }

    /// The shape of the tensor of this name, for a batch of one.
    #[cfg(feature = "onnx")]
    pub(crate) fn shape_of(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// Returns the graph that computes these tensors. A constant may be an output too; a run returns it as it is.
    ///
    /// # Errors
    /// [`Error::Graph`] for a handle of another builder.
    pub fn build(self, outputs: &[TensorId]) -> Result<Graph> {
        let outputs = outputs.iter().map(|&x| self.name(x).map(String::from)).collect::<Result<_>>()?;
        self.build_named(outputs)
    }

    /// Returns the graph that computes the tensors of these names.
    pub(crate) fn build_named(mut self, outputs: Vec<String>) -> Result<Graph> {
        self.parts.outputs = outputs;
        Graph::new(self.parts)
    }

    fn define(&mut self, name: &str, shape: Shape) -> Result<TensorId> {
        elements(&shape)?;
        if self.shapes.contains_key(name) {
            return Err(duplicate(name));
        }
        self.shapes.insert(name.into(), shape);
        let handle = TensorId { builder: self.id, index: self.tensors.len() };
        self.tensors.push((handle, name.into()));
        Ok(handle)
    }
}

/// Computes an operator on constants. Shape inference checks its attributes.
fn evaluate(op: &Op, inputs: &[&Constant]) -> Result<ArrayD<f32>> {
    let operator = op.operator();
    check_operator(operator, inputs.len())?;
    let shapes: Vec<&[usize]> = inputs.iter().map(|x| x.shape()).collect();
    elements(&operator.infer(&Inputs { shapes: &shapes, constant: &alloc::vec![true; shapes.len()] })?)?;
    operator.evaluate(inputs).unwrap_or_else(|| Err(only_constants()))
}
