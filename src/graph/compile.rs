//! Float network → plan.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::kernel::{Kernel, Kind};
use super::movement::Fill;
use super::network::{Constant, Graph, Node};
use super::op::Op;
use super::plan::{Arena, Plan, Ports, Role, Step, Tensor};
use super::real::{self, Weights};
use crate::error::{Error, Result};

/// A plan in the making.
pub(crate) struct Planner<'g> {
    graph: &'g Graph,
    tensors: Vec<Tensor>,
    steps: Vec<Step>,
    /// The tensor of each name and kind.
    known: BTreeMap<(String, bool), usize>,
}

impl<'g> Planner<'g> {
    pub(crate) fn new(graph: &'g Graph) -> Self {
        Self { graph, tensors: Vec::new(), steps: Vec::new(), known: BTreeMap::new() }
    }

    /// A new tensor, in this form.
    pub(crate) fn define(&mut self, name: &str, kind: Kind) -> usize {
        self.tensors.push(Tensor::new(name, self.shape(name), kind));
        self.known.insert((name.into(), kind == Kind::Code), self.tensors.len() - 1);
        self.tensors.len() - 1
    }

    /// A tensor that an earlier step made in this form.
    pub(crate) fn find(&self, name: &str, kind: Kind) -> Option<usize> {
        self.known.get(&(name.into(), kind == Kind::Code)).copied()
    }

    /// A new tensor that only looks at the network: nothing later reads it.
    pub(crate) fn aside(&mut self, name: &str, like: &str) -> usize {
        self.tensors.push(Tensor::new(name, self.shape(like), Kind::Float));
        self.tensors.len() - 1
    }

    pub(crate) fn step(&mut self, node: &str, kernel: Option<Box<dyn Kernel>>, inputs: Vec<usize>, output: usize) {
        self.role(node, Role::Body, kernel, inputs, output);
    }

    pub(crate) fn role(
        &mut self,
        node: &str,
        role: Role,
        kernel: Option<Box<dyn Kernel>>,
        inputs: Vec<usize>,
        output: usize,
    ) {
        self.steps.push(Step { node: node.into(), role, kernel, inputs, output });
    }

    pub(crate) fn shape(&self, name: &str) -> &'g [usize] {
        self.graph.shape(name).expect("every tensor of a graph has a shape")
    }

    /// The tensor as floats; a constant is written where it is read.
    pub(crate) fn real(&mut self, name: &str) -> usize {
        if let Some(tensor) = self.find(name, Kind::Float) {
            return tensor;
        }
        let value = self.graph.constant(name).expect("what is not constant was made before it is read").view();
        let kernel = Fill::new(value);
        let tensor = self.define(name, Kind::Float);
        self.step(name, Some(Box::new(kernel)), Vec::new(), tensor);
        tensor
    }

    /// An output as floats. `constant` gives the values of constants.
    pub(crate) fn output(&mut self, name: &str, constant: impl Fn(&str) -> Option<Constant>) -> usize {
        match constant(name) {
            Some(value) => {
                self.tensors.push(Tensor::constant(name, value));
                self.tensors.len() - 1
            }
            None => self.real(name),
        }
    }

    /// A float operator. `weights` gives the constants that the kernel takes into itself.
    pub(crate) fn float_node(&mut self, node: &Node, weights: impl Fn(&str) -> Option<Weights>) {
        let (kernel, inputs) = self.float_kernel(node, weights);
        let output = self.define(&node.output, Kind::Float);
        self.step(&node.name, kernel, inputs, output);
    }

    /// A float operator and what it reads.
    pub(crate) fn float_kernel(
        &mut self,
        node: &Node,
        weights: impl Fn(&str) -> Option<Weights>,
    ) -> (Option<Box<dyn Kernel>>, Vec<usize>) {
        let holds = matches!(node.op, Op::Conv { .. } | Op::Linear | Op::BatchNorm { .. } | Op::Add | Op::Mul);
        let held: Vec<Option<Weights>> = node.inputs.iter().map(|name| weights(name).filter(|_| holds)).collect();
        // Biases of quantized layers are not in the float graph that errors are measured in.
        let shape = |(name, held): (&String, &Option<Weights>)| match held {
            Some(Weights::Float(w)) => w.shape().to_vec(),
            Some(Weights::Half(w)) => w.shape().to_vec(),
            None => self.shape(name).to_vec(),
        };
        let shapes: Vec<Vec<usize>> = node.inputs.iter().zip(&held).map(shape).collect();
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let free = node.inputs.iter().zip(&held).filter(|(_, held)| held.is_none());
        let inputs = free.map(|(name, _)| self.real(name)).collect();
        (real::kernel(node, &shapes, self.shape(&node.output), &held), inputs)
    }

    pub(crate) fn finish(self, inputs: Ports, outputs: Ports) -> Plan {
        Plan::new(self.tensors, self.steps, inputs, outputs)
    }
}

