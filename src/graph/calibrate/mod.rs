//! Calibration: what is observed of the activations of a float network, and the recipe that follows from it.

mod calibrator;
mod method;
mod moments;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Deref;

use ndarray::{ArrayRef, Dimension};

use super::network::Graph;
use super::recipe::{Precision, Recipe, TensorRecipe, weights};
use crate::error::{Error, GraphError, Result, ValueError};
use crate::observer::PowerOfTwoHistogram;
pub use calibrator::Calibrator;
pub use method::CalibrationMethod;
pub(crate) use moments::LayerMoments;

/// The observations of a [`Calibrator`]: a histogram of each activation, the largest magnitude of each of its channels, and,
/// if asked for, the mean and the covariance of the input of each convolution and linear layer.
///
/// One pass over the data serves every use of it:
///
/// | use | reads |
/// |---|---|
/// | [`recipe`](Self::recipe), by any [`CalibrationMethod`] | histograms |
/// | [`Graph::equalize`] | largest magnitudes |
/// | [`Graph::quantize_with`], by any [`WeightRounding`](super::WeightRounding) | means and covariances |
/// | [`Graph::transform_inputs`] | largest and mean magnitudes, second moments |
///
/// It owns its data, [merges](Self::merge), and with the feature `serde` it is saved and sent. Each sample is run by
/// itself, and all sums are sums of integers. So calibrations are equal, bit for bit, whatever the batches, the order of
/// the samples and the shards that were merged, on machines of one instruction set (float networks differ in their last
/// bits between instruction sets).
///
/// ```
/// use ndarray::{Array2, array};
/// use ndarray_quant::graph::{Calibration, CalibrationMethod, Calibrator, GraphBuilder};
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("hidden", x, &array![[1.0, -1.0], [0.5, 2.0]], None)?;
/// let y = g.relu("relu", y)?;
/// let y = g.linear("y", y, &array![[1.0, 1.0]], None)?;
/// let graph = g.build(&[y])?.simplify()?;
///
/// // Two shards, by two threads, processes or machines.
/// let shard = |x: Array2<f32>| -> ndarray_quant::Result<Calibration> {
///     let mut calibrator = Calibrator::new(&graph)?;
///     calibrator.observe(&x)?;
///     Ok(calibrator.finish())
/// };
/// let mut calibration = shard(array![[1.0f32, 0.0], [0.5, 0.25]])?;
/// calibration.merge(&shard(array![[0.0, 1.0], [1.0, 1.0]])?)?;
/// assert_eq!(calibration.samples(), 4);
/// let recipe = calibration.recipe(&graph, CalibrationMethod::MinMax)?;
/// assert_eq!(recipe.tensors["relu"].ranges, [(0.0, 2.5)]);
///
/// let network = graph.quantize(&recipe)?;
/// let y = network.run(&array![[1.0f32, 0.5]])?;
/// assert!((y[[0, 0]] - 2.0).abs() < 0.05);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Calibration {
    samples: u64,
    /// The activations of the network, by name.
    tensors: BTreeMap<String, TensorStatistics>,
    /// The inputs of layers, by the name of the layer's output, if they are observed.
    layers: Option<BTreeMap<String, LayerMoments>>,
}

/// The observations of an activation.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct TensorStatistics {
    /// `None` until values are observed.
    histogram: Option<PowerOfTwoHistogram>,
    /// The largest magnitude of each channel of a tensor of rank 2 or 4. Empty for others.
    channel_abs_max: Vec<f32>,
}

impl Calibration {
    /// The number of samples observed: the sum of all batch sizes.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The values of an activation. `None` for other tensors, and if nothing was observed.
    ///
    /// Any [`Clip`](crate::observer::Clip) chooses a range from it, for [`Recipe::tensor_mut`].
    pub fn histogram(&self, tensor: &str) -> Option<&PowerOfTwoHistogram> {
        self.tensors.get(tensor)?.histogram.as_ref()
    }

