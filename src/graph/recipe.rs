//! Quantization recipes: the precision, scheme and range of every tensor.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use ndarray::{ArrayD, ArrayRef, Axis, IxDyn};

use super::collect::{map_of, set_of};
use super::network::{Graph, Node};
use crate::element::{Code, Element, I2, I4};
use crate::error::{Error, ParamsError, Result, check_count};
use crate::granularity::Granularity;
use crate::qparams::QParams;
use crate::range::Ranges;
use crate::scheme::Scheme;

/// The storage type of a tensor in a quantized network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Precision {
    /// 2-bit codes, for weights only: `-2..=1` in groups, `-1..=1` per channel or per tensor.
    Int2,
    /// 4-bit codes, for weights only.
    Int4,
    /// 8-bit codes: `i8` for weights, `u8` for activations.
    Int8,
    /// Half precision (`f16`), for weights only.
    Float16,
    /// `f32`.
    Float32,
}

impl Precision {
    pub(crate) fn is_code(self) -> bool {
        matches!(self, Precision::Int2 | Precision::Int4 | Precision::Int8)
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Precision::Int2 => "Int2",
            Precision::Int4 => "Int4",
            Precision::Int8 => "Int8",
            Precision::Float16 => "Float16",
            Precision::Float32 => "Float32",
        })
    }
}

/// Precision, scheme and range of one tensor.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TensorRecipe {
    /// Storage type.
    pub precision: Precision,
    /// Symmetric scheme: the zero point is 0. Weights per tensor or per channel are symmetric unless their parameters are
    /// `given`; weights in groups are either.
    pub symmetric: bool,
    /// Blocks of elements that share a scale: per tensor for activations; per tensor, per output channel (axis 0), or, in
    /// linear layers, in groups along the depth (axis 1) for weights.
    pub granularity: Granularity,
    /// The smallest and the largest representable value of each block, in row-major order. Values beyond them are clipped.
    pub ranges: Vec<(f32, f32)>,
    /// Scales and zero points that are given, for instance by a file. They take the place of `symmetric` and `ranges`.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub given: Option<GivenParams>,
}

/// Scales and zero points of a tensor that another system has quantized.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GivenParams {
    /// The scale of each block.
    pub scales: Vec<f32>,
    /// The zero point of each block: a code of `u8` for activations, of `i8` for weights.
    pub zero_points: Vec<i32>,
    /// The activation is of `i8` in that system; here its codes and zero points are greater by 128. Sums, products and
    /// means add the zero point before they round, so that the same bits need the zero point of `i8`.
    pub signed: bool,
}

impl GivenParams {
    /// The smallest and the largest value of each block, for codes in `min..=max`.
    #[cfg(feature = "onnx")]
    pub(crate) fn ranges(&self, min: i32, max: i32) -> Vec<(f32, f32)> {
        let value = |code: i32, (scale, zero): (&f32, &i32)| (code - zero) as f32 * scale;
        self.scales.iter().zip(&self.zero_points).map(|block| (value(min, block), value(max, block))).collect()
    }

    /// The parameters of a tensor of this shape.
    fn params<T: Element>(&self, granularity: Granularity, shape: &[usize]) -> Result<QParams<T>> {
        let grid = granularity.params_shape(shape)?;
        let array = |values: Vec<T::Code>| ArrayD::from_shape_vec(IxDyn(&grid), values);
        let in_range = |&&zero: &&i32| !(T::MIN..=T::MAX).contains(&zero);
        if let Some(&found) = self.zero_points.iter().find(in_range) {
            return Err(ParamsError::ZeroPoint { min: T::MIN.into(), max: T::MAX.into(), found: found.into() }.into());
        }
        let scales = ArrayD::from_shape_vec(IxDyn(&grid), self.scales.clone());
        let zero_points = array(self.zero_points.iter().map(|&zero| T::Code::from_i32(zero)).collect());
        let count = || check_count("zero points, one for each scale", self.scales.len(), self.zero_points.len());
        let (Ok(scales), Ok(zero_points)) = (scales, zero_points) else {
            count()?;
            return Err(Error::shape("scales", &grid, &[self.scales.len()]));
        };
        QParams::new(granularity, scales, Some(zero_points))
    }
}

