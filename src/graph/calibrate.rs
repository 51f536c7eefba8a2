//! Calibration: observes the activations of a float network and chooses their ranges.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use core::ops::Deref;

use ndarray::{ArrayRef, ArrayView1, ArrayViewD, Dimension};

use super::collect::map_of;
use super::compile::FloatNetwork;
use super::network::Graph;
use super::plan::Arena;
use super::recipe::{Precision, Recipe, TensorRecipe, weights};
use crate::error::{Error, ParamsError, Result};
use crate::observer::Observer;
use crate::ops::index::{from_buffer, map_index};
use crate::scheme::Scheme;

/// Calibration of a float network: one observer per activation, over any number of batches.
///
/// [`Graph::calibrate`] does it in one call. Use a `Calibration` to show progress, to stop early, for several inputs, or
/// to calibrate in shards that are [merged](Self::merge).
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::{Calibration, GraphBuilder};
/// use ndarray_quant::observer::MinMax;
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("hidden", x, &array![[1.0, -1.0], [0.5, 2.0]], None)?;
/// let y = g.relu("relu", y)?;
/// let y = g.linear("y", y, &array![[1.0, 1.0]], None)?;
/// let graph = g.build(&[y])?.simplify()?;
///
/// let mut calibration = Calibration::new(&graph, MinMax::per_tensor())?;
/// for batch in [array![[1.0f32, 0.0], [0.5, 0.25]], array![[0.0, 1.0], [1.0, 1.0]]] {
///     calibration.observe(&batch)?;
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
    arena: Arena,
    samples: usize,
}

impl<'g, O: Observer + Clone> Calibration<'g, O> {
    /// Compiles the network and gives each activation a clone of `observer`, which is per tensor.
    ///
    /// # Errors
    /// Same as [`Graph::compile`].
    pub fn new(graph: &'g Graph, observer: O) -> Result<Self> {
        let names = graph.inputs().chain(graph.nodes().iter().map(|node| node.output.as_str()));
        let observers = map_of(names.map(|name| (String::from(name), observer.clone())));
        Ok(Self { graph, network: graph.compile()?, observers, arena: Arena::new(), samples: 0 })
    }

    /// Runs a batch and observes every activation.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another shape than the input. [`Error::Graph`] if the network has several inputs, or
    /// with the observer's error, for example [`Error::Value`] for a NaN; it names the tensor.
    pub fn observe<D: Dimension>(&mut self, x: &ArrayRef<f32, D>) -> Result<()> {
        self.observe_many(&[x.view().into_dyn()])
    }

    /// Same as [`observe`](Self::observe), for a network of any number of inputs.
    ///
    /// # Errors
    /// Same as [`observe`](Self::observe).
    pub fn observe_many(&mut self, inputs: &[ArrayViewD<'_, f32>]) -> Result<()> {
        let observers = &mut self.observers;
        self.network.plan.run_observed(inputs, &mut self.arena, &mut |tensor, values, _| {
            let observer = observers.get_mut(&tensor.name);
            let observed = observer.map_or(Ok(()), |o| o.observe(&ArrayView1::from(values.as_slice::<f32>())));
            observed.map_err(|e| map_index(e, |i| from_buffer(i[0], &tensor.shape)).at(&tensor.name))
        })?;
        self.samples += inputs.first().and_then(|x| x.shape().first()).copied().unwrap_or(0);
        Ok(())
    }

    /// The number of samples observed: the sum of all batch sizes.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Adds what another calibration of the same network observed.
    ///
    /// # Errors
    /// [`Error::Graph`] if it observed a tensor that this one does not have, otherwise the error of
    /// [`Observer::merge`].
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if let Some(name) = other.observers.keys().find(|name| !self.observers.contains_key(*name)) {
            return Err(Error::unknown("tensor of the other calibration", name, self.observers.keys()));
        }
        for (name, observer) in &mut self.observers {
            if let Some(other) = other.observers.get(name) {
                observer.merge(other)?;
            }
        }
        self.samples += other.samples;
        Ok(())
    }