/// A float network that is ready to run.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::{Activation, Arena, GraphBuilder};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", &x, &array![[1.0, -1.0]], None)?;
/// let y = g.activation("relu", &y, Activation::relu())?;
/// let network = g.build(&[&y])?.compile()?;
///
/// let mut memory = Arena::new(); // allocated in the first run
/// assert_eq!(network.run_with(&array![[3.0, 1.0], [1.0, 3.0]], &mut memory)?, array![[2.0], [0.0]].into_dyn());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug)]
pub struct FloatNetwork {
    pub(crate) plan: Plan,
}

impl Graph {
    /// Prepares the network to run: weights in the order that kernels read, memory planned.
    ///
    /// # Errors
    /// None for graphs that could be made; for what later versions may not be able to run.
    pub fn compile(&self) -> Result<FloatNetwork> {
        let mut planner = Planner::new(self);
        let inputs = self.inputs().iter().map(|input| planner.define(&input.name, Kind::Float)).collect();
        for node in self.nodes() {
            planner.float_node(node, |name| self.constant(name).cloned().map(Weights::Float));
        }
        let weights = |name: &str| self.constant(name).cloned();
        let outputs = self.outputs().iter().map(|name| planner.output(name, weights)).collect();
        let ports = |reals| Ports { reals, codes: Vec::new() };
        Ok(FloatNetwork { plan: planner.finish(ports(inputs), ports(outputs)) })
    }

    /// Compiles and runs a network of one input and one output. To run it more than once, keep what
    /// [`compile`](Self::compile) returns.
    ///
    /// # Errors
    /// Those of [`FloatNetwork::run`].
    pub fn run<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<ArrayD<f32>> {
        self.compile()?.run(x)
    }
}

impl FloatNetwork {
    /// Runs a network of one input and one output on any number of images, the first axis of `x`. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another shape than the input, or the network more than one input or output.
    pub fn run<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<ArrayD<f32>> {
        self.run_with(x, &mut Arena::new())
    }

    /// As [`run`](Self::run), with memory that lasts from call to call.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn run_with<D: Dimension>(&self, x: &ArrayRef<f32, D>, memory: &mut Arena) -> Result<ArrayD<f32>> {
        single(self.run_many(&[x.view().into_dyn()], memory)?)
    }

    /// Runs a network of any number of inputs and outputs.
    ///
    /// # Errors
    /// [`Error::Shape`] if an input has another shape, or there are not as many.
    pub fn run_many(&self, inputs: &[ArrayViewD<'_, f32>], memory: &mut Arena) -> Result<Vec<ArrayD<f32>>> {
        self.plan.run(inputs, memory)
    }
}

/// The only output.
pub(crate) fn single<T>(outputs: Vec<ArrayD<T>>) -> Result<ArrayD<T>> {
    let found = outputs.len();
    match <[ArrayD<T>; 1]>::try_from(outputs) {
        Ok([output]) => Ok(output),
        Err(_) => Err(Error::shape("number of outputs", &[1], &[found])),
    }
}
