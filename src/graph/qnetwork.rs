//! A network of integers that is ready to run.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::compile::single;
use super::lower::Quantized;
use super::network::Graph;
use super::plan::{Arena, Plan};
use super::recipe::{Precision, Recipe, TensorRecipe};
use super::stored::Stored;
use crate::error::Result;
use crate::qparams::QParams;

/// A network whose tensors are kept as a [`Recipe`] says, ready to run.
///
/// Where everything is codes, results are the same bits on every instruction set and for every number of threads.
///
/// [`Graph::quantize`] makes one, and `io::safetensors` loads one.
///
/// ```
/// use ndarray::{Array2, array};
/// use ndarray_quant::graph::{Arena, Calibration, GraphBuilder, Precision};
/// use ndarray_quant::{QParams, observer::MinMax};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", &x, &array![[1.0, -0.5], [0.25, 2.0]], None)?;
/// let graph = g.build(&[&y])?;
/// let images = array![[1.0f32, 0.3], [0.2, -0.4], [-1.0, 1.0]];
/// let mut calibration = Calibration::new(&graph, MinMax::per_tensor())?;
/// calibration.observe(&images)?;
/// let mut recipe = calibration.recipe()?;
/// recipe.tensor_mut("y")?.precision = Precision::Int8; // integers from end to end
/// let network = graph.quantize(&recipe)?;
///
/// let input: QParams<u8, _> = network.activation("x").expect("codes");
/// let mut codes = Array2::zeros((3, 2));
/// input.quantize_into(&images, &mut codes)?;
/// let mut memory = Arena::new(); // reused from call to call
/// let y = network.run_from_codes(&codes, &mut memory)?;
/// assert_eq!(y, network.run(&images)?);
/// assert!((y - graph.run(&images)?).iter().all(|e| e.abs() < 0.02));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug)]
pub struct QuantizedNetwork {
    graph: Graph,
    stored: BTreeMap<String, Stored>,
    recipe: Recipe,
    plan: Plan,
}

impl QuantizedNetwork {
    pub(crate) fn new(graph: Graph, stored: BTreeMap<String, Stored>, recipe: Recipe) -> Result<Self> {
        let plan = Quantized { graph: &graph, stored: &stored, recipe: &recipe }.plan()?;
        Ok(Self { graph, stored, recipe, plan })
    }

    /// From parts that come from a file: nothing of them is trusted.
    #[cfg(feature = "safetensors")]
    pub(crate) fn from_file(
        parts: super::network::Parts,
        stored: BTreeMap<String, Stored>,
        recipe: Recipe,
    ) -> Result<Self> {
        let graph = Graph::new(parts)?;
        recipe.check(&graph)?;
        let otherwise = super::recipe::read_otherwise(&graph);
        if let Some(name) = stored.keys().find(|name| otherwise.contains(name.as_str())) {
            let expected = "one that only convolutions and linear layers read";
            return Err(crate::Error::Name { what: "weight", expected, found: name.clone() });
        }
        Self::new(graph, stored, recipe)
    }

    /// Chooses whether a NaN that is quantized becomes the code of zero. By default it is an error, see
    /// [`run`](Self::run).
    ///
    /// Images quantized by their own range (dynamic-range layers) have none with a NaN: it stays an error there.
    #[must_use]
    pub fn with_nan_as_zero(mut self, nan_as_zero: bool) -> Self {
        self.plan.set_nan_as_zero(nan_as_zero);
        self
    }

    pub(crate) fn parts(&self) -> Quantized<'_> {
        Quantized { graph: &self.graph, stored: &self.stored, recipe: &self.recipe }
    }

    /// Runs a network of one input and one output on floats. The first axis of `x` is the batch, of any length.
    ///
    /// Infinities saturate where floats become codes. A NaN there is an error, since codes cannot represent it; with
    /// [`with_nan_as_zero`](Self::with_nan_as_zero) it becomes the code of zero. Layers that compute in floats
    /// propagate both.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `x` has another shape than the input, or the network has more than one
    /// input or output. [`Error::NonFinite`](crate::Error::NonFinite) for a NaN where floats become codes, and for an
    /// infinity in the input of a dynamic-range layer; it holds the index in the tensor that was quantized, and the
    /// [`Error::Node`](crate::Error::Node) around it names the input or the node.
    /// [`Error::Argument`](crate::Error::Argument) if the run needs more memory than the limit of the arena.
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
    /// Those of [`run`](Self::run).
    pub fn run_many(&self, inputs: &[ArrayViewD<'_, f32>], memory: &mut Arena) -> Result<Vec<ArrayD<f32>>> {
        self.plan.run(inputs, memory)
    }

    /// Codes in, floats out. The codes have the parameters that [`activation`](Self::activation) tells of the input.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and [`Error::Shape`](crate::Error::Shape) if an input is not of codes.
    pub fn run_from_codes<D: Dimension>(&self, x: &ArrayRef<u8, D>, memory: &mut Arena) -> Result<ArrayD<f32>> {
        single(self.plan.run(&[x.view().into_dyn()], memory)?)
    }

    /// Codes in, codes out: nothing but integers, if the recipe keeps everything so.
    ///
    /// # Errors
    /// Those of [`run_from_codes`](Self::run_from_codes), and [`Error::Shape`](crate::Error::Shape) if the output is
    /// not of codes.
    pub fn run_codes<D: Dimension>(&self, x: &ArrayRef<u8, D>, memory: &mut Arena) -> Result<ArrayD<u8>> {
        single(self.plan.run(&[x.view().into_dyn()], memory)?)
    }

    /// The parameters of an activation, if it is kept as codes.
    pub fn activation<D: Dimension>(&self, name: &str) -> Option<QParams<u8, D>> {
        let coded = |tensor: &&TensorRecipe| tensor.precision == Precision::Int8 && !self.graph.is_constant(name);
        self.recipe.tensors.get(name).filter(coded)?.activation_params().ok()
    }

    /// The recipe with the ranges that were used.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The network's operators.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The bytes of all weights, biases, scales and zero points.
    pub fn size_in_bytes(&self) -> usize {
        let activations = self
            .recipe
            .tensors
            .iter()
            .filter(|(name, tensor)| tensor.precision == Precision::Int8 && !self.graph.is_constant(name));
        let stored: usize = self.stored.values().map(Stored::size_in_bytes).sum();
        self.graph.size_in_bytes() + stored + activations.count() * (size_of::<f32>() + size_of::<u8>())
    }
}