    /// Returns a full-integer recipe: activations as `u8` in the range that their observer chose, weights as `i8` per
    /// output channel.
    ///
    /// The outputs of the network stay `Float32`: the last layer dequantizes its accumulators without rounding them to
    /// codes. Set them to [`Precision::Int8`] for a network of integers from end to end. `MaxPool`, `Pad`, `Resize` and `Reshape`
    /// keep the range of their input, so that they only move codes.
    ///
    /// # Errors
    /// [`Error::Graph`] with the name of the tensor and an [`Error::Value`] as its source if nothing was observed.
    /// [`Error::Params`] if the observer is not per tensor.
    pub fn recipe(&self) -> Result<Recipe> {
        let mut recipe = Recipe::dynamic_range(self.graph)?;
        for (name, observer) in &self.observers {
            let ranges = observer.ranges(&Scheme::<u8>::asymmetric()).map_err(|e| e.at(name))?;
            if ranges.min().len() != 1 {
                let (expected, found) = (crate::Granularity::PerTensor, ranges.granularity());
                return Err(ParamsError::Granularity { what: "an observer of a calibration", expected, found }.into());
            }
            recipe.tensors.insert(name.clone(), TensorRecipe::activation(ranges.min().sum(), ranges.max().sum()));
        }
        for node in self.graph.nodes() {
            if node.operator().keeps_range() {
                let kept = recipe.tensors[&node.inputs[0]].ranges.clone();
                recipe.tensor_mut(&node.output)?.ranges = kept;
            }
        }
        // Values that are compared stay as they are, back to where they are computed.
        let mut exact = BTreeSet::new();
        for node in self.graph.nodes().iter().rev() {
            let moved = exact.contains(&node.output) && node.operator().keeps_range();
            let inputs = node.inputs.iter().enumerate();
            exact.extend(inputs.filter(|(i, _)| moved || node.operator().takes_exact_values(*i)).map(|(_, name)| name));
        }
        for name in exact.into_iter().filter(|name| !self.graph.is_constant(name)) {
            recipe.tensor_mut(name)?.precision = Precision::Float32;
        }
        for name in self.graph.outputs().iter().filter(|name| !self.graph.is_constant(name)) {
            recipe.tensor_mut(name)?.precision = Precision::Float32;
        }
        debug_assert!(weights(self.graph).all(|(_, name)| recipe.tensors.contains_key(name)));
        Ok(recipe)
    }
}

impl Graph {
    /// Calibrates the network on some batches and returns a full-integer recipe. Same as a [`Calibration`] that observes
    /// each batch.
    ///
    /// A batch is an owned array or a view: `images.axis_chunks_iter(Axis(0), 32)`, or
    /// `batches.iter().map(|batch| batch.view())`.
    ///
    /// ```
    /// use ndarray::{Array, Axis, array};
    /// use ndarray_quant::{graph::GraphBuilder, observer::MinMax};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 2])?;
    /// let y = g.linear("y", x, &array![[1.0, -1.0]], None)?;
    /// let graph = g.build(&[y])?;
    ///
    /// let data = Array::from_shape_fn((12, 2), |(i, j)| (i + j) as f32 / 10.0);
    /// let recipe = graph.calibrate(MinMax::per_tensor(), data.axis_chunks_iter(Axis(0), 4))?;
    /// assert_eq!(recipe.tensors["x"].ranges, [(0.0, 1.2)]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`Calibration::new`], [`Calibration::observe`] and [`Calibration::recipe`].
    pub fn calibrate<O, D, B>(&self, observer: O, batches: impl IntoIterator<Item = B>) -> Result<Recipe>
    where
        O: Observer + Clone,
        D: Dimension,
        B: Deref<Target = ArrayRef<f32, D>>,
    {
        let mut calibration = Calibration::new(self, observer)?;
        for batch in batches {
            calibration.observe(&*batch)?;
        }
        calibration.recipe()
    }
}
