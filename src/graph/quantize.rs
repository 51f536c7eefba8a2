//! Float network and recipe → weights in fewer bits.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use ndarray::{ArrayD, Axis};

use super::moments::InputStatistics;
use super::network::{Constant, Graph, Node, Parts};
use super::qnetwork::QuantizedNetwork;
use super::recipe::{Precision, Recipe, TensorRecipe, read_otherwise};
use super::rounding;
use super::stored::Stored;
use crate::element::{Element, I4, Storage};
use crate::error::Result;
use crate::gemm::Int8Bits;
use crate::granularity::Granularity;
use crate::qtensor::QTensor;

impl Graph {
    /// The network that a recipe describes: each weight rounded to the nearest code.
    ///
    /// Where a bias would leave the accumulator, the scale of its channel's weights is widened until it fits; the
    /// network's own [recipe](QuantizedNetwork::recipe) has the ranges that were used. See
    /// [`Calibration`](super::Calibration) for an example.
    ///
    /// # Errors
    /// [`Error::Name`](crate::Error::Name) for names that the graph does not have, [`Error::Node`](crate::Error::Node)
    /// with what is wrong with a tensor of the recipe, or with [`Error::Depth`](crate::Error::Depth) for layers that
    /// are too deep for exact `i32` accumulators, and with [`Error::Overflow`](crate::Error::Overflow) for weights
    /// beyond half precision.
    pub fn quantize(&self, recipe: &Recipe) -> Result<QuantizedNetwork> {
        self.quantize_by(recipe, None)
    }

    /// As [`quantize`](Self::quantize), with weights rounded so that the outputs of each layer err least on what was
    /// seen of its inputs, and with biases that make up for the mean error that remains, see [`InputStatistics`].
    ///
    /// # Errors
    /// Those of [`quantize`](Self::quantize).
    pub fn quantize_tuned(&self, recipe: &Recipe, seen: &InputStatistics) -> Result<QuantizedNetwork> {
        self.quantize_by(recipe, Some(seen))
    }

    fn quantize_by(&self, recipe: &Recipe, seen: Option<&InputStatistics>) -> Result<QuantizedNetwork> {
        recipe.check(self)?;
        let mut recipe = recipe.clone();
        let mut parts = self.clone().into_parts();
        let mut stored = BTreeMap::new();
        let otherwise = read_otherwise(self);
        for node in self.nodes() {
            if recipe.float_layers.contains(&node.name) {
                continue;
            }
            let layer = Layer { graph: self, node, otherwise: &otherwise };
            layer.quantize(&mut recipe, seen, &mut parts, &mut stored).map_err(|e| e.at(&node.name))?;
        }
        // Corrected biases took the place of others.
        let read: BTreeSet<&String> = parts.nodes.iter().flat_map(|node| &node.inputs).chain(&parts.outputs).collect();
        parts.constants.retain(|name, _| read.contains(name));
        QuantizedNetwork::new(Graph::new(parts)?, stored, recipe)
    }
}

/// A node whose weights may become codes.
struct Layer<'g> {
    graph: &'g Graph,
    node: &'g Node,
    /// Names that are read as anything but weights: these stay as they are.
    otherwise: &'g BTreeSet<&'g str>,
}