/// The quantization of a network: precision, scheme and range of each tensor by name, and the layers that stay in float.
///
/// [`Calibration::recipe`](super::Calibration::recipe) and [`Graph::calibrate`] make one from data, [`Recipe::float16`]
/// and [`Recipe::dynamic_range`] make one without. Read it (it prints as a table), edit it, save it (feature `serde`), and
/// pass it to [`Graph::quantize`].
///
/// The tensors decide the arithmetic of each node:
///
/// | weights | inputs | arithmetic |
/// |---|---|---|
/// | `Int8`, `Int4` or `Int2` | `Int8` | integer; the output is requantized, or dequantized if it is `Float32` |
/// | `Int8`, `Int4` or `Int2` | `Float32` | integer, with each input quantized by its own range (dynamic range) |
/// | the same in groups | any | integer within a group, with each group of the input quantized by its own range |
/// | the same, listed in [`weight_only_layers`](Self::weight_only_layers) | any | float; weights are widened in registers |
/// | `Float16` or `Float32` | any | float |
/// | none | `Int8`, and so is the output | integer |
/// | none | otherwise | float |
///
/// A tensor that the recipe does not list is `Float32`.
///
/// ```
/// use ndarray::array;
/// use ndarray_quant::graph::{GraphBuilder, Precision, Recipe};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 2])?;
/// let x = g.linear("a", x, &array![[7.0, 2.0], [0.0, -7.0]], None)?;
/// let y = g.linear("b", x, &array![[1.0, 1.0]], None)?;
/// let graph = g.build(&[y])?;
///
/// let mut recipe = Recipe::dynamic_range(&graph)?;
/// assert_eq!(recipe.tensors["a.weight"].ranges, [(2.0, 7.0), (-7.0, 0.0)]); // one per output channel
/// recipe.tensor_mut("a.weight")?.precision = Precision::Int4;
/// recipe.float_layers.insert("b".into());
/// println!("{recipe}");
/// // tensor    precision  scheme      granularity    range
/// // a.weight  Int4       symmetric   axis 0 (2)     -7..7
/// // b.weight  Int8       symmetric   axis 0 (1)     1..1
/// // layers in float: b
///
/// let network = graph.quantize(&recipe)?;
/// assert!((network.run(&array![[1.0f32, 0.0]])?[[0, 0]] - 7.0).abs() < 0.05);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Recipe {
    /// Activations and weights, by the name of the tensor.
    pub tensors: BTreeMap<String, TensorRecipe>,
    /// Nodes that compute in float whatever their tensors are, by the name of their output tensor. Their weights stay in
    /// `f32` too.
    pub float_layers: BTreeSet<String>,
    /// Linear layers that compute in float with weights that stay codes, by the name of their output tensor (torchao:
    /// weight-only quantization; ONNX Runtime: `MatMulNBits` with an `accuracy_level` below 4).
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "BTreeSet::is_empty"))]
    pub weight_only_layers: BTreeSet<String>,
}

impl Recipe {
    /// Weights of convolutions and linear layers in half precision, everything else in `f32`. Needs no data.
    ///
    /// [`Graph::quantize`] returns [`Error::Value`] for weights whose magnitude exceeds 65504.
    pub fn float16(graph: &Graph) -> Self {
        let half = || TensorRecipe {
            precision: Precision::Float16,
            symmetric: true,
            granularity: Granularity::PerTensor,
            ranges: Vec::new(),
            given: None,
        };
        let tensors = map_of(weights(graph).map(|(_, name)| (name.clone(), half())));
        Self { tensors, ..Self::default() }
    }

    /// Dynamic range: weights as `i8` per output channel; a layer quantizes each sample of its input by its own range.
    /// Needs no data.
    ///
    /// # Errors
    /// [`Error::Graph`] for the graph of a quantized network.
    pub fn dynamic_range(graph: &Graph) -> Result<Self> {
        graph.check_float()?;
        let mut tensors = BTreeMap::new();
        for (_, name) in weights(graph) {
            let weights = graph.constant(name).expect("weights are constants");
            tensors.insert(name.clone(), TensorRecipe::weights(weights, Precision::Int8)?);
        }
        Ok(Self { tensors, ..Self::default() })
    }

