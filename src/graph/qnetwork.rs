//! Quantized networks.

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
#[cfg(doc)]
use crate::error::Error;
use crate::error::{GraphError, Result};
use crate::qparams::QParams;

/// The inputs and outputs of a network that runs on codes.
const CODES: &str = "codes (precision Int8 in the recipe)";

/// A quantized network, ready to run.
///
/// [`Graph::quantize`] makes one; with the feature `safetensors` it can be saved and loaded. A network whose nodes all
/// compute on codes gives the same bits on every instruction set and for every number of threads.
///
/// ```
/// use ndarray::{Array2, array};
/// use ndarray_quant::{QParams, graph::{Arena, CalibrationMethod, GraphBuilder, Precision}};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", x, &array![[1.0, -0.5], [0.25, 2.0]], None)?;
/// let graph = g.build(&[y])?;
/// let samples = array![[1.0f32, 0.3], [0.2, -0.4], [-1.0, 1.0]];
/// let mut recipe = graph.calibrate([samples.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
/// recipe.tensor_mut("y")?.precision = Precision::Int8; // integers from end to end
/// let network = graph.quantize(&recipe)?;
///
/// // Floats in, floats out.
/// let y = network.run(&samples)?;
/// assert!((&y - &graph.run(&samples)?).iter().all(|e| e.abs() < 0.02));
///
/// // Codes in.
/// let input: QParams<u8> = network.activation("x").expect("x is Int8");
/// let mut codes = Array2::zeros((3, 2));
/// input.quantize_into(&samples, &mut codes)?;
/// let mut arena = Arena::new(); // reused from run to run
/// assert_eq!(network.run_from_codes(&codes, &mut arena)?, y);
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

    /// Checks and assembles the parts of a file.
    #[cfg(feature = "safetensors")]
    pub(crate) fn from_file(
        parts: super::network::Parts,
        stored: BTreeMap<String, Stored>,
        recipe: Recipe,
    ) -> Result<Self> {
        let graph = Graph::new(parts)?;
        recipe.check(&graph)?;
        let fixed = super::recipe::read_as_non_weights(&graph);
        if let Some(name) = stored.keys().find(|name| fixed.contains(name.as_str())) {
            let expected = "a tensor that only layers read, as their weights";
            return Err(GraphError::Name { what: "quantized weights", expected, found: name.clone() }.into());
        }
        Self::new(graph, stored, recipe)
    }

    /// Chooses whether NaN becomes the code of zero where floats are quantized. By default it is an error, see
    /// [`run`](Self::run).
    ///
    /// In the input of a dynamic-range layer NaN is always an error: a sample with a NaN has no range.
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
    /// NaN and infinities: where floats are quantized with calibrated parameters, infinities saturate and NaN is an error,
    /// because no code represents it; [`with_nan_as_zero`](Self::with_nan_as_zero) turns it into the code of zero. The
    /// input of a dynamic-range layer must be finite. Layers that compute in float propagate NaN and infinities.
    ///
    /// # Errors
    /// - [`Error::Shape`] if `x` has another shape than the input.
    /// - [`Error::Graph`] if the network has several inputs or outputs, or if the run needs more memory than the limit
    ///   of the arena.
    /// - [`Error::Graph`] with the cause [`Error::Value`] for a NaN or an infinity as above. The node is the input or
    ///   layer, the index is the position in the tensor that is quantized.
    pub fn run<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<ArrayD<f32>> {
        self.run_with(x, &mut Arena::new())
    }

    /// Same as [`run`](Self::run), with the buffers of a caller-provided arena. Use it to run a network more than once.
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
    /// Same as [`run`](Self::run).
    pub fn run_many(&self, inputs: &[ArrayViewD<'_, f32>], arena: &mut Arena) -> Result<Vec<ArrayD<f32>>> {
        self.plan.run(inputs, arena)
    }

    /// Runs a network of one input and one output on codes. Returns floats. The codes have the parameters that
    /// [`activation`](Self::activation) returns for the input.
    ///
    /// # Errors
    /// Same as [`run`](Self::run), and [`Error::Graph`] if the input is not `Int8` in the recipe.
    pub fn run_from_codes<D: Dimension>(&self, x: &ArrayRef<u8, D>, arena: &mut Arena) -> Result<ArrayD<f32>> {
        self.check_code_inputs()?;
        single(self.plan.run(&[x.view().into_dyn()], arena)?)
    }

    /// Runs a network of one input and one output on codes. Returns codes, with the parameters that
    /// [`activation`](Self::activation) returns for the output.
    ///
    /// # Errors
    /// Same as [`run`](Self::run), and [`Error::Graph`] if the input or the output is not `Int8` in the recipe.
    /// [`Calibration::recipe`](super::Calibration::recipe) leaves outputs in `Float32`.
    pub fn run_codes<D: Dimension>(&self, x: &ArrayRef<u8, D>, arena: &mut Arena) -> Result<ArrayD<u8>> {
        self.check_code_inputs()?;
        self.check_code_outputs()?;
        single(self.plan.run(&[x.view().into_dyn()], arena)?)
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns an error unless all inputs are codes.
    pub(super) fn check_code_inputs(&self) -> Result<()> {
        let error = |found| GraphError::Inputs { expected: CODES.into(), found };
        self.find_float(self.graph.inputs()).map_or(Ok(()), |found| Err(error(found).into()))
    }

    /// Returns an error unless all outputs are codes.
    pub(super) fn check_code_outputs(&self) -> Result<()> {
        let error = |found| GraphError::Outputs { expected: CODES.into(), found };
        let outputs = self.graph.outputs().iter().map(String::as_str);
        self.find_float(outputs).map_or(Ok(()), |found| Err(error(found).into()))
    }

    /// Describes the first of these tensors that is not codes.
    fn find_float<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> Option<String> {
        let name = names.find(|name| !self.parts().is_code(name))?;
        Some(alloc::format!("{name:?}, which is float"))
    }

    /// The parameters of an activation that is kept as codes. `None` for other tensors.
    pub fn activation(&self, name: &str) -> Option<QParams<u8>> {
        let is_code = |tensor: &&TensorRecipe| tensor.precision == Precision::Int8 && !self.graph.is_constant(name);
        self.recipe.tensors.get(name).filter(is_code)?.activation_params().ok()
    }

    /// The recipe, with the ranges that were used.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The graph. Quantized weights have a shape in it, but no value. It cannot be compiled or quantized again.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The memory that weights, biases, other constants and the ranges of the recipe take in bytes: the stored codes or
    /// half-precision values, which are kept for saving, and their packed form, which layers compute with. Names and the
    /// structure of the graph, some hundreds of bytes per node, are not counted. Activations are in the [`Arena`].
    ///
    /// See [`weights_size_in_bytes`](Self::weights_size_in_bytes) for the size of the weights in a file.
    pub fn size_in_bytes(&self) -> usize {
        self.weights_size_in_bytes() + self.plan.size_in_bytes() + self.recipe.size_in_bytes()
    }

    /// The size of weights, biases, scales and other constants as a file stores them, in bytes: a byte per `Int8` weight,
    /// half a byte per `Int4` weight, 4 bytes per scale. The file adds a header with the operators and the recipe
    /// (`file_size`, feature `safetensors`).
    pub fn weights_size_in_bytes(&self) -> usize {
        self.graph.size_in_bytes() + self.stored.values().map(Stored::size_in_bytes).sum::<usize>()
    }
}
