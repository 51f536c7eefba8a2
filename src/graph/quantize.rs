//! Quantizes the weights of a float graph by a recipe.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use ndarray::Array1;

use super::calibrate::Calibration;
use super::collect::set_of;
use super::network::{Constant, FreshNames, Graph, Node, Parts};
use super::qnetwork::QuantizedNetwork;
use super::recipe::{Precision, Recipe, read_as_non_weights, weights_of};
use super::stored::Stored;
use super::weight_rounding::{WeightRounding, mean_error, round};
use crate::element::{I2, I4};
use crate::error::Result;
use crate::gemm::Int8Bits;
use crate::granularity::Granularity;

/// A way to quantize a network, for [`Graph::quantize`]: a [`Recipe`], or [`FullInteger`](super::FullInteger), which finds one.
pub trait Quantization {
    /// Quantizes the network.
    ///
    /// # Errors
    /// Any error of the implementing type.
    fn quantize(&self, graph: &Graph) -> Result<QuantizedNetwork>;
}

impl Quantization for Recipe {
    fn quantize(&self, graph: &Graph) -> Result<QuantizedNetwork> {
        graph.quantize_with(self, None, WeightRounding::Nearest)
    }
}

impl Graph {
    /// Quantizes the network: by a [`Recipe`], or by [`FullInteger`](super::FullInteger) from calibration data alone.
    ///
    /// By a recipe, each weight is rounded to the nearest code. If a bias does not fit into the `i32` accumulator of its channel, the range of the channel's weights is widened
    /// until it does; the [recipe](QuantizedNetwork::recipe) of the result has the ranges that were used. See
    /// [`Calibration`](super::Calibration) for an example.
    ///
    /// # Errors
    /// [`Error::Graph`](crate::Error::Graph)
    /// - for a tensor or layer that the graph does not have, with similar names,
    /// - with the name of a tensor and the cause if its recipe is invalid,
    /// - with [`Error::Value`](crate::Error::Value) as its source for a layer so deep that an `i32` accumulator could
    ///   overflow, and for a weight that exceeds the range of `f16`,
    /// - for the graph of a quantized network.
    pub fn quantize<Q: Quantization + ?Sized>(&self, by: &Q) -> Result<QuantizedNetwork> {
        by.quantize(self)
    }

    /// Quantizes the network by a recipe, with a method that rounds weights to reduce the error of each layer's output. Use it
    /// where weights cause the error, for example at 4 bits.
    ///
    /// The error of a layer's output is `(w - ŵ) · x`. [`CoordinateDescent`], [`Gptq`] and [`AdaRound`] reduce its variance on
    /// the observed inputs, `(w - ŵ) · Cov[x] · (w - ŵ)ᵀ`: rounding errors then cancel. [`Hqq`] needs no data. With a
    /// calibration, the mean of the error, `(w - ŵ) · E[x]`, is added to the bias, whatever the method (bias correction: Nagel
    /// et al., "Data-free quantization through weight equalization and bias correction", 2019).
    ///
    /// Weights whose scales are [given](super::TensorRecipe::given) and those of recurrent layers are rounded to nearest.
    /// See [`Calibrator`](super::Calibrator) for an example.
    ///
    /// [`CoordinateDescent`]: crate::ptq::CoordinateDescent
    /// [`Gptq`]: crate::ptq::Gptq
    /// [`AdaRound`]: crate::ptq::AdaRound
    /// [`Hqq`]: crate::ptq::Hqq
    ///
    /// # Errors
    /// Same as [`quantize`](Self::quantize), and [`Error::Value`](crate::Error::Value) if the calibration observed
    /// nothing, [`Error::Argument`](crate::Error::Argument) if it has no second moments or the method needs one and there is
    /// none, [`Error::Graph`](crate::Error::Graph) if it is of another graph.
    pub fn quantize_with(
        &self,
        recipe: &Recipe,
        calibration: Option<&Calibration>,
        rounding: impl Into<WeightRounding>,
    ) -> Result<QuantizedNetwork> {
        let rounding = rounding.into();
        self.check_float()?;
        Calibration::check_moments(calibration, rounding.needs_moments())?;
        recipe.check(self)?;
        let parts = self.clone().into_parts();
        let names = FreshNames::new(&parts);
        let mut quantizer = Quantizer {
            graph: self,
            calibration,
            rounding,
            fixed: read_as_non_weights(self),
            recipe: recipe.clone(),
            parts,
            names,
            stored: BTreeMap::new(),
        };
        for (i, node) in self.nodes().iter().enumerate() {
            if !recipe.float_layers.contains(&node.output) {
                quantizer.node(i, node).map_err(|e| e.at(&node.output))?;
            }
        }
        let Quantizer { recipe, mut parts, stored, .. } = quantizer;
        // Biases that a corrected one replaces are not read any more.
        let read = set_of(parts.nodes.iter().flat_map(|node| &node.inputs).chain(&parts.outputs));
        parts.constants.retain(|name, _| read.contains(name));
        QuantizedNetwork::new(Graph::new(parts)?, stored, recipe)
    }
}

