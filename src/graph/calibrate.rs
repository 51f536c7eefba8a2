//! Float network and batches → the range of every activation → a recipe.

use alloc::collections::BTreeMap;
use alloc::string::String;

use ndarray::{ArrayD, ArrayRef, ArrayView1, ArrayViewD, Dimension};

use super::compile::FloatNetwork;
use super::network::Graph;
use super::op::Op;
use super::plan::Arena;
use super::recipe::{Precision, Recipe, TensorRecipe, weights};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::scheme::Scheme;

/// Watches every activation of a network while batches pass, with an observer for each.
///
/// ```
/// use ndarray::{Array, array};
/// use ndarray_quant::graph::{Activation, Calibration, GraphBuilder};
/// use ndarray_quant::observer::MinMax;
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("hidden", &x, &array![[1.0, -1.0], [0.5, 2.0]], None)?;
/// let y = g.activation("relu", &y, Activation::relu())?;
/// let y = g.linear("y", &y, &array![[1.0, 1.0]], None)?;
/// let graph = g.build(&[&y])?.simplify()?;
///
/// let mut calibration = Calibration::new(&graph, MinMax::per_tensor())?;
/// for batch in [array![[1.0f32, 0.0], [0.5, 0.25]], array![[0.0, 1.0], [1.0, 1.0]]] {
///     calibration.observe(&batch)?; // the place for a progress bar
/// }
/// let recipe = calibration.recipe()?;
/// assert_eq!(recipe.tensors["relu"].ranges, [(0.0, 2.5)]);
///
/// let network = graph.quantize(&recipe)?;
/// let y = network.run(&array![[1.0f32, 0.5]])?;
/// assert!((y[[0, 0]] - 2.0).abs() < 0.05);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug)]
pub struct Calibration<'g, O> {
    graph: &'g Graph,
    network: FloatNetwork,
    observers: BTreeMap<String, O>,
    memory: Arena,
    images: usize,
}

impl<'g, O: Observer + Clone> Calibration<'g, O> {
    /// Watches with a copy of this observer, which must be per tensor.
    ///
    /// # Errors
    /// Those of [`Graph::compile`].
    pub fn new(graph: &'g Graph, observer: O) -> Result<Self> {
        let names = graph.inputs().iter().map(|input| &input.name).chain(graph.nodes().iter().map(|node| &node.output));
        let observers = names.map(|name| (name.clone(), observer.clone())).collect();
        Ok(Self { graph, network: graph.compile()?, observers, memory: Arena::new(), images: 0 })
    }

    /// Runs a batch and watches.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another shape than the network's one input, and those of [`Observer::observe`].
    pub fn observe<D: Dimension>(&mut self, x: &ArrayRef<f32, D>) -> Result<()> {
        self.observe_many(&[x.view().into_dyn()])
    }

    /// As [`observe`](Self::observe), for a network of any number of inputs.
    ///
    /// # Errors
    /// Those of [`observe`](Self::observe).
    pub fn observe_many(&mut self, inputs: &[ArrayViewD<'_, f32>]) -> Result<()> {
        let observers = &mut self.observers;
        self.network.plan.run_observed(inputs, &mut self.memory, &mut |tensor, values, _| {
            let observed = observers.get_mut(&tensor.name);
            observed
                .map_or(Ok(()), |o| o.observe(&ArrayView1::from(values.as_slice::<f32>())))
                .map_err(|e| e.at(&tensor.name))
        })?;
        self.images += inputs.first().and_then(|x| x.shape().first()).copied().unwrap_or(0);
        Ok(())
    }

    /// How many images were seen.
    pub fn images(&self) -> usize {
        self.images
    }

    /// Takes in what another calibration of the same network saw.
    ///
    /// # Errors
    /// [`Error::Name`] if it watched other tensors, and those of [`Observer::merge`].
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if let Some(name) = other.observers.keys().find(|name| !self.observers.contains_key(*name)) {
            return Err(Error::Name { what: "tensor", expected: "one that both watched", found: name.clone() });
        }
        for (name, observer) in &mut self.observers {
            if let Some(other) = other.observers.get(name) {
                observer.merge(other)?;
            }
        }
        self.images += other.images;
        Ok(())
    }

    /// Full-integer: every activation as `u8` in the range that the observer chose, weights as `i8` per output channel.
    ///
    /// What the network is for, its outputs, becomes floats without being rounded to codes first; set their precision
    /// to [`Precision::Int8`] for a network of integers from end to end. Operators that only move elements keep the
    /// range of their input.
    ///
    /// # Errors
    /// [`Error::EmptyCalibration`] if nothing was observed, [`Error::Granularity`] unless the observer is per tensor.
    pub fn recipe(&self) -> Result<Recipe> {
        let mut recipe = Recipe::dynamic_range(self.graph)?;
        for (name, observer) in &self.observers {
            let ranges = observer.ranges(&Scheme::<u8>::asymmetric()).map_err(|e| e.at(name))?;
            if ranges.min().len() != 1 {
                let (expected, found) = (crate::Granularity::PerTensor, ranges.granularity());
                return Err(Error::Granularity { expected, found });
            }
            recipe.tensors.insert(name.clone(), TensorRecipe::activation(ranges.min().sum(), ranges.max().sum()));
        }
        for node in self.graph.nodes() {
            if matches!(node.op, Op::MaxPool { .. } | Op::Pad { .. } | Op::Repeat { .. } | Op::Reshape { .. }) {
                let kept = recipe.tensors[&node.inputs[0]].ranges.clone();
                recipe.tensor_mut(&node.output)?.ranges = kept;
            }
        }
        for name in self.graph.outputs().iter().filter(|name| !self.graph.is_constant(name)) {
            recipe.tensor_mut(name)?.precision = Precision::Float32;
        }
        debug_assert!(weights(self.graph).all(|(_, name)| recipe.tensors.contains_key(name)));
        Ok(recipe)
    }
}

/// The ranges of a whole data set in one call: [`Calibration`] over batches, with a report of progress after each, the
/// number of images seen.
///
/// ```
/// use ndarray::{Array, IxDyn, array};
/// use ndarray_quant::observer::MinMax;
/// use ndarray_quant::graph::{GraphBuilder, calibrate};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", &x, &array![[1.0, -1.0]], None)?;
/// let graph = g.build(&[&y])?;
/// let batches = (0..3).map(|i| Array::from_elem(IxDyn(&[4, 2]), i as f32));
/// let mut seen = 0;
/// let recipe = calibrate(&graph, MinMax::per_tensor(), batches, |images| seen = images)?;
/// assert_eq!((seen, &recipe.tensors["x"].ranges[..]), (12, &[(0.0, 2.0)][..]));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
///
/// # Errors
/// Those of [`Calibration::observe`] and [`Calibration::recipe`].
pub fn calibrate<O: Observer + Clone>(
    graph: &Graph,
    observer: O,
    batches: impl IntoIterator<Item = ArrayD<f32>>,
    mut progress: impl FnMut(usize),
) -> Result<Recipe> {
    let mut calibration = Calibration::new(graph, observer)?;
    for batch in batches {
        calibration.observe(&batch)?;
        progress(calibration.images());
    }
    calibration.recipe()
}
