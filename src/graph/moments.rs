//! What the inputs of layers are like: their mean and how they vary together.

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{ArrayRef, ArrayView2, Dimension};

use super::compile::FloatNetwork;
use super::float::Geometry;
use super::kernel::{Values, resized};
use super::network::{Graph, Node};
use super::op::Op;
use super::plan::Arena;
use super::rounding::Moments;
use crate::error::Result;

/// The first and second moments of what the weights of each layer are multiplied with, over batches.
///
/// The error of a layer's output is `(w - ŵ) · x`. Its mean is `(w - ŵ) · E[x]`, which a bias can take back (Nagel and
/// others, "Data-free quantization through weight equalization and bias correction", 2019), and its variance is
/// `(w - ŵ) · Cov[x] · (w - ŵ)ᵀ`, which depends on how weights are rounded: not each to its nearest code, but so that
/// their errors cancel on what is really seen. Starting from the nearest codes, one code after the other is moved to
/// where the variance is least, until none moves or a few rounds have passed.
///
/// ```
/// use ndarray::{Array2, array};
/// use ndarray_quant::graph::{GraphBuilder, InputStatistics, Precision, Recipe};
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let y = g.linear("y", &x, &array![[1.0, 0.45]], None)?;
/// let graph = g.build(&[&y])?;
/// // Both inputs are always the same, so the errors of the two weights can cancel.
/// let x = Array2::from_shape_fn((64, 2), |(i, _)| i as f32 / 64.0);
/// let mut seen = InputStatistics::new(&graph)?;
/// seen.observe(&x)?;
///
/// let mut recipe = Recipe::dynamic_range(&graph)?;
/// recipe.tensor_mut("y.weight")?.precision = Precision::Int4;
/// let error = |y: ndarray::ArrayD<f32>| (y - graph.run(&x).unwrap()).mapv(f32::abs).sum() / 64.0;
/// let (nearest, tuned) = (graph.quantize(&recipe)?, graph.quantize_tuned(&recipe, &seen)?);
/// assert!(error(tuned.run(&x)?) < error(nearest.run(&x)?));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug)]
pub struct InputStatistics {
    network: FloatNetwork,
    /// The layers that read each tensor.
    readers: BTreeMap<String, Vec<Reader>>,
    memory: Arena,
    im2col: Vec<f32>,
}

#[derive(Debug)]
struct Reader {
    node: String,
    windows: Windows,
    moments: Moments,
}

/// What a layer's weights are multiplied with.
#[derive(Debug, Clone, Copy)]
enum Windows {
    Rows,
    Conv(Geometry),
}

/// Windows of an image that are looked at, spread evenly; more would say the same.
const WINDOWS: usize = 256;

impl InputStatistics {
    /// Watches every convolution and linear layer of a network.
    ///
    /// # Errors
    /// Those of [`Graph::compile`].
    pub fn new(graph: &Graph) -> Result<Self> {
        let mut readers = BTreeMap::<String, Vec<Reader>>::new();
        for node in graph.nodes() {
            if let Some(reader) = Reader::new(graph, node) {
                readers.entry(node.inputs[0].clone()).or_default().push(reader);
            }
        }
        Ok(Self { network: graph.compile()?, readers, memory: Arena::new(), im2col: Vec::new() })
    }

    /// Runs a batch and watches.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if `x` has another shape than the network's one input.
    pub fn observe<D: Dimension>(&mut self, x: &ArrayRef<f32, D>) -> Result<()> {
        let (readers, im2col) = (&mut self.readers, &mut self.im2col);
        self.network.plan.run_observed(&[x.view().into_dyn()], &mut self.memory, &mut |tensor, values, images| {
            let readers = readers.get_mut(&tensor.name).into_iter().flatten();
            readers.for_each(|reader| reader.observe(values, images, im2col));
            Ok(())
        })
    }

    /// What was seen of a node's input.
    pub(crate) fn of(&self, node: &str) -> Option<&Moments> {
        let reader = self.readers.values().flatten().find(|reader| reader.node == node)?;
        Some(&reader.moments).filter(|moments| !moments.is_empty())
    }
}

impl Reader {
    fn new(graph: &Graph, node: &Node) -> Option<Self> {
        let shape = |name: &str| graph.shape(name).unwrap_or_default();
        let weights = shape(super::recipe::weights_of(node)?);
        let depth: usize = weights[1..].iter().product();
        let (windows, groups) = match &node.op {
            Op::Conv { window, groups } => {
                let (kernel, [x, y]) =
                    ([weights[2], weights[3]], [&node.inputs[0], &node.output].map(|name| shape(name)));
                (Windows::Conv(Geometry::new(kernel, window, *groups, x, y)), *groups)
            }
            _ => (Windows::Rows, 1),
        };
        Some(Self { node: node.name.to_string(), windows, moments: Moments::new(groups, depth) })
    }

    fn observe(&mut self, values: Values<'_>, images: usize, im2col: &mut Vec<f32>) {
        let values = values.as_slice::<f32>();
        match self.windows {
            Windows::Rows => {
                let depth = self.moments.depth();
                let rows = ArrayView2::from_shape((images, depth), values).expect("lengths were planned");
                self.moments.add(0, rows);
            }
            Windows::Conv(geometry) => {
                let (image, pixels) = (geometry.input_len().max(1), geometry.output_pixels());
                let step = pixels.div_ceil(WINDOWS).max(1);
                let (count, depth) = (pixels.div_ceil(step), self.moments.depth());
                let im2col = resized(im2col, count * depth);
                for image in values.chunks_exact(image) {
                    for group in 0..geometry.groups {
                        for (i, patch) in im2col.chunks_exact_mut(depth.max(1)).enumerate() {
                            geometry.im2col(image, group, i * step, patch, 0.0);
                        }
                        let rows = ArrayView2::from_shape((count, depth), &*im2col).expect("lengths were planned");
                        self.moments.add(group, rows);
                    }
                }
            }
        }
    }
}