/// Moves the weights of a graph from `parts` to `stored`.
struct Quantizer<'g> {
    graph: &'g Graph,
    calibration: Option<&'g Calibration>,
    rounding: WeightRounding,
    /// Names of tensors that are not only read as weights. These stay as they are.
    fixed: BTreeSet<&'g str>,
    recipe: Recipe,
    parts: Parts,
    names: FreshNames,
    stored: BTreeMap<String, Stored>,
}

impl Quantizer<'_> {
    /// Quantizes the weights of node `i`, if it has any.
    fn node(&mut self, i: usize, node: &Node) -> Result<()> {
        let Some(name) = weights_of(node) else { return Ok(()) };
        let precision = self.recipe.precision(name);
        // Weights that several nodes read are stored once.
        let done = precision == Precision::Float32 || self.stored.contains_key(name);
        if done || self.fixed.contains(name.as_str()) {
            return Ok(());
        }
        let weights = self.graph.shared_constant(name).expect("weights are constants");
        let value = match precision {
            Precision::Float16 => Stored::half(weights)?,
            precision => {
                self.widen_ranges(node, name, weights)?;
                let tensor = &self.recipe.tensors[name];
                let kept = tensor.given.is_none() && node.operator().layer().is_some();
                let moments = match self.calibration.filter(|_| kept) {
                    Some(calibration) => {
                        calibration.of_layer(&node.output, node.groups(), weights.shape()[1..].iter().product())?
                    }
                    None => None,
                };
                let value = match precision {
                    Precision::Int2 => Stored::Int2(round::<I2>(weights, tensor, moments, self.rounding)?),
                    Precision::Int4 => Stored::Int4(round::<I4>(weights, tensor, moments, self.rounding)?),
                    _ => Stored::Int8(round::<i8>(weights, tensor, moments, self.rounding)?),
                };
                if tensor.given.is_some() {
                    self.limit_bias(i, node, &value)?;
                } else if self.rounding.chooses_grid(tensor) {
                    self.recipe.tensor_mut(name)?.ranges = value.ranges();
                }
                if let Some(moments) = moments {
                    let error = mean_error(moments, weights, &value.dequantize());
                    self.correct_bias(i, node, &error);
                }
                value
            }
        };
        self.parts.constants.remove(name);
        self.parts.stored.insert(name.clone(), value.shape());
        self.stored.insert(name.clone(), value);
        Ok(())
    }

    /// Limits the bias of node `i` to the room that the weights leave in the accumulator of each channel. A file may have
    /// channels of weights that are nearly 0, whose bias takes all of it.
    fn limit_bias(&mut self, i: usize, node: &Node, weights: &Stored) -> Result<()> {
        let input = self.recipe.tensors.get(&node.inputs[0]).filter(|t| t.precision == Precision::Int8);
        let bias = node.inputs.get(2).and_then(|name| self.graph.constant(name));
        let (Some(input), Some((codes, scales, zero_points)), Some(bias)) = (input, weights.codes(), bias) else {
            return Ok(());
        };
        if weights.group().is_some() {
            return Ok(());
        }
        let (x_scale, x_zero) = input.activation_params()?.of_tensor("input")?;
        let mut limited = bias.to_owned();
        for (c, (bias, codes)) in limited.iter_mut().zip(codes.outer_iter()).enumerate() {
            let zero = zero_points.get(if zero_points.len() == 1 { 0 } else { c }).copied().unwrap_or(0);
            let sum: i64 = codes.iter().map(|&code| (i64::from(code) - i64::from(zero)).abs()).sum();
            let room = i64::from(i32::MAX) - u8::max_abs_diff(x_zero) * sum;
            let scale = scales[if scales.len() == 1 { 0 } else { c }];
            // A margin, because the bias is rounded to `f32`.
            let limit = room.max(0) as f64 * 0.999_999 * f64::from(x_scale) * f64::from(scale);
            *bias = bias.clamp(-limit as f32, limit as f32);
        }
        if *limited != *bias {
            self.set_bias(i, alloc::format!("{}.limited.bias", node.output), limited.into_shared());
        }
        Ok(())
    }

    /// Gives node `i` another bias.
    fn set_bias(&mut self, i: usize, name: String, bias: Constant) {
        let name = self.names.take(name);
        self.parts.constants.insert(name.clone(), bias);
        let inputs = &mut self.parts.nodes[i].inputs;
        inputs.truncate(2);
        inputs.push(name);
    }

    /// Adds the mean error of each output channel to the bias of node `i`.
    fn correct_bias(&mut self, i: usize, node: &Node, mean_error: &[f64]) {
        let old = node.inputs.get(2).and_then(|name| self.graph.constant(name));
        let bias = mean_error.iter().enumerate();
        let bias: Array1<f32> = bias.map(|(c, e)| (old.map_or(0.0, |b| b[[c]] as f64) + e) as f32).collect();
        if !bias.iter().all(|b| b.is_finite()) {
            return;
        }
        self.set_bias(i, alloc::format!("{}.corrected.bias", node.output), bias.into_dyn().into_shared());
    }

    /// Widens the ranges of channels that are all zero or whose bias does not fit into the accumulator.
    fn widen_ranges(&mut self, node: &Node, name: &str, weights: &Constant) -> Result<()> {
        let tensor = &self.recipe.tensors[name];
        // Layers with weights in groups add the bias to floats.
        if tensor.given.is_some() || tensor.is_in_groups() {
            return Ok(());
        }
        let max_code = tensor.max_code();
        let per_tensor = tensor.granularity == Granularity::PerTensor;
        // A dynamic-range layer adds its bias to floats, so that it always fits.
        let input = self.recipe.tensors.get(&node.inputs[0]).filter(|t| t.precision == Precision::Int8);
        let input = input.map(|t| t.activation_params()).transpose()?;
        let bias = node.inputs.get(2).and_then(|name| self.graph.constant(name));
        let tensor = self.recipe.tensor_mut(name)?;
        let widest = tensor.ranges.iter().fold(0f32, |widest, (min, max)| widest.max(max.max(-min)));
        for (min, max) in &mut tensor.ranges {
            if *min == 0.0 && *max == 0.0 && widest > 0.0 {
                (*min, *max) = (-widest, widest);
            }
        }
        // The bias of recurrent weights is added to floats too.
        let (Some(input), Some(bias), Some(_)) = (input, bias, node.operator().layer()) else { return Ok(()) };
        let depth: usize = weights.shape()[1..].iter().product();
        let zero_point = input.zero_point().and_then(|z| z.first()).copied().unwrap_or(0);
        let max_product = u8::max_abs_diff(zero_point) * i8::max_abs_diff(0) * depth as i64;
        // A margin, because scales are rounded. A product without one is an error when the layer is made.
        let max_bias = ((i64::from(i32::MAX) - max_product) as f64 * 0.999).max(1.0);
        let scale = input.scales()[0] as f64;
        for (c, bias) in bias.iter().enumerate() {
            let (min, max) = &mut tensor.ranges[if per_tensor { 0 } else { c }];
            let needed = (bias.abs() as f64 / (scale * max_bias) * max_code) as f32;
            (*min, *max) = (min.min(-needed), max.max(needed));
        }
        Ok(())
    }
}
