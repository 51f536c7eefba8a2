//! Compilation of a float graph to a plan.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::broadcast_constant::BroadcastConstant;
use super::layouts::TensorLayouts;
use super::network::{Constant, Graph, Node};
use super::plan::{Arena, Plan, Ports, Role, Step, Tensor};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{GraphError, Result};
use crate::ops::float_weights::Weights;
use crate::ops::kernel::{Kernel, Kind};
use crate::ops::nhwc::Dims;
use crate::ops::operator::FloatNode;

/// Builds a plan for a graph.
pub(crate) struct Planner<'g> {
    graph: &'g Graph,
    layouts: TensorLayouts<'g>,
    tensors: Vec<Tensor>,
    steps: Vec<Step>,
    /// The latest tensor of each name, as f32 or (`true`) as codes.
    known: BTreeMap<(String, bool), usize>,
}

impl<'g> Planner<'g> {
    pub(crate) fn new(graph: &'g Graph) -> Self {
        let layouts = TensorLayouts::new(graph);
        Self { graph, layouts, tensors: Vec::new(), steps: Vec::new(), known: BTreeMap::new() }
    }

    /// Adds a tensor that later steps find by its name.
    pub(crate) fn define(&mut self, name: &str, kind: Kind) -> usize {
        self.tensors.push(Tensor::new(name, self.dims(name), kind));
        self.known.insert((name.into(), kind == Kind::Code), self.tensors.len() - 1);
        self.tensors.len() - 1
    }

    /// Finds the tensor of this name and kind, if a step has computed it.
    pub(crate) fn find(&self, name: &str, kind: Kind) -> Option<usize> {
        self.known.get(&(name.into(), kind == Kind::Code)).copied()
    }

    /// Adds an f32 tensor that later steps do not find by name. It has the shape of the tensor `like`.
    pub(crate) fn define_unnamed(&mut self, name: &str, like: &str) -> usize {
        self.tensors.push(Tensor::new(name, self.dims(like), Kind::F32));
        self.tensors.len() - 1
    }

    /// Adds a step that all runs include.
    pub(crate) fn step(&mut self, node: &str, kernel: Option<Box<dyn Kernel>>, inputs: Vec<usize>, output: usize) {
        self.step_with_role(node, Role::Body, kernel, inputs, output);
    }

    /// Adds a step.
    pub(crate) fn step_with_role(
        &mut self,
        node: &str,
        role: Role,
        kernel: Option<Box<dyn Kernel>>,
        inputs: Vec<usize>,
        output: usize,
    ) {
        self.steps.push(Step { node: node.into(), role, kernel, inputs, output });
    }

    /// The logical shape of a tensor for a batch of one.
    pub(crate) fn shape(&self, name: &str) -> &'g [usize] {
        self.graph.shape(name).expect("every tensor of a graph has a shape")
    }

    /// The shape of a tensor, with its layout.
    pub(crate) fn dims(&self, name: &str) -> Dims<'g> {
        Dims::new(self.shape(name), self.layouts.of(name))
    }

    /// The tensor as f32. A constant is copied into a buffer for each image.
    pub(crate) fn f32_tensor(&mut self, name: &str) -> usize {
        if let Some(tensor) = self.find(name, Kind::F32) {
            return tensor;
        }
        let value = self.graph.constant(name).expect("nodes come after the nodes whose outputs they read").view();
        let kernel = BroadcastConstant::new(value, self.layouts.of(name));
        let tensor = self.define(name, Kind::F32);
        self.step(name, Some(Box::new(kernel)), Vec::new(), tensor);
        tensor
    }

    /// The output of this name as f32. `constant` returns the value if it is a constant.
    pub(crate) fn output(&mut self, name: &str, constant: impl Fn(&str) -> Option<Constant>) -> usize {
        match constant(name) {
            Some(value) => {
                self.tensors.push(Tensor::constant(name, value));
                self.tensors.len() - 1
            }
            None => self.f32_tensor(name),
        }
    }

    /// Adds a step that computes a node in f32. `weights` returns the constants that the kernel stores.
    pub(crate) fn float_node(&mut self, node: &Node, weights: impl Fn(&str) -> Option<Weights>) {
        let (kernel, inputs) = self.float_kernel(node, weights);
        let output = self.define(&node.output, Kind::F32);
        self.step(&node.output, kernel, inputs, output);
    }

    /// The f32 kernel of a node and its inputs. `None` instead of a kernel if the output is an alias of the input.
    pub(crate) fn float_kernel(
        &mut self,
        node: &Node,
        weights: impl Fn(&str) -> Option<Weights>,
    ) -> (Option<Box<dyn Kernel>>, Vec<usize>) {
        let stores_constants = node.operator().stores_constants();
        let held: Vec<Option<Weights>> =
            node.inputs.iter().map(|name| weights(name).filter(|_| stores_constants)).collect();
        // The bias of a quantized layer need not be a tensor of this graph.
        let shape = |(name, held): (&String, &Option<Weights>)| match held {
            Some(weights) => weights.shape(),
            None => self.shape(name).to_vec(),
        };
        let shapes: Vec<Vec<usize>> = node.inputs.iter().zip(&held).map(shape).collect();
        let layouts = node.inputs.iter().map(|name| self.layouts.of(name));
        let shapes: Vec<Dims<'_>> =
            shapes.iter().zip(layouts).map(|(shape, layout)| Dims::new(shape, layout)).collect();
        let free = node.inputs.iter().zip(&held).filter(|(_, held)| held.is_none());
        let inputs = free.map(|(name, _)| self.f32_tensor(name)).collect();
        let output = self.dims(&node.output);
        let node_on_floats = FloatNode { inputs: &shapes, output, constants: &held, clamp: node.clamp };
        (node.operator().float_kernel(&node_on_floats), inputs)
    }

    pub(crate) fn finish(self, inputs: Ports, outputs: Ports) -> Plan {
        Plan::new(self.tensors, self.steps, inputs, outputs)
    }
}

