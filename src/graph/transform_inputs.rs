//! Factors and rotations of the inputs of linear layers, for weights and inputs that lose less when they are quantized.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ndarray::{Array1, Array2, ArrayView2, Axis, Ix2, concatenate};

use super::calibrate::Calibration;
use super::edit::Edit;
use super::fold::fold_affine;
use super::network::{Graph, Node};
use super::op::{self, Binary};
use super::recipe::{Precision, Recipe, TensorRecipe, weights_of};
use crate::element::{Element, I2, I4};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::registry::Op;
use crate::ptq::{Awq, Hadamard, InputStatistics, SmoothQuant};

/// What changes the inputs and the weights of linear layers, for [`Graph::transform_inputs`].
///
/// | method | the layer `x · wᵀ` becomes | needs | when it runs |
/// |---|---|---|---|
/// | [`SmoothQuant`], [`Awq`] | `(x / s) · (w * s)ᵀ` | statistics | nothing, or a product for each input |
/// | [`Hadamard`] | `(x · R) · (w · R)ᵀ` | nothing | `in · log in` sums per row |
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum InputTransform {
    /// See [`SmoothQuant`].
    SmoothQuant(SmoothQuant),
    /// See [`Awq`].
    Awq(Awq),
    /// See [`Hadamard`].
    Hadamard {
        /// The seed of the signs.
        seed: u64,
    },
}

impl From<SmoothQuant> for InputTransform {
    fn from(method: SmoothQuant) -> Self {
        InputTransform::SmoothQuant(method)
    }
}

impl From<Awq> for InputTransform {
    fn from(method: Awq) -> Self {
        InputTransform::Awq(method)
    }
}

impl InputTransform {
    fn needs_statistics(&self) -> bool {
        !matches!(self, InputTransform::Hadamard { .. })
    }
}