    /// Adds what another calibration of the same network observed. The result does not depend on the order.
    ///
    /// # Errors
    /// [`Error::Graph`] if `other` is of another network, or if only one of them has second moments. `self` is unchanged
    /// then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        for (names, found) in [(&self.tensors, &other.tensors), (&other.tensors, &self.tensors)] {
            if let Some(name) = found.keys().find(|name| !names.contains_key(*name)) {
                return Err(Error::unknown("tensor of one of two calibrations", name, names.keys()));
            }
        }
        let mismatch = |expected, found: &str| {
            Error::from(GraphError::Mismatch { what: "merged calibration", expected, found: found.into() })
        };
        for (name, tensor) in &self.tensors {
            if tensor.channel_abs_max.len() != other.tensors[name].channel_abs_max.len() {
                return Err(mismatch("the same number of channels", name).at(name));
            }
        }
        match (&self.layers, &other.layers) {
            (None, None) => {}
            (Some(layers), Some(others)) => {
                let size = |layer: &LayerMoments| (layer.groups().len(), layer.depth());
                let same = |(name, layer)| others.get(name).is_some_and(|other| size(other) == size(layer));
                if layers.len() != others.len() || !layers.iter().all(same) {
                    return Err(mismatch("second moments of the same layers", "those of other layers"));
                }
            }
            _ => return Err(mismatch("second moments in both or in none", "second moments in one")),
        }
        for (name, tensor) in &mut self.tensors {
            let other = &other.tensors[name];
            match (&mut tensor.histogram, &other.histogram) {
                (Some(histogram), Some(other)) => histogram.merge(other),
                (histogram, other) => *histogram = histogram.take().or_else(|| other.clone()),
            }
            let max = tensor.channel_abs_max.iter_mut().zip(&other.channel_abs_max);
            max.for_each(|(max, other)| *max = max.max(*other));
        }
        for (name, layer) in self.layers.iter_mut().flatten() {
            other.layers.iter().filter_map(|layers| layers.get(name)).for_each(|other| layer.merge(other));
        }
        self.samples = self.samples.saturating_add(other.samples);
        Ok(())
    }

    /// The same without second moments.
    pub(crate) fn without_moments(&self) -> Self {
        Self { samples: self.samples, tensors: self.tensors.clone(), layers: None }
    }

    /// Returns a full-integer recipe: activations as `u8` in the range that `method` chooses, weights as `i8` per output
    /// channel.
    ///
    /// The outputs of the network stay `Float32`: the last layer dequantizes its accumulators without rounding them to
    /// codes. Set them to [`Precision::Int8`] for a network of integers from end to end. `MaxPool`, `Pad`, `Resize` and `Reshape`
    /// keep the range of their input, so that they only move codes.
    ///
    /// # Errors
    /// [`Error::Graph`] with the name of the tensor and an [`Error::Value`] as its source if nothing was observed.
    /// [`Error::Graph`] if this is a calibration of another network. [`Error::Argument`] for a percentile out of range.
    pub fn recipe(&self, graph: &Graph, method: CalibrationMethod) -> Result<Recipe> {
        let mut recipe = Recipe::dynamic_range(graph)?;
        for name in graph.inputs().chain(graph.nodes().iter().map(|node| node.output.as_str())) {
            let (min, max) = method.range(self.observed(name)?).map_err(|e| e.at(name))?;
            recipe.tensors.insert(name.into(), TensorRecipe::activation(min, max));
        }
        for node in graph.nodes() {
            if node.operator().keeps_range() {
                let kept = recipe.tensors[&node.inputs[0]].ranges.clone();
                recipe.tensor_mut(&node.output)?.ranges = kept;
            }
        }
        // Values that are compared stay as they are, back to where they are computed.
        let mut exact = BTreeSet::new();
        for node in graph.nodes().iter().rev() {
            let moved = exact.contains(&node.output) && node.operator().keeps_range();
            let inputs = node.inputs.iter().enumerate();
            exact.extend(inputs.filter(|(i, _)| moved || node.operator().takes_exact_values(*i)).map(|(_, name)| name));
        }
        for name in exact.into_iter().filter(|name| !graph.is_constant(name)) {
            recipe.tensor_mut(name)?.precision = Precision::Float32;
        }
        for name in graph.outputs().iter().filter(|name| !graph.is_constant(name)) {
            recipe.tensor_mut(name)?.precision = Precision::Float32;
        }
        debug_assert!(weights(graph).all(|(_, name)| recipe.tensors.contains_key(name)));
        Ok(recipe)
    }

    /// The histogram of an activation.
    pub(crate) fn observed(&self, name: &str) -> Result<&PowerOfTwoHistogram> {
        let tensor = self.tensors.get(name);
        let tensor = tensor.ok_or_else(|| Error::unknown("tensor of the calibration", name, self.tensors.keys()))?;
        tensor.histogram.as_ref().ok_or_else(|| Error::from(ValueError::EmptyCalibration).at(name))
    }

    /// The largest magnitude of each channel. `None` unless it was observed.
    pub(crate) fn channel_abs_max(&self, tensor: &str) -> Option<&[f32]> {
        let tensor = self.tensors.get(tensor)?;
        (tensor.histogram.is_some() && !tensor.channel_abs_max.is_empty()).then_some(&tensor.channel_abs_max)
    }

    /// Returns an error if nothing was observed.
    pub(crate) fn check_observed(&self) -> Result<()> {
        if self.samples == 0 { Err(ValueError::EmptyCalibration.into()) } else { Ok(()) }
    }

    /// Returns an error for a calibration without second moments, and for none if it is needed.
    pub(crate) fn check_moments(calibration: Option<&Self>, needed: bool) -> Result<()> {
        let found = match calibration {
            Some(calibration) => {
                calibration.check_observed()?;
                if calibration.layers.is_some() {
                    return Ok(());
                }
                "one without"
            }
            None if needed => "none",
            None => return Ok(()),
        };
        let expected = "one with second moments (Calibrator::with_second_moments)";
        Err(Error::Argument { what: "calibration", expected, found: found.into() })
    }

    /// The moments of the input of the layer with this output, whose weights have `groups` groups and this depth. `None`
    /// if no row was observed.
    pub(crate) fn of_layer(&self, output: &str, groups: usize, depth: usize) -> Result<Option<&LayerMoments>> {
        let moments = self.layers.as_ref().and_then(|layers| layers.get(output));
        match moments.filter(|s| s.groups().len() == groups && s.depth() == depth) {
            Some(moments) => Ok(Some(moments).filter(|m| !m.is_empty())),
            None => {
                let found = alloc::format!("second moments without a layer {output:?} of depth {depth}");
                let expected = "one of the graph that is quantized";
                Err(GraphError::Mismatch { what: "calibration", expected, found }.into())
            }
        }
    }
}