    /// Weights of linear layers in groups of `size` along the depth, symmetric, in 2, 4 or 8 bits; other weights as in
    /// [`dynamic_range`](Self::dynamic_range). A layer quantizes each group of its input by its own range, unless
    /// [`weight_only_layers`](Self::weight_only_layers) lists it. Needs no data.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// use ndarray_quant::graph::{GraphBuilder, Precision, Recipe};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 64])?;
    /// let weights = Array2::from_shape_fn((8, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin());
    /// let y = g.linear("y", x, &weights, None)?;
    /// let graph = g.build(&[y])?;
    /// let x = Array2::from_shape_fn((3, 64), |(n, i)| ((n * 64 + i) as f32 * 0.3).cos());
    ///
    /// let mut recipe = Recipe::weights_in_groups(&graph, Precision::Int4, 32)?;
    /// let dynamic = graph.quantize(&recipe)?;
    /// recipe.weight_only_layers.insert("y".into());
    /// let weight_only = graph.quantize(&recipe)?;
    /// let (a, b) = (dynamic.run(&x)?, weight_only.run(&x)?);
    /// assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 0.1));
    /// assert_eq!(dynamic.weights_size_in_bytes(), 8 * 64 / 2 + 8 * 2 * 4); // codes, and a scale for each group
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for another precision, [`Error::Params`] for groups of 0 weights, [`Error::Graph`] for the graph of a quantized network.
    pub fn weights_in_groups(graph: &Graph, precision: Precision, size: usize) -> Result<Self> {
        if !precision.is_code() {
            let found = precision.to_string();
            return Err(Error::Argument {
                what: "precision of weights in groups",
                expected: "Int2, Int4 or Int8",
                found,
            });
        }
        let granularity = Granularity::per_group(Axis(1), size);
        granularity.params_shape(&[1, 1])?;
        let mut recipe = Self::dynamic_range(graph)?;
        for (node, name) in weights(graph) {
            let weights = graph.constant(name).expect("weights are constants");
            if takes_groups(node, weights.shape()) {
                recipe.tensors.insert(name.clone(), TensorRecipe::of_blocks(weights, precision, granularity)?);
            }
        }
        Ok(recipe)
    }

    /// The precision of a tensor.
    pub fn precision(&self, name: &str) -> Precision {
        self.tensors.get(name).map_or(Precision::Float32, |t| t.precision)
    }

    /// The size of ranges and given parameters in memory.
    pub(crate) fn size_in_bytes(&self) -> usize {
        self.tensors.values().map(TensorRecipe::size_in_bytes).sum()
    }

    /// The recipe of a tensor, to be edited.
    ///
    /// # Errors
    /// [`Error::Graph`], with similar names, if the recipe does not list the tensor.
    pub fn tensor_mut(&mut self, name: &str) -> Result<&mut TensorRecipe> {
        if !self.tensors.contains_key(name) {
            return Err(Error::unknown("tensor of the recipe", name, self.tensors.keys()));
        }
        Ok(self.tensors.get_mut(name).expect("the recipe lists it"))
    }

