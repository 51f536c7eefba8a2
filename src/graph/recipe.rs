//! What is to be quantized, and how: to be read, saved and edited before it is carried out.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array, ArrayD, ArrayRef, Axis, IxDyn};

use super::network::{Graph, Node};
use super::op::Op;
use crate::element::{Element, I4};
use crate::error::{Error, Result};
use crate::granularity::Granularity;
use crate::qparams::QParams;
use crate::range::Ranges;
use crate::scheme::Scheme;

/// How precisely a tensor is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Precision {
    /// `I4` codes. Weights only.
    Int4,
    /// `i8` codes of weights, `u8` codes of activations.
    Int8,
    /// `f16`. Weights only.
    Float16,
    /// `f32`.
    Float32,
}

/// How one tensor is kept.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TensorRecipe {
    /// How precisely.
    pub precision: Precision,
    /// Whether codes are centred on zero.
    pub symmetric: bool,
    /// Which elements share a range: all of an activation; all of some weights, or those of an output channel (axis 0).
    pub granularity: Granularity,
    /// The smallest and the greatest value that has a code, for each block.
    pub ranges: Vec<(f32, f32)>,
}

/// How each tensor of a network is kept, by its name, and which operators stay in float whatever their tensors are.
///
/// What a node computes in follows from its tensors:
///
/// | weights | inputs | the node |
/// |---|---|---|
/// | `Int8` or `Int4` | `Int8` | multiplies codes; its output is requantized, or becomes floats if that is `Float32` |
/// | `Int8` or `Int4` | `Float32` | quantizes its input by the range that this has (dynamic range) |
/// | `Float16` or `Float32` | any | multiplies floats |
/// | none | `Int8`, and so is its output | works on codes |
/// | none | else | works on floats |
///
/// Names of what is not mentioned stay in `f32`. With the feature `serde` a recipe can be saved, and edited as text.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::{GraphBuilder, Precision, Recipe};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let x = g.linear("a", &x, &array![[7.0, 2.0], [0.0, -7.0]], None)?;
/// let x = g.linear("b", &x, &array![[1.0, 1.0]], None)?;
/// let graph = g.build(&[&x])?;
/// let mut recipe = Recipe::dynamic_range(&graph)?;
/// assert_eq!(recipe.tensors["a.weight"].ranges, [(2.0, 7.0), (-7.0, 0.0)]); // by output channel
/// recipe.tensor_mut("a.weight")?.precision = Precision::Int4;
/// recipe.float_layers.insert("b".into());
/// let network = graph.quantize(&recipe)?;
/// assert!((network.run(&array![[1.0f32, 0.0]])?[[0, 0]] - 7.0).abs() < 0.05);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recipe {
    /// Activations and weights.
    pub tensors: BTreeMap<String, TensorRecipe>,
    /// The names of nodes that compute in floats. Their weights stay in `f32` too.
    pub float_layers: BTreeSet<String>,
}

impl Recipe {
    /// Weights in half precision, all else in `f32`. Needs no data. [`Graph::quantize`] refuses weights beyond 65504.
    pub fn float16(graph: &Graph) -> Self {
        let half = || TensorRecipe {
            precision: Precision::Float16,
            symmetric: true,
            granularity: Granularity::PerTensor,
            ranges: Vec::new(),
        };
        let tensors = weights(graph).map(|(_, name)| (name.clone(), half())).collect();
        Self { tensors, float_layers: BTreeSet::new() }
    }

    /// Weights as `i8` per output channel, each input quantized when it is seen. Needs no data.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a weight is not finite.
    pub fn dynamic_range(graph: &Graph) -> Result<Self> {
        let recipe = |(_, name): (&Node, &String)| {
            let weights = graph.constant(name).expect("weights are constants");
            Ok((name.clone(), TensorRecipe::weights(weights, Precision::Int8)?))
        };
        Ok(Self { tensors: weights(graph).map(recipe).collect::<Result<_>>()?, float_layers: BTreeSet::new() })
    }

    /// How precisely a tensor is kept.
    pub fn precision(&self, name: &str) -> Precision {
        self.tensors.get(name).map_or(Precision::Float32, |t| t.precision)
    }

    /// The recipe of a tensor, to be edited.
    ///
    /// # Errors
    /// [`Error::Name`] if it is not mentioned.
    pub fn tensor_mut(&mut self, name: &str) -> Result<&mut TensorRecipe> {
        let unknown = || Error::Name { what: "tensor", expected: "one that the recipe mentions", found: name.into() };
        self.tensors.get_mut(name).ok_or_else(unknown)
    }

    /// Refuses names that the graph does not have, and ranges that its tensors cannot have.
    pub(crate) fn check(&self, graph: &Graph) -> Result<()> {
        for name in &self.float_layers {
            if graph.node(name).is_none() {
                return Err(Error::Name { what: "node", expected: "one of the graph", found: name.clone() });
            }
        }
        for (name, tensor) in &self.tensors {
            let shape = graph.shape(name);
            let shape = shape.ok_or_else(|| Error::Name {
                what: "tensor",
                expected: "one of the graph",
                found: name.clone(),
            })?;
            tensor.check(shape, graph.is_constant(name)).map_err(|e| e.at(name))?;
        }
        Ok(())
    }
}