/// A float network, ready to run.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::{Arena, GraphBuilder};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", x, &array![[1.0, -1.0]], None)?;
/// let y = g.relu("relu", y)?;
/// let network = g.build(&[y])?.compile()?;
///
/// let mut arena = Arena::new(); // allocates in the first run
/// assert_eq!(network.run_with(&array![[3.0, 1.0], [1.0, 3.0]], &mut arena)?, array![[2.0], [0.0]].into_dyn());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug)]
pub struct FloatNetwork {
    pub(crate) plan: Plan,
}

impl Graph {
    /// Prepares the network to run: packs the weights and assigns buffers to the tensors.
    ///
    /// # Errors
    /// [`Error::Graph`] for the graph of a quantized network.
    pub fn compile(&self) -> Result<FloatNetwork> {
        self.check_float()?;
        let mut planner = Planner::new(self);
        let inputs = self.inputs().map(|name| planner.define(name, Kind::F32)).collect();
        for node in self.nodes() {
            planner.float_node(node, |name| self.shared_constant(name).cloned().map(Weights::F32));
        }
        let weights = |name: &str| self.shared_constant(name).cloned();
        let outputs = self.outputs().iter().map(|name| planner.output(name, weights)).collect();
        let ports = |floats| Ports { floats, codes: Vec::new() };
        Ok(FloatNetwork { plan: planner.finish(ports(inputs), ports(outputs)) })
    }

    /// Compiles and runs a network of one input and one output. To run it more than once, keep the result of
    /// [`compile`](Self::compile).
    ///
    /// # Errors
    /// Same as [`FloatNetwork::run`].
    pub fn run<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<ArrayD<f32>> {
        self.compile()?.run(x)
    }
}

impl FloatNetwork {
    /// Runs a network of one input and one output. The first axis of `x` is the batch, of any length. Any strides.
    ///
    /// NaN and infinities propagate.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another shape than the input. [`Error::Graph`] if the network has several inputs or
    /// outputs, or if the run needs more memory than the limit of the arena, by default 1 GiB (see
    /// [`Arena::with_max_bytes`]).
    pub fn run<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<ArrayD<f32>> {
        self.run_with(x, &mut Arena::new())
    }

    /// Same as [`run`](Self::run), with the buffers of a caller-provided arena.
    ///
    /// # Errors
    /// Same as [`run`](Self::run).
    pub fn run_with<D: Dimension>(&self, x: &ArrayRef<f32, D>, arena: &mut Arena) -> Result<ArrayD<f32>> {
        single(self.run_many(&[x.view().into_dyn()], arena)?)
    }

    /// Runs a network of any number of inputs and outputs, in the order of [`Graph::inputs`] and [`Graph::outputs`].
    ///
    /// An output that is a constant is returned as it is, without a batch axis.
    ///
    /// # Errors
    /// [`Error::Shape`] if an input has another shape than the network's. [`Error::Graph`] if the number of inputs
    /// differs, or if the run needs more memory than the limit of the arena.
    pub fn run_many(&self, inputs: &[ArrayViewD<'_, f32>], arena: &mut Arena) -> Result<Vec<ArrayD<f32>>> {
        self.plan.run(inputs, arena)
    }
}

/// Returns the only output.
pub(crate) fn single<T>(outputs: Vec<ArrayD<T>>) -> Result<ArrayD<T>> {
    <[ArrayD<T>; 1]>::try_from(outputs).map(|[output]| output).map_err(|outputs| {
        let found = alloc::format!("{} (see run_many)", outputs.len());
        GraphError::Outputs { expected: "1".into(), found }.into()
    })
}