    /// Returns an error for names that the graph does not have, and for ranges that do not fit its tensors.
    pub(crate) fn check(&self, graph: &Graph) -> Result<()> {
        for name in &self.float_layers {
            if graph.node(name).is_none() {
                let layers = graph.nodes().iter().map(|node| &node.output);
                return Err(Error::unknown("layer (the name of its output tensor)", name, layers));
            }
        }
        for (name, tensor) in &self.tensors {
            let shape = graph.shape(name);
            let shape = shape.ok_or_else(|| Error::unknown("tensor", name, graph.tensor_names()))?;
            tensor.check(shape, graph.is_constant(name)).map_err(|e| e.at(name))?;
        }
        for (node, name) in weights(graph) {
            let shape = graph.shape(name).unwrap_or_default();
            let in_groups = self.tensors.get(name).is_some_and(TensorRecipe::is_in_groups);
            if in_groups && !takes_groups(node, shape) {
                let (what, expected) = ("weights in groups", "weights of a linear layer");
                return Err(Error::Argument { what, expected, found: node.op.name().into() }.at(&node.output));
            }
        }
        for name in &self.weight_only_layers {
            let node = graph.node(name);
            let linear = node.filter(|node| {
                let shape = weights_of(node).and_then(|weights| graph.shape(weights));
                shape.is_some_and(|shape| takes_groups(node, shape))
            });
            if linear.is_none() {
                let found = node.map_or_else(|| "no node".into(), |node| node.op.name().to_string());
                let (what, expected) = ("layer of weight_only_layers", "a linear layer");
                return Err(Error::Argument { what, expected, found }.at(name));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Recipe {
    /// A table with one tensor per line. The range of a tensor with several blocks spans them all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.tensors.keys().map(|name| name.chars().count()).max().unwrap_or(0).max("tensor".len());
        let columns = ["tensor", "precision", "scheme", "granularity", "range"];
        let mut row = |[name, precision, scheme, granularity, range]: [&str; 5]| {
            writeln!(f, "{name:width$}  {precision:9}  {scheme:10}  {granularity:13}  {range}")
        };
        row(columns)?;
        for (name, tensor) in &self.tensors {
            let precision = tensor.precision.to_string();
            let scheme = match (&tensor.given, tensor.symmetric) {
                (Some(_), _) => "given",
                (None, true) => "symmetric",
                (None, false) => "asymmetric",
            };
            let granularity = match tensor.granularity {
                Granularity::PerTensor => "per tensor".to_string(),
                Granularity::PerAxis { axis } => alloc::format!("axis {axis} ({})", tensor.ranges.len()),
                Granularity::PerGroup { axis, size } => alloc::format!("axis {axis} by {size}"),
            };
            let (low, high) = tensor
                .ranges
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), r| (low.min(r.0), high.max(r.1)));
            let range = if tensor.ranges.is_empty() { "-".to_string() } else { alloc::format!("{low}..{high}") };
            if tensor.precision.is_code() {
                row([name, &precision, scheme, &granularity, &range])?;
            } else {
                row([name, &precision, "-", "-", &range])?;
            }
        }
        if !self.float_layers.is_empty() {
            let names: Vec<&str> = self.float_layers.iter().map(String::as_str).collect();
            writeln!(f, "layers in float: {}", names.join(", "))?;
        }
        if !self.weight_only_layers.is_empty() {
            let names: Vec<&str> = self.weight_only_layers.iter().map(String::as_str).collect();
            writeln!(f, "layers with weights in codes only: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// The name of a node's weights, if its operator has weights that can be quantized.
pub(crate) fn weights_of(node: &Node) -> Option<&String> {
    let operator = node.operator();
    node.inputs.get(1).filter(|_| operator.layer().is_some() || operator.has_recurrent_weights())
}

/// Returns whether a node takes weights of this shape in groups along the depth: whether it is a linear layer.
fn takes_groups(node: &Node, weights: &[usize]) -> bool {
    node.operator().layer().is_some() && weights.len() == 2
}

/// The names of tensors that are an output of the graph or an input other than the weights of a layer.
pub(crate) fn read_as_non_weights(graph: &Graph) -> BTreeSet<&str> {
    let of_node = |node| {
        let weights = weights_of(node).is_some();
        node.inputs.iter().enumerate().filter(move |(i, _)| !(weights && *i == 1)).map(|(_, name)| name)
    };
    set_of(graph.nodes().iter().flat_map(of_node).chain(graph.outputs()).map(String::as_str))
}

/// The nodes with weights that can be quantized, and the names of the weights.
pub(crate) fn weights(graph: &Graph) -> impl Iterator<Item = (&Node, &String)> {
    graph.nodes().iter().filter_map(|node| Some((node, weights_of(node)?)))
}

impl TensorRecipe {
    /// An activation as `u8` codes: asymmetric, per tensor, for values in `min..=max`.
    pub fn activation(min: f32, max: f32) -> Self {
        let ranges = alloc::vec![(min, max)];
        Self { precision: Precision::Int8, symmetric: false, granularity: Granularity::PerTensor, ranges, given: None }
    }

    /// Weights in this precision: symmetric, per output channel (axis 0), with the range of each channel.
    ///
    /// # Errors
    /// [`Error::Value`] if a weight is NaN or infinite, [`Error::Shape`] for a tensor of rank 0.
    pub fn weights(weights: &ArrayRef<f32, IxDyn>, precision: Precision) -> Result<Self> {
        Self::of_blocks(weights, precision, Granularity::per_axis(Axis(0)))
    }

    /// Weights in this precision: symmetric, with the range of each block.
    fn of_blocks(weights: &ArrayRef<f32, IxDyn>, precision: Precision, granularity: Granularity) -> Result<Self> {
        let ranges = Ranges::of(weights, granularity)?;
        let ranges = ranges.min().iter().zip(ranges.max()).map(|(&min, &max)| (min, max)).collect();
        Ok(Self { precision, symmetric: true, granularity, ranges, given: None })
    }

    /// The size of ranges and given parameters in memory.
    fn size_in_bytes(&self) -> usize {
        let given = self.given.as_ref();
        let given = given.map_or(0, |given| size_of_val(&given.scales[..]) + size_of_val(&given.zero_points[..]));
        size_of_val(&self.ranges[..]) + given
    }

    /// Checks the recipe against the shape of its tensor.
    fn check(&self, shape: &[usize], constant: bool) -> Result<()> {
        self.ranges.iter().try_for_each(|&(min, max)| crate::affine::check_range(min, max))?;
        let quantized = self.precision.is_code();
        if !constant && !matches!(self.precision, Precision::Int8 | Precision::Float32) {
            let found = self.precision.to_string();
            return Err(Error::Argument { what: "precision of an activation", expected: "Int8 or Float32", found });
        }
        if !quantized {
            return Ok(());
        }
        let blocks = match self.granularity {
            Granularity::PerTensor => 1,
            Granularity::PerAxis { axis: 0 } if constant => shape.first().copied().unwrap_or(1),
            Granularity::PerGroup { axis: 1, .. } if constant && shape.len() == 2 => {
                self.granularity.params_shape(shape)?.iter().product()
            }
            found => {
                let expected = if constant { Granularity::per_axis(Axis(0)) } else { Granularity::PerTensor };
                return Err(ParamsError::Granularity {
                    what: if constant { "weights" } else { "an activation" },
                    expected,
                    found,
                }
                .into());
            }
        };
        if let Some(given) = &self.given {
            check_count("number of scales, one for each block", blocks, given.scales.len())?;
            return match constant {
                // Weights, or an operand.
                true => self.weight_params::<i8>(shape).map(drop).or_else(|_| self.activation_params().map(drop)),
                false => self.activation_params().map(drop),
            };
        }
        if constant && !self.symmetric && !self.is_in_groups() {
            let found = "asymmetric".into();
            return Err(Error::Argument { what: "scheme of weights", expected: "symmetric", found });
        }
        check_count("number of ranges, one for each block", blocks, self.ranges.len())
    }

    pub(crate) fn is_in_groups(&self) -> bool {
        matches!(self.granularity, Granularity::PerGroup { .. })
    }

    /// The scheme of an activation.
    pub(crate) fn activation_scheme(&self) -> Scheme<u8> {
        if self.symmetric { Scheme::symmetric() } else { Scheme::asymmetric() }
    }

    /// The parameters of an activation.
    pub(crate) fn activation_params(&self) -> Result<QParams<u8>> {
        if let Some(given) = &self.given {
            return given.params(self.granularity, &[]);
        }
        let (min, max) = self.ranges.first().copied().unwrap_or_default();
        self.activation_scheme().params_from_range(min, max)
    }

    /// The scheme of weights. In groups it has all codes; otherwise the smallest code is left out.
    pub(crate) fn weight_scheme<T: Element>(&self) -> Scheme<T> {
        match (self.is_in_groups(), self.symmetric) {
            (true, false) => Scheme::asymmetric(),
            (true, true) => Scheme::symmetric(),
            (false, _) => Scheme::symmetric().narrow_range(),
        }
    }

    /// The parameters of weights of this shape.
    pub(crate) fn weight_params<T: Element>(&self, shape: &[usize]) -> Result<QParams<T>> {
        if let Some(given) = &self.given {
            return given.params(self.granularity, shape);
        }
        let grid = self.granularity.params_shape(shape)?;
        check_count("number of ranges, one for each block", grid.iter().product(), self.ranges.len())?;
        let bound = |f: fn(&(f32, f32)) -> f32| {
            let bounds = self.ranges.iter().map(f).collect();
            ArrayD::from_shape_vec(&grid[..], bounds).expect("the number of ranges was checked")
        };
        let ranges = Ranges::new(self.granularity, bound(|range| range.0), bound(|range| range.1))?;
        self.weight_scheme::<T>().params_from_ranges(&ranges)
    }

    /// The largest code of weights.
    pub(crate) fn max_code(&self) -> f64 {
        match self.precision {
            Precision::Int2 => I2::MAX.into(),
            Precision::Int4 => I4::MAX.into(),
            _ => i8::MAX.into(),
        }
    }
}