/// The name of the weights that can be quantized, if the node has some.
pub(crate) fn weights_of(node: &Node) -> Option<&String> {
    if matches!(node.op, Op::Conv { .. } | Op::Linear) { node.inputs.get(1) } else { None }
}

/// The names of tensors that are read as anything but the weights of layers.
pub(crate) fn read_otherwise(graph: &Graph) -> BTreeSet<&str> {
    let of_node = |node| {
        let weights = weights_of(node).is_some();
        node.inputs.iter().enumerate().filter(move |(i, _)| !(weights && *i == 1)).map(|(_, name)| name)
    };
    graph.nodes().iter().flat_map(of_node).chain(graph.outputs()).map(String::as_str).collect()
}

/// Nodes with weights that can be quantized, and the names of those.
pub(crate) fn weights(graph: &Graph) -> impl Iterator<Item = (&Node, &String)> {
    graph.nodes().iter().filter_map(|node| Some((node, weights_of(node)?)))
}

impl TensorRecipe {
    /// `u8` codes of an activation for this range, asymmetric, one scale for all of it.
    pub fn activation(min: f32, max: f32) -> Self {
        let ranges = alloc::vec![(min, max)];
        Self { precision: Precision::Int8, symmetric: false, granularity: Granularity::PerTensor, ranges }
    }

    /// Symmetric codes of weights in this precision, for the range of each output channel, axis 0.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if a weight is not finite.
    pub fn weights(weights: &ArrayRef<f32, IxDyn>, precision: Precision) -> Result<Self> {
        let granularity = Granularity::per_axis(Axis(0));
        let ranges = Ranges::of(weights, granularity)?;
        let ranges = ranges.min().iter().zip(ranges.max()).map(|(&min, &max)| (min, max)).collect();
        Ok(Self { precision, symmetric: true, granularity, ranges })
    }

    fn check(&self, shape: &[usize], constant: bool) -> Result<()> {
        self.ranges.iter().try_for_each(|&(min, max)| crate::affine::check_range(min, max))?;
        let coded = matches!(self.precision, Precision::Int4 | Precision::Int8);
        if !constant && !matches!(self.precision, Precision::Int8 | Precision::Float32) {
            let found = alloc::format!("{:?}", self.precision);
            return Err(Error::Argument { what: "precision of an activation", expected: "Int8 or Float32", found });
        }
        if !coded {
            return Ok(());
        }
        let blocks = match self.granularity {
            Granularity::PerTensor => 1,
            Granularity::PerAxis { axis: 0 } if constant => shape.first().copied().unwrap_or(1),
            found => {
                let expected = if constant { Granularity::per_axis(Axis(0)) } else { Granularity::PerTensor };
                return Err(Error::Granularity { expected, found });
            }
        };
        if constant && !self.symmetric {
            let found = "asymmetric".into();
            return Err(Error::Argument { what: "scheme of weights", expected: "symmetric", found });
        }
        if self.ranges.len() != blocks {
            return Err(Error::shape("ranges", &[blocks], &[self.ranges.len()]));
        }
        Ok(())
    }

    /// The scheme of an activation.
    pub(crate) fn activation_scheme(&self) -> Scheme<u8> {
        if self.symmetric { Scheme::symmetric() } else { Scheme::asymmetric() }
    }

    /// The parameters of an activation, for tensors of any shape.
    pub(crate) fn activation_params<D: ndarray::Dimension>(&self) -> Result<QParams<u8, D>> {
        let (min, max) = self.ranges.first().copied().unwrap_or_default();
        self.activation_scheme().params_from_range(min, max)
    }

    /// The parameters of weights with this many axes.
    pub(crate) fn weight_params<T: Element>(&self, ndim: usize) -> Result<QParams<T, IxDyn>> {
        let scheme = Scheme::<T>::symmetric().narrow_range();
        if self.granularity == Granularity::PerTensor {
            let (min, max) = self.ranges.first().copied().unwrap_or_default();
            return scheme.params_from_range(min, max);
        }
        let mut grid = alloc::vec![1; ndim];
        grid[0] = self.ranges.len();
        let bounds = |f: fn(&(f32, f32)) -> f32| -> ArrayD<f32> {
            Array::from_shape_vec(IxDyn(&grid), self.ranges.iter().map(f).collect()).expect("one for each channel")
        };
        scheme.params_from_ranges(&Ranges::new(self.granularity, bounds(|r| r.0), bounds(|r| r.1))?)
    }

    /// The greatest magnitude of a code of weights.
    pub(crate) fn greatest_code(&self) -> f64 {
        if self.precision == Precision::Int4 { I4::MAX.into() } else { i8::MAX.into() }
    }
}
