//! The inputs of layers: their statistics by channel group, and the rows of a sample that are observed.

use alloc::vec::Vec;

use crate::error::Result;
use crate::graph::network::{Graph, Node};
use crate::graph::recipe::weights_of;
use crate::ops::Geometry;
use crate::ops::kernel::resized;
use crate::ops::operator;
use crate::ptq::{InputStatistics, SumScratch};

/// The statistics of the input rows of one layer, by channel group.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Serialized"))]
pub(crate) struct LayerMoments {
    groups: Vec<InputStatistics>,
}

/// The serialized groups, before they are validated.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Serialized {
    groups: Vec<InputStatistics>,
}

#[cfg(feature = "serde")]
impl TryFrom<Serialized> for LayerMoments {
    type Error = crate::Error;
    fn try_from(Serialized { groups }: Serialized) -> Result<Self, crate::Error> {
        let depth = groups.first().map_or(0, InputStatistics::depth);
        for group in &groups {
            crate::error::check_count("depth of a group", depth, group.depth())?;
        }
        Ok(Self { groups })
    }
}

impl LayerMoments {
    fn new(groups: usize, depth: usize) -> Self {
        Self { groups: alloc::vec![InputStatistics::new(depth); groups] }
    }

    pub(crate) fn groups(&self) -> &[InputStatistics] {
        &self.groups
    }

    pub(crate) fn depth(&self) -> usize {
        self.groups.first().map_or(0, InputStatistics::depth)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| group.rows() == 0)
    }

    /// Adds the sums of a layer with the same groups and depth.
    pub(super) fn merge(&mut self, other: &Self) {
        self.groups.iter_mut().zip(&other.groups).for_each(|(group, other)| group.add(other));
    }
}

/// The rows that the weights of a layer are multiplied with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rows {
    /// The rows of each sample.
    Linear { depth: usize },
    /// The im2col rows of each image, in NHWC order: `[kh, kw, in]`.
    Im2col { geometry: Geometry, depth: usize },
}

/// Bounds of the number of rows taken from each sample, spread evenly, as neighbouring rows of an image are nearly equal.
/// Within them it is the depth.
const ROWS: [usize; 2] = [32, 256];

/// The largest number of rows taken from each sample of a depthwise convolution, whose depth is small.
const DEPTHWISE_ROWS: usize = 32;

impl Rows {
    /// The rows of a layer. `None` for other nodes.
    pub(super) fn new(graph: &Graph, node: &Node) -> Option<Self> {
        let shape = |name: &str| graph.shape(name).unwrap_or_default();
        let weights = shape(weights_of(node)?);
        let depth: usize = weights[1..].iter().product();
        let operator::Layer { window, groups } = node.operator().layer()?;
        Some(match *weights {
            [_, _, height, width] => {
                let (x, y) = (shape(&node.inputs[0]), shape(&node.output));
                Rows::Im2col { geometry: Geometry::new([height, width], &window, groups, x, y), depth }
            }
            _ => Rows::Linear { depth },
        })
    }

    /// The moments of no rows.
    pub(super) fn moments(&self) -> LayerMoments {
        match *self {
            Rows::Linear { depth } => LayerMoments::new(1, depth),
            Rows::Im2col { geometry, depth } => LayerMoments::new(geometry.groups, depth),
        }
    }

    /// Adds the rows of one sample.
    pub(super) fn observe(&self, sample: &[f32], moments: &mut LayerMoments, scratch: &mut Scratch) -> Result<()> {
        let depth = moments.depth();
        let spread = |rows: usize| {
            let step = rows.div_ceil(depth.clamp(ROWS[0], ROWS[1])).max(1);
            (rows.div_ceil(step), step)
        };
        let Scratch { rows, sums } = scratch;
        match self {
            Rows::Linear { depth } => {
                let (count, step) = spread(sample.len() / (*depth).max(1));
                let chosen = sample.chunks_exact((*depth).max(1)).step_by(step);
                let rows = resized(rows, count * depth);
                rows.chunks_exact_mut((*depth).max(1)).zip(chosen).for_each(|(to, row)| to.copy_from_slice(row));
                moments.groups[0].add_sample(rows, sums)
            }
            Rows::Im2col { geometry, .. } if geometry.is_depthwise() => {
                // One group of all channels has rows in which the channels of each tap are contiguous.
                let (geometry, channels) = (Geometry { groups: 1, ..*geometry }, moments.groups.len());
                let step = geometry.output_pixels().div_ceil(DEPTHWISE_ROWS).max(1);
                let rows = resized(rows, geometry.output_pixels().div_ceil(step) * depth * channels);
                for (i, row) in rows.chunks_exact_mut((depth * channels).max(1)).enumerate() {
                    geometry.im2col(sample, 0, i * step, row, 0.0);
                }
                InputStatistics::add_depthwise(&mut moments.groups, depth, rows, sums);
                Ok(())
            }
            Rows::Im2col { geometry, .. } => {
                let (count, step) = spread(geometry.output_pixels());
                let rows = resized(rows, count * depth);
                for (group, moments) in moments.groups.iter_mut().enumerate() {
                    for (i, row) in rows.chunks_exact_mut(depth.max(1)).enumerate() {
                        geometry.im2col(sample, group, i * step, row, 0.0);
                    }
                    moments.add_sample(rows, sums)?;
                }
                Ok(())
            }
        }
    }
}

/// Memory that observations reuse.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    rows: Vec<f32>,
    sums: SumScratch,
}