impl Graph {
    /// Returns a graph of the same function, up to the rounding of `f32`, whose linear layers lose less when they are
    /// quantized. Then calibrate the new graph, make a recipe of it, and quantize.
    ///
    /// It changes linear layers whose weights are codes in `recipe`, unless their scales are
    /// [given](TensorRecipe::given). Layers that read the same tensor share their factors; those of [`Awq`] are for the
    /// recipe of the first one.
    ///
    /// Factors are folded into the layer or the normalization that writes the tensor, if only linear layers read it and no
    /// bound but 0 clips it, and are a `Mul` before the layers otherwise. A rotation is a node [`op::Hadamard`].
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// use ndarray_quant::graph::{GraphBuilder, InputTransform, Precision, Recipe};
    /// use ndarray_quant::metrics::sqnr_db;
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 64])?;
    /// let outlier = |i: usize| if i == 3 { 30.0 } else { 1.0 };
    /// let weights = Array2::from_shape_fn((8, 64), |(o, i)| outlier(i) * ((o * 64 + i) as f32 * 0.7).sin());
    /// let y = g.linear("y", x, &weights, None)?;
    /// let graph = g.build(&[y])?;
    /// let x = Array2::from_shape_fn((10, 64), |(n, i)| ((n * 64 + i) as f32 * 0.9).cos());
    ///
    /// let recipe = Recipe::weights_in_groups(&graph, Precision::Int4, 64)?;
    /// let rotated = graph.transform_inputs(&recipe, None, InputTransform::Hadamard { seed: 1 })?;
    /// let network = rotated.quantize(&Recipe::weights_in_groups(&rotated, Precision::Int4, 64)?)?;
    /// let y = graph.run(&x)?;
    /// assert!(sqnr_db(&y, &network.run(&x)?)? > sqnr_db(&y, &graph.quantize(&recipe)?.run(&x)?)? + 1.0);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`quantize`](Self::quantize) for the recipe. [`Error::Argument`] if the method needs a calibration with second
    /// moments and there is none, [`Error::Value`] if it observed nothing, [`Error::Graph`] if it is of another graph.
    pub fn transform_inputs(
        &self,
        recipe: &Recipe,
        calibration: Option<&Calibration>,
        transform: impl Into<InputTransform>,
    ) -> Result<Graph> {
        let transform = transform.into();
        self.check_float()?;
        Calibration::check_moments(calibration, transform.needs_statistics())?;
        recipe.check(self)?;
        let mut readers = BTreeMap::<&str, Vec<usize>>::new();
        for (i, node) in self.nodes().iter().enumerate() {
            if self.linear_codes(node, recipe).is_some() {
                readers.entry(&node.inputs[0]).or_default().push(i);
            }
        }
        let mut edit = Edit::new(self.clone().into_parts());
        let mut inserted = BTreeMap::new();
        for (x, readers) in readers {
            let first = &self.nodes()[readers[0]];
            let change = self.change(&readers, recipe, calibration, transform).map_err(|e| e.at(&first.output))?;
            let Some(change) = change else { continue };
            let output = edit.names.take(alloc::format!("{x}.{}", change.name()));
            for &i in &readers {
                let mut changed = Ok(());
                edit.update_constant(i, 1, |weights| changed = change.apply(weights));
                changed?;
                edit.parts.nodes[i].inputs[0].clone_from(&output);
            }
            let mut inputs = alloc::vec![x.into()];
            let op: Op = match change {
                Change::Rotation(seed) => op::Hadamard { seed }.into(),
                Change::Factors(factors) => {
                    let name = edit.names.take(alloc::format!("{output}.factors"));
                    edit.parts.constants.insert(name.clone(), factors.mapv(|s| 1.0 / s).into_dyn().into_shared());
                    inputs.push(name);
                    Binary::Mul.into()
                }
            };
            inserted.insert(readers[0], Node { op, inputs, clamp: Clamp::NONE, output });
        }
        let nodes = core::mem::take(&mut edit.parts.nodes).into_iter().enumerate();
        edit.parts.nodes = nodes.flat_map(|(i, node)| inserted.remove(&i).into_iter().chain([node])).collect();
        fold_affine(Graph::new(edit.parts)?)
    }

    /// The recipe of the weights of a linear layer that become codes.
    fn linear_codes<'r>(&self, node: &Node, recipe: &'r Recipe) -> Option<&'r TensorRecipe> {
        let name = weights_of(node).filter(|_| !recipe.float_layers.contains(&node.output))?;
        let linear = node.operator().layer().is_some() && self.shape(name)?.len() == 2;
        recipe.tensors.get(name).filter(|tensor| linear && tensor.precision.is_code() && tensor.given.is_none())
    }

    /// The change of layers that read the same tensor. `None` if it needs statistics and no row was observed.
    fn change(
        &self,
        layers: &[usize],
        recipe: &Recipe,
        calibration: Option<&Calibration>,
        transform: InputTransform,
    ) -> Result<Option<Change>> {
        if let InputTransform::Hadamard { seed } = transform {
            return Ok(Some(Change::Rotation(seed)));
        }
        let layers: Vec<&Node> = layers.iter().map(|&i| &self.nodes()[i]).collect();
        let weights = layers.iter().filter_map(|node| self.constant(weights_of(node)?));
        let weights: Vec<ArrayView2<'_, f32>> =
            weights.filter_map(|w| w.view().into_dimensionality::<Ix2>().ok()).collect();
        let weights = concatenate(Axis(0), &weights).expect("layers of one input have the same depth");
        let moments = match calibration {
            Some(calibration) => calibration.of_layer(&layers[0].output, 1, weights.ncols())?,
            None => None,
        };
        let (Some(moments), Some(tensor)) = (moments, self.linear_codes(layers[0], recipe)) else { return Ok(None) };
        let statistics = &moments.groups()[0];
        let factors = match (transform, tensor.precision) {
            (InputTransform::SmoothQuant(method), _) => method.factors(&weights, &statistics.abs_max())?,
            (InputTransform::Awq(method), Precision::Int2) => awq::<I2>(method, &weights, tensor, statistics)?,
            (InputTransform::Awq(method), Precision::Int4) => awq::<I4>(method, &weights, tensor, statistics)?,
            (InputTransform::Awq(method), _) => awq::<i8>(method, &weights, tensor, statistics)?,
            (InputTransform::Hadamard { .. }, _) => return Ok(None),
        };
        Ok(Some(Change::Factors(factors)))
    }
}

fn awq<T: Element>(
    method: Awq,
    weights: &Array2<f32>,
    tensor: &TensorRecipe,
    statistics: &InputStatistics,
) -> Result<Array1<f32>> {
    method.factors(weights, &tensor.weight_scheme::<T>().with_granularity(tensor.granularity), statistics)
}

/// The change of the weights of the layers that read a tensor.
enum Change {
    Factors(Array1<f32>),
    /// By the seed of the signs.
    Rotation(u64),
}

impl Change {
    /// What the names of new tensors end with.
    fn name(&self) -> &'static str {
        match self {
            Change::Factors(_) => "scaled",
            Change::Rotation(_) => "rotated",
        }
    }

    /// Changes weights `[out, in]`.
    fn apply(&self, weights: &mut ndarray::ArrayD<f32>) -> Result<()> {
        match self {
            Change::Factors(factors) => *weights *= factors,
            Change::Rotation(seed) => {
                let mut matrix = weights.view_mut().into_dimensionality::<Ix2>().expect("weights of a linear layer");
                let rotated = Hadamard::new(matrix.ncols(), *seed).rotate(&matrix)?;
                matrix.assign(&rotated);
            }
        }
        Ok(())
    }
}
