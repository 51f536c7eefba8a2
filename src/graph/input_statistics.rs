//! Statistics of the inputs of layers: the mean and the covariance (the Hessian of GPTQ).

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array1, Array2, ArrayRef, ArrayView2, Dimension};

use super::compile::FloatNetwork;
use super::network::{Graph, Node};
use super::plan::{Arena, Tensor};
use crate::error::{Error, GraphError, Result, ValueError};
use crate::ops::index::from_buffer;
use crate::ops::kernel::{Values, resized};
use crate::ops::operator;
use crate::ops::{Geometry, add_float_matmul};

/// Mean and covariance of the inputs of every convolution and linear layer, over any number of batches.
///
/// [`Graph::quantize_with_coordinate_descent`] reads them. Per layer and channel group they are a vector and a matrix
/// over the depth: `in` for a linear layer, `in / groups * kh * kw` for a convolution (its im2col rows). A layer of depth
/// `d` takes `4 d²` bytes per group.
///
/// ```
/// use ndarray::{Array2, array};
/// use ndarray_quant::graph::{GraphBuilder, InputStatistics, Precision, Recipe};
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", x, &array![[1.0, 0.45]], None)?;
/// let graph = g.build(&[y])?;
/// // Both inputs are always equal, so the errors of the two weights can cancel.
/// let x = Array2::from_shape_fn((64, 2), |(i, _)| i as f32 / 64.0);
/// let mut statistics = InputStatistics::new(&graph)?;
/// statistics.observe(&x)?;
///
/// let mut recipe = Recipe::dynamic_range(&graph)?;
/// recipe.tensor_mut("y.weight")?.precision = Precision::Int4;
/// let nearest = graph.quantize(&recipe)?;
/// let compensated = graph.quantize_with_coordinate_descent(&recipe, &statistics)?;
/// let error = |y: ndarray::ArrayD<f32>| (y - graph.run(&x).unwrap()).mapv(f32::abs).sum();
/// assert!(error(compensated.run(&x)?) < error(nearest.run(&x)?));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug)]
pub struct InputStatistics {
    network: FloatNetwork,
    layers: Vec<Layer>,
    /// The layers that read each tensor.
    readers: BTreeMap<String, Vec<usize>>,
    /// The layer that computes each tensor.
    by_output: BTreeMap<String, usize>,
    arena: Arena,
    im2col: Vec<f32>,
    samples: usize,
}

#[derive(Debug)]
struct Layer {
    rows: Rows,
    statistics: LayerStatistics,
}

/// The rows that the weights of a layer are multiplied with.
#[derive(Debug, Clone, Copy)]
enum Rows {
    /// The samples of a batch.
    Linear,
    /// The im2col rows of each image.
    Im2col(Geometry),
}

/// The largest number of im2col rows taken from each image, spread evenly. Neighbouring rows are nearly equal.
const ROWS_PER_IMAGE: usize = 256;

impl InputStatistics {
    /// Compiles the network to observe the inputs of its convolutions and linear layers.
    ///
    /// # Errors
    /// Same as [`Graph::compile`].
    pub fn new(graph: &Graph) -> Result<Self> {
        let network = graph.compile()?;
        let (mut layers, mut readers, mut by_output) = (Vec::new(), BTreeMap::<_, Vec<_>>::new(), BTreeMap::new());
        for node in graph.nodes() {
            if let Some(layer) = Layer::new(graph, node) {
                readers.entry(node.inputs[0].clone()).or_default().push(layers.len());
                by_output.insert(node.output.clone(), layers.len());
                layers.push(layer);
            }
        }
        Ok(Self { network, layers, readers, by_output, arena: Arena::new(), im2col: Vec::new(), samples: 0 })
    }

    /// Runs a batch and adds the inputs of every layer to its statistics.
    ///
    /// # Errors
    /// [`Error::Shape`] if `x` has another shape than the input. [`Error::Graph`] if the network has several inputs, or
    /// with [`Error::Value`] if the input of a layer holds a NaN or an infinity.
    pub fn observe<D: Dimension>(&mut self, x: &ArrayRef<f32, D>) -> Result<()> {
        let (layers, readers, im2col) = (&mut self.layers, &self.readers, &mut self.im2col);
        self.network.plan.run_observed(&[x.view().into_dyn()], &mut self.arena, &mut |tensor, values, images| {
            let Some(readers) = readers.get(&tensor.name) else { return Ok(()) };
            check_finite(tensor, values)?;
            readers.iter().for_each(|&layer| layers[layer].observe(values, images, im2col));
            Ok(())
        })?;
        self.samples += x.shape().first().copied().unwrap_or(0);
        Ok(())
    }

    /// Returns an error if nothing was observed.
    pub(crate) fn check_observed(&self) -> Result<()> {
        if self.samples == 0 { Err(ValueError::EmptyCalibration.into()) } else { Ok(()) }
    }