impl Graph {
    /// Observes the network on some batches. Same as a [`Calibrator`] that observes each batch.
    ///
    /// A batch is an owned array or a view: `images.axis_chunks_iter(Axis(0), 32)`, or
    /// `batches.iter().map(|batch| batch.view())`.
    ///
    /// ```
    /// use ndarray::{Array, Axis, array};
    /// use ndarray_quant::graph::{CalibrationMethod, GraphBuilder};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 2])?;
    /// let y = g.linear("y", x, &array![[1.0, -1.0]], None)?;
    /// let graph = g.build(&[y])?;
    ///
    /// let data = Array::from_shape_fn((12, 2), |(i, j)| (i + j) as f32 / 10.0);
    /// let calibration = graph.calibrate(data.axis_chunks_iter(Axis(0), 4))?;
    /// let recipe = calibration.recipe(&graph, CalibrationMethod::MinMax)?;
    /// assert_eq!(recipe.tensors["x"].ranges, [(0.0, 1.2)]);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// Same as [`Calibrator::new`] and [`Calibrator::observe`].
    pub fn calibrate<D, B>(&self, batches: impl IntoIterator<Item = B>) -> Result<Calibration>
    where
        D: Dimension,
        B: Deref<Target = ArrayRef<f32, D>>,
    {
        let mut calibrator = Calibrator::new(self)?;
        for batch in batches {
            calibrator.observe(&*batch)?;
        }
        Ok(calibrator.finish())
    }
}