impl Layer<'_> {
    fn quantize(
        &self,
        recipe: &mut Recipe,
        seen: Option<&InputStatistics>,
        parts: &mut Parts,
        stored: &mut BTreeMap<String, Stored>,
    ) -> Result<()> {
        let Some(name) = super::recipe::weights_of(self.node) else { return Ok(()) };
        let precision = recipe.precision(name);
        // Weights of two nodes are stored once.
        let done = precision == Precision::Float32 || stored.contains_key(name);
        if done || self.otherwise.contains(name.as_str()) {
            return Ok(());
        }
        let weights = self.graph.constant(name).expect("weights are constants");
        let value = match precision {
            Precision::Float16 => Stored::half(weights)?,
            precision => {
                self.widen(recipe, name, weights)?;
                let tensor = &recipe.tensors[name];
                let moments = seen.and_then(|seen| seen.of(&self.node.name));
                let value = match precision {
                    Precision::Int4 => Stored::Int4(codes::<I4>(weights, tensor, moments)?),
                    _ => Stored::Int8(codes::<i8>(weights, tensor, moments)?),
                };
                if let Some(moments) = moments {
                    self.correct_bias(parts, weights, &value.dequantize(), moments);
                }
                value
            }
        };
        parts.constants.remove(name);
        parts.stored.insert(name.clone(), value.shape());
        stored.insert(name.clone(), value);
        Ok(())
    }

    /// Adds what the rounding of weights takes from the mean of each output: `bias + (w - ŵ) · mean(x)`.
    fn correct_bias(&self, parts: &mut Parts, w: &Constant, rounded: &Constant, moments: &rounding::Moments) {
        let lost = moments.mean_error(w, rounded);
        let old = self.node.inputs.get(2).and_then(|name| self.graph.constant(name));
        let bias = lost.iter().enumerate().map(|(c, lost)| (old.map_or(0.0, |b| b[[c]] as f64) + lost) as f32);
        let bias: ndarray::Array1<f32> = bias.collect();
        let name = alloc::format!("{}.corrected.bias", self.node.name);
        parts.constants.insert(name.clone(), bias.into_dyn().into_shared());
        if let Some(node) = parts.nodes.iter_mut().find(|node| node.name == self.node.name) {
            match node.inputs.get_mut(2) {
                Some(bias) => *bias = name,
                None => node.inputs.push(name),
            }
        }
    }

    /// Makes ranges of channels that their bias does not fit, or that are all zeros, wide enough.
    fn widen(&self, recipe: &mut Recipe, name: &str, weights: &Constant) -> Result<()> {
        let tensor = &recipe.tensors[name];
        let greatest_code = tensor.greatest_code();
        let per_tensor = tensor.granularity == Granularity::PerTensor;
        // With a dynamic range the scale of the input is not known; there the bias is added to floats.
        let input = recipe.tensors.get(&self.node.inputs[0]).filter(|t| t.precision == Precision::Int8);
        let input = input.map(|t| t.activation_params::<ndarray::Ix1>()).transpose()?;
        let bias = self.node.inputs.get(2).and_then(|name| self.graph.constant(name));
        let tensor = recipe.tensor_mut(name)?;
        let widest = tensor.ranges.iter().fold(0f32, |widest, (min, max)| widest.max(max.max(-min)));
        for (min, max) in &mut tensor.ranges {
            if *min == 0.0 && *max == 0.0 && widest > 0.0 {
                (*min, *max) = (-widest, widest);
            }
        }
        let (Some(input), Some(bias)) = (input, bias) else { return Ok(()) };
        let depth: usize = weights.shape()[1..].iter().product();
        let zero_point = input.zero_point().map_or(0, |z| z[0]);
        let reach = u8::max_abs_diff(zero_point) * i8::max_abs_diff(0) * depth as i64;
        // Some room, because scales are rounded; a product that leaves none is refused when the layer is made.
        let room = ((i64::from(i32::MAX) - reach) as f64 * 0.999).max(1.0);
        let scale = input.scale()[0] as f64;
        for (c, bias) in bias.iter().enumerate() {
            let (min, max) = &mut tensor.ranges[if per_tensor { 0 } else { c }];
            let needed = (bias.abs() as f64 / (scale * room) * greatest_code) as f32;
            (*min, *max) = (min.min(-needed), max.max(needed));
        }
        Ok(())
    }
}

/// The codes of weights: the nearest, or those that err least on what was seen.
fn codes<T: Element<Code = i8>>(
    weights: &Constant,
    tensor: &TensorRecipe,
    seen: Option<&rounding::Moments>,
) -> Result<QTensor<T, ndarray::IxDyn>> {
    let params = tensor.weight_params::<T>(weights.ndim())?;
    let mut codes = ArrayD::<i8>::zeros(weights.raw_dim());
    params.quantize_into(weights, &mut codes)?;
    if let Some(moments) = seen {
        let scales = params.scale().iter().copied();
        let scales: alloc::vec::Vec<f32> = scales.cycle().take(weights.len_of(Axis(0))).collect();
        moments.round(weights, &scales, params.code_range(), &mut codes);
    }
    QTensor::new(T::Storage::from_codes(codes), params)
}