    /// The statistics of the layer with this output, whose weights have `groups` groups and this depth. `None` if no row
    /// was observed.
    pub(crate) fn of_layer(&self, output: &str, groups: usize, depth: usize) -> Result<Option<&LayerStatistics>> {
        let statistics = self.by_output.get(output).map(|&layer| &self.layers[layer].statistics);
        match statistics.filter(|s| s.groups.len() == groups && s.depth() == depth) {
            Some(statistics) => Ok(Some(statistics).filter(|s| s.rows > 0)),
            None => {
                let found = alloc::format!("statistics without a layer {output:?} of depth {depth}");
                let expected = "statistics of the graph that is quantized";
                Err(GraphError::Mismatch { what: "input statistics", expected, found }.into())
            }
        }
    }
}

/// Returns an error with the index of the first value that is not finite.
pub(crate) fn check_finite(tensor: &Tensor, values: Values<'_>) -> Result<()> {
    match values.as_slice::<f32>().iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(()),
        Some((i, &found)) => {
            let index = from_buffer(i, &tensor.shape);
            Err(Error::from(ValueError::NonFinite { what: "values", found: found.into(), index }).at(&tensor.name))
        }
    }
}

impl Layer {
    fn new(graph: &Graph, node: &Node) -> Option<Self> {
        let shape = |name: &str| graph.shape(name).unwrap_or_default();
        let weights = shape(super::recipe::weights_of(node)?);
        let depth: usize = weights[1..].iter().product();
        let operator::Layer { window, groups } = node.operator().layer()?;
        let rows = match *weights {
            [_, _, height, width] => {
                let (x, y) = (shape(&node.inputs[0]), shape(&node.output));
                Rows::Im2col(Geometry::new([height, width], &window, groups, x, y))
            }
            _ => Rows::Linear,
        };
        Some(Self { rows, statistics: LayerStatistics::new(groups, depth) })
    }

    fn observe(&mut self, values: Values<'_>, images: usize, im2col: &mut Vec<f32>) {
        let (values, depth) = (values.as_slice::<f32>(), self.statistics.depth());
        match self.rows {
            Rows::Linear => {
                let rows = values.len().checked_div(depth).unwrap_or(images);
                let rows = ArrayView2::from_shape((rows, depth), values).expect("lengths were planned");
                self.statistics.add(0, rows);
            }
            Rows::Im2col(geometry) => {
                let (image, pixels) = (geometry.input_len().max(1), geometry.output_pixels());
                let step = pixels.div_ceil(ROWS_PER_IMAGE).max(1);
                let count = pixels.div_ceil(step);
                let im2col = resized(im2col, count * depth);
                for image in values.chunks_exact(image) {
                    for group in 0..geometry.groups {
                        for (i, row) in im2col.chunks_exact_mut(depth.max(1)).enumerate() {
                            geometry.im2col(image, group, i * step, row, 0.0);
                        }
                        let rows = ArrayView2::from_shape((count, depth), &*im2col).expect("lengths were planned");
                        self.statistics.add(group, rows);
                    }
                }
            }
        }
    }
}

/// Sums over the input rows of one layer. Elements of a convolution's row are in NHWC order: `[kh, kw, in]`.
#[derive(Debug, Clone)]
pub(crate) struct LayerStatistics {
    rows: usize,
    groups: Vec<GroupSums>,
}

/// Sums over the input rows of one channel group.
#[derive(Debug, Clone)]
struct GroupSums {
    /// `Σ x`.
    sum: Array1<f64>,
    /// `Σ x · xᵀ`.
    products: Array2<f32>,
}

impl LayerStatistics {
    pub(crate) fn new(groups: usize, depth: usize) -> Self {
        let group = GroupSums { sum: Array1::zeros(depth), products: Array2::zeros((depth, depth)) };
        Self { rows: 0, groups: alloc::vec![group; groups] }
    }

    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    fn depth(&self) -> usize {
        self.groups.first().map_or(0, |group| group.sum.len())
    }

    /// Adds rows of one group. Every group gets the same number of rows.
    fn add(&mut self, group: usize, rows: ArrayView2<'_, f32>) {
        if group == 0 {
            self.rows += rows.nrows();
        }
        let group = &mut self.groups[group];
        for row in rows.rows() {
            group.sum.zip_mut_with(&row, |sum, &x| *sum += x as f64);
        }
        add_float_matmul(rows.t(), rows, group.products.view_mut());
    }

    /// `E[x]` of a group.
    pub(crate) fn mean(&self, group: usize) -> Array1<f64> {
        &self.groups[group].sum / self.rows.max(1) as f64
    }

    /// `E[x · xᵀ] - E[x] · E[x]ᵀ` of a group.
    pub(crate) fn covariance(&self, group: usize) -> Array2<f64> {
        let (rows, mean) = (self.rows.max(1) as f64, self.mean(group));
        let mut covariance = self.groups[group].products.mapv(|p| p as f64 / rows);
        for (i, mut row) in covariance.rows_mut().into_iter().enumerate() {
            row.zip_mut_with(&mean, |c, m| *c -= mean[i] * m);
        }
        covariance
    }
}
