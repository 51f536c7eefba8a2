//! The one place where activations are observed.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{ArrayRef, ArrayView1, ArrayViewD, Dimension};

use super::moments::{Rows, Scratch};
use super::{Calibration, TensorStatistics};
#[cfg(doc)]
use crate::Error;
use crate::error::Result;
use crate::granularity::Granularity;
use crate::graph::collect::map_of;
use crate::graph::compile::FloatNetwork;
use crate::graph::layouts::TensorLayouts;
use crate::graph::network::Graph;
use crate::graph::plan::Arena;
use crate::observer::PowerOfTwoHistogram;
use crate::ops::index::{from_buffer, map_index};
use crate::ops::nhwc::Layout;
use crate::range::Bounds;

/// Runs a float network and observes its activations, in one pass over any number of batches.
///
/// [`Graph::calibrate`] does it in one call. Use a `Calibrator` to show progress, to stop early, for several inputs, or
/// for second moments.
///
/// ```
/// use ndarray::{Array2, array};
/// use ndarray_quant::{graph::{Calibrator, GraphBuilder, Precision, Recipe}, ptq::CoordinateDescent};
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", x, &array![[1.0, 0.45]], None)?;
/// let graph = g.build(&[y])?;
/// // Both inputs are always equal, so the errors of the two weights can cancel.
/// let x = Array2::from_shape_fn((64, 2), |(i, _)| i as f32 / 64.0);
/// let mut calibrator = Calibrator::new(&graph)?.with_second_moments();
/// calibrator.observe(&x)?;
/// let calibration = calibrator.finish();
///
/// let mut recipe = Recipe::dynamic_range(&graph)?;
/// recipe.tensor_mut("y.weight")?.precision = Precision::Int4;
/// let nearest = graph.quantize(&recipe)?;
/// let compensated = graph.quantize_with(&recipe, Some(&calibration), CoordinateDescent::new())?;
/// let error = |y: ndarray::ArrayD<f32>| (y - graph.run(&x).unwrap()).mapv(f32::abs).sum();
/// assert!(error(compensated.run(&x)?) < error(nearest.run(&x)?));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug)]
pub struct Calibrator {
    network: FloatNetwork,
    /// The layers: the name of the output, and the rows of the input.
    layers: Vec<(String, Rows)>,
    /// The layers that read each tensor.
    readers: BTreeMap<String, Vec<usize>>,
    arena: Arena,
    scratch: Scratch,
    /// Without observations.
    empty: Calibration,
    observed: Calibration,
}

impl Calibrator {
    /// Compiles the network to observe its activations.
    ///
    /// # Errors
    /// Same as [`Graph::compile`].
    pub fn new(graph: &Graph) -> Result<Self> {
        let (network, layouts) = (graph.compile()?, TensorLayouts::new(graph));
        let names = graph.inputs().chain(graph.nodes().iter().map(|node| node.output.as_str()));
        let tensor = |name: &str| {
            // Channels are the last axis of the buffer, as layers read them.
            let channels = match (graph.shape(name).unwrap_or_default(), layouts.of(name)) {
                (&[_, channels], _) | (&[_, channels, _, _], Layout::ChannelsLast) => channels,
                _ => 0,
            };
            TensorStatistics { histogram: None, channel_abs_max: alloc::vec![0.0; channels] }
        };
        let tensors = map_of(names.map(|name| (String::from(name), tensor(name))));
        let (mut layers, mut readers) = (Vec::new(), BTreeMap::<_, Vec<_>>::new());
        for node in graph.nodes() {
            if let Some(rows) = Rows::new(graph, node) {
                readers.entry(node.inputs[0].clone()).or_default().push(layers.len());
                layers.push((node.output.clone(), rows));
            }
        }
        let empty = Calibration { samples: 0, tensors, layers: None };
        let observed = empty.clone();
        Ok(Self { network, layers, readers, arena: Arena::new(), scratch: Scratch::default(), empty, observed })
    }

    /// Observes the mean and the covariance of the input of each convolution and linear layer too, for
    /// [`Graph::quantize_with`]. It starts without observations.
    ///
    /// Per layer and channel group they are a vector and a matrix over the depth: `in` for a linear layer,
    /// `in / groups * kh * kw` for a convolution (its im2col rows). A layer of depth `d` takes `4 d²` to `12 d²` bytes per
    /// group. Inputs are rounded to 8 bits of the largest magnitude of their sample and group.
    #[must_use]
    pub fn with_second_moments(mut self) -> Self {
        let layers = self.layers.iter().map(|(name, rows)| (name.clone(), rows.moments()));
        self.empty.layers = Some(map_of(layers));
        self.observed = self.empty.clone();
        self
    }

    /// Runs a batch and observes every activation.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another shape than the input. [`Error::Graph`] if the network has several inputs, or
    /// with [`Error::Value`] if an activation is NaN or infinite; it names the tensor. Samples before it are observed.
    pub fn observe<D: Dimension>(&mut self, x: &ArrayRef<f32, D>) -> Result<()> {
        self.observe_many(&[x.view().into_dyn()])
    }

    /// Same as [`observe`](Self::observe), for a network of any number of inputs.
    ///
    /// # Errors
    /// Same as [`observe`](Self::observe).
    pub fn observe_many(&mut self, inputs: &[ArrayViewD<'_, f32>]) -> Result<()> {
        let Self { network, layers, readers, arena, scratch, observed, .. } = self;
        let Calibration { samples, tensors, layers: moments } = observed;
        *samples += network.plan.run_observed(inputs, arena, &mut |tensor, values| {
            let values = values.as_slice::<f32>();
            if let Some(observed) = tensors.get_mut(&tensor.name) {
                let observed = observed.observe(values);
                observed.map_err(|e| map_index(e, |i| from_buffer(i[0], tensor.dims())).at(&tensor.name))?;
            }
            let (Some(moments), Some(readers)) = (&mut *moments, readers.get(&tensor.name)) else { return Ok(()) };
            readers.iter().try_for_each(|&layer| {
                let (name, rows) = &layers[layer];
                moments.get_mut(name).map_or(Ok(()), |moments| rows.observe(values, moments, scratch))
            })
        })? as u64;
        Ok(())
    }

    /// The observations up to now.
    pub fn calibration(&self) -> &Calibration {
        &self.observed
    }

    /// Takes what was observed and starts again without observations.
    pub fn take(&mut self) -> Calibration {
        core::mem::replace(&mut self.observed, self.empty.clone())
    }

    /// Returns what was observed.
    pub fn finish(self) -> Calibration {
        self.observed
    }
}

impl TensorStatistics {
    /// Adds the values of one sample, in memory order.
    fn observe(&mut self, values: &[f32]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        let bounds = Bounds::of_blocks(&ArrayView1::from(values), Granularity::PerTensor, &[])?[0];
        let histogram = self.histogram.get_or_insert_with(|| PowerOfTwoHistogram::new(bounds));
        histogram.widen(bounds);
        histogram.count(values);
        if !self.channel_abs_max.is_empty() {
            for row in values.chunks_exact(self.channel_abs_max.len()) {
                self.channel_abs_max.iter_mut().zip(row).for_each(|(max, x)| *max = max.max(x.abs()));
            }
        }
        Ok(())
    }
}
