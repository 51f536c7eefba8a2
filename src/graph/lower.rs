//! Lowering of a quantized network to a plan: on codes, or a simulation on fake-quantized floats.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::compile::Planner;
use super::modes::Mode;
use super::network::{Constant, Graph, Node};
use super::plan::{Plan, Ports, Role};
use super::recipe::{Precision, Recipe, weights_of};
use super::stored::Stored;
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::float_weights::Weights;
use crate::ops::integer_layer::{Form, IntegerLayer, LayerKernel};
use crate::ops::kernel::{Kernel, Kind};
use crate::ops::linear::rows::{RowForm, RowKernel, Rows};
use crate::ops::linear::{Linear, quantized_rows};
use crate::ops::nhwc::Dims;
use crate::ops::operator::{CodeNode, Layer, OnCodes, Operand};
use crate::ops::quantize::{Dequantize, FakeParams, FakeQuantize, Quantize};
use crate::ops::{Conv2d, Output};
use crate::scheme::Scheme;

/// A graph with quantized weights and the recipe of its tensors.
#[derive(Clone, Copy)]
pub(crate) struct Quantized<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) stored: &'a BTreeMap<String, Stored>,
    pub(crate) recipe: &'a Recipe,
}

impl Quantized<'_> {
    /// Returns whether a tensor is an activation that is kept as codes.
    pub(crate) fn is_code(&self, name: &str) -> bool {
        self.recipe.precision(name) == Precision::Int8 && !self.graph.is_constant(name)
    }

    pub(crate) fn mode(&self, node: &Node) -> Mode {
        if self.recipe.float_layers.contains(&node.output) {
            return Mode::Float;
        }
        // Recurrent layers quantize their state themselves.
        if let Some(weights) = weights_of(node).filter(|_| node.operator().layer().is_some()) {
            let Some(stored) = self.stored.get(weights).filter(|stored| stored.is_code()) else { return Mode::Float };
            if self.recipe.weight_only_layers.contains(&node.output) {
                return Mode::WeightOnly;
            }
            let x_is_code = self.is_code(&node.inputs[0]) && stored.group().is_none();
            return match (x_is_code, self.is_code(&node.output)) {
                (false, _) => Mode::DynamicRange,
                (true, false) => Mode::IntegerToFloat,
                (true, true) => Mode::Integer,
            };
        }
        let constants = node.operator().quantizes_constants();
        let inputs = node.inputs.iter().all(|name| self.is_code(name) || (constants && self.graph.is_constant(name)));
        if inputs && self.is_code(&node.output) { Mode::Integer } else { Mode::Float }
    }

    /// The length of the groups of a node's weights, if they are in groups.
    pub(crate) fn group(&self, node: &Node) -> Option<usize> {
        weights_of(node).and_then(|name| self.stored.get(name)).and_then(Stored::group)
    }

    /// The elements of the input that a linear layer of dynamic range quantizes by a range of their own: a row, or a group of
    /// it. `None` for other layers, and for files of ONNX Runtime that give the codes of weights per tensor or per channel:
    /// these mean one range for all rows of an image, as convolutions have it.
    fn range_len(&self, node: &Node) -> Option<usize> {
        let name = weights_of(node).filter(|_| self.mode(node) == Mode::DynamicRange)?;
        let &[_, depth] = self.graph.shape(name)? else { return None };
        self.group(node).or_else(|| self.recipe.tensors[name].given.is_none().then_some(depth))
    }

    /// The constants of a node: recurrent weights as codes, others as floats.
    fn weights_in(&self, node: &Node, name: &str) -> Option<Weights> {
        let recurrent =
            node.operator().has_recurrent_weights() && weights_of(node).is_some_and(|weights| weights == name);
        let codes = self.stored.get(name).filter(|_| recurrent).and_then(Stored::to_linear);
        match codes {
            Some(Ok(codes)) => Some(Weights::Codes(Box::new(codes))),
            _ => self.weights(name),
        }
    }

    fn weights(&self, name: &str) -> Option<Weights> {
        let stored = self.stored.get(name).map(Stored::to_weights);
        stored.or_else(|| self.graph.shared_constant(name).cloned().map(Weights::F32))
    }

    /// The value of a constant, whether it is stored as codes or as floats.
    fn constant(&self, name: &str) -> Option<Constant> {
        self.weights(name).map(|weights| weights.to_f32())
    }

    /// The operand of a constant that a kernel on codes takes: by its parameters in the recipe, or else by its own range.
    pub(crate) fn constant_operand(&self, name: &str, value: &Constant) -> Result<Operand> {
        match self.recipe.tensors.get(name).filter(|tensor| tensor.precision == Precision::Int8) {
            Some(tensor) => {
                let params = tensor.activation_params()?;
                Ok(Operand { constant: Some(params.quantize(&**value)?.into_parts().0), params })
            }
            None => Operand::constant(value),
        }
    }

    /// Returns whether another system holds the codes of a node as `i8`.
    pub(crate) fn is_signed(&self, node: &Node) -> bool {
        let given = |name: &String| self.recipe.tensors.get(name).and_then(|tensor| tensor.given.as_ref());
        given(&node.output).is_some_and(|given| given.signed)
    }

    /// Returns whether a node without weights, whose tensors are codes, has a kernel on them.
    pub(super) fn has_code_kernel(self, node: &Node) -> bool {
        let lowering = Lowering { network: self, planner: Planner::new(self.graph) };
        !matches!(lowering.code_kernel(node), Ok(OnCodes::Float))
    }

    /// The plan that runs on codes where the recipe says `Int8`.
    pub(crate) fn plan(self) -> Result<Plan> {
        let mut lowering = Lowering { network: self, planner: Planner::new(self.graph) };
        let mut inputs = Ports::default();
        for input in self.graph.typed_inputs() {
            inputs.floats.push(lowering.planner.define(&input.name, Kind::F32));
        }
        for input in self.graph.typed_inputs().iter().filter(|input| self.is_code(&input.name)) {
            inputs.codes.push(lowering.quantize(&input.name, Role::Entry)?);
        }
        for node in self.graph.nodes() {
            lowering.node(node).map_err(|e| e.at(&node.output))?;
        }
        let mut outputs = Ports::default();
        for name in self.graph.outputs() {
            outputs.codes.extend(lowering.planner.find(name, Kind::Code));
            outputs.floats.push(match self.constant(name) {
                Some(_) => lowering.planner.output(name, |name| self.constant(name)),
                None => lowering.as_f32(name, Role::Exit)?,
            });
        }
        // A run takes or returns codes for all tensors or for none.
        for ports in [&mut inputs, &mut outputs] {
            if ports.codes.len() < ports.floats.len() {
                ports.codes.clear();
            }
        }
        Ok(lowering.planner.finish(inputs, outputs))
    }

    /// The same network on floats: each tensor that is kept as codes is fake-quantized.
    pub(crate) fn simulation(self) -> Result<Plan> {
        let mut planner = Planner::new(self.graph);
        let floats = self.graph.inputs().map(|name| planner.define(name, Kind::F32)).collect();
        for input in self.graph.typed_inputs() {
            self.fake_quantize(&mut planner, &input.name)?;
        }
        for node in self.graph.nodes() {
            let (kernel, inputs) = self.simulated(&mut planner, node);
            let output = planner.define(&node.output, Kind::F32);
            planner.step(&node.output, kernel, inputs, output);
            self.fake_quantize(&mut planner, &node.output)?;
        }
        let outputs = self.graph.outputs().iter();
        let outputs = outputs.map(|name| planner.output(name, |name| self.constant(name))).collect();
        let ports = |floats| Ports { floats, codes: Vec::new() };
        Ok(planner.finish(ports(floats), ports(outputs)))
    }

    /// The float kernel of a node with its quantized weights, and its inputs. The input of a dynamic-range layer is
    /// fake-quantized first.
    pub(crate) fn simulated(&self, planner: &mut Planner<'_>, node: &Node) -> (Option<Box<dyn Kernel>>, Vec<usize>) {
        let on_codes = matches!(self.mode(node), Mode::Integer) && node.operator().layer().is_none();
        let constant = |name: &str| {
            let value = self.graph.shared_constant(name).filter(|_| on_codes);
            let rounded = value.map(|value| self.constant_operand(name, value));
            let Some(Ok(Operand { params, constant: Some(codes) })) = rounded else {
                return self.weights_in(node, name);
            };
            let mut values = ndarray::ArrayD::zeros(codes.raw_dim());
            let fits = params.dequantize_into(&codes, &mut values);
            debug_assert_eq!(fits, Ok(()));
            Some(Weights::F32(values.into_shared()))
        };
        let (kernel, mut inputs) = planner.float_kernel(node, constant);
        if let Mode::DynamicRange = self.mode(node) {
            let rounded = planner.define_unnamed("", &node.inputs[0]);
            let row = planner.shape(&node.inputs[0]).last().copied().unwrap_or(0);
            let params = match self.range_len(node) {
                Some(len) => {
                    let scheme =
                        if self.group(node).is_some() { quantized_rows::input_scheme() } else { Scheme::symmetric() };
                    FakeParams::OfRows { row, len, scheme }
                }
                None => FakeParams::OfImages,
            };
            planner.step(&node.output, Some(Box::new(FakeQuantize { params })), inputs, rounded);
            inputs = alloc::vec![rounded];
        }
        (kernel, inputs)
    }

    /// Fake-quantizes the tensor if it is kept as codes.
    fn fake_quantize(&self, planner: &mut Planner<'_>, name: &str) -> Result<()> {
        if self.is_code(name) {
            let params = FakeParams::Static(Box::new(self.recipe.tensors[name].activation_params()?));
            let exact = planner.f32_tensor(name);
            let rounded = planner.define(name, Kind::F32);
            planner.step(name, Some(Box::new(FakeQuantize { params })), alloc::vec![exact], rounded);
        }
        Ok(())
    }
}

const INTEGER_WEIGHTS: &str = "only layers with integer weights have these modes";

struct Lowering<'a> {
    network: Quantized<'a>,
    planner: Planner<'a>,
}

impl Lowering<'_> {
    fn params(&self, name: &str) -> Result<crate::QParams<u8>> {
        self.network.recipe.tensors[name].activation_params()
    }

    /// Adds a step that quantizes the tensor.
    fn quantize(&mut self, name: &str, role: Role) -> Result<usize> {
        let floats = self.planner.f32_tensor(name);
        let kernel = Quantize::new(self.params(name)?);
        let codes = self.planner.define(name, Kind::Code);
        self.planner.step_with_role(name, role, Some(Box::new(kernel)), alloc::vec![floats], codes);
        Ok(codes)
    }

    /// The tensor as codes, quantized if need be.
    fn as_codes(&mut self, name: &str) -> Result<usize> {
        self.planner.find(name, Kind::Code).map_or_else(|| self.quantize(name, Role::Body), Ok)
    }

    /// The tensor as floats, dequantized if need be.
    fn as_f32(&mut self, name: &str, role: Role) -> Result<usize> {
        if let (None, Some(codes)) = (self.planner.find(name, Kind::F32), self.planner.find(name, Kind::Code)) {
            let kernel = Dequantize(self.params(name)?);
            let floats = self.planner.define(name, Kind::F32);
            self.planner.step_with_role(name, role, Some(Box::new(kernel)), alloc::vec![codes], floats);
        }
        Ok(self.planner.f32_tensor(name))
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let mode = self.network.mode(node);
        match mode {
            Mode::Float => {}
            Mode::Integer if node.operator().layer().is_none() => {
                let kernel = match self.code_kernel(node)? {
                    OnCodes::Float => None,
                    OnCodes::Alias => Some(None),
                    OnCodes::Kernel(kernel) => Some(Some(kernel)),
                };
                if let Some(kernel) = kernel {
                    let codes = node.inputs.iter().filter(|name| !self.network.graph.is_constant(name));
                    let inputs = codes.map(|name| self.as_codes(name)).collect::<Result<_>>()?;
                    let output = self.planner.define(&node.output, Kind::Code);
                    self.planner.step(&node.output, kernel, inputs, output);
                    return Ok(());
                }
            }
            mode => return self.layer(node, mode),
        }
        for name in &node.inputs {
            if !self.network.graph.is_constant(name) {
                self.as_f32(name, Role::Body)?;
            }
        }
        let network = self.network;
        self.planner.float_node(node, |name| network.weights_in(node, name));
        if self.network.is_code(&node.output) {
            self.quantize(&node.output, Role::Body)?;
        }
        Ok(())
    }

    /// Adds a layer with integer weights.
    fn layer(&mut self, node: &Node, mode: Mode) -> Result<()> {
        let kinds = match mode {
            Mode::Integer => (Kind::Code, Kind::Code),
            Mode::IntegerToFloat => (Kind::Code, Kind::F32),
            Mode::DynamicRange | Mode::WeightOnly | Mode::Float => (Kind::F32, Kind::F32),
        };
        let kernel = self.layer_kernel(node, mode)?;
        let x = match kinds.0 {
            Kind::Code => self.as_codes(&node.inputs[0])?,
            Kind::F32 => self.as_f32(&node.inputs[0], Role::Body)?,
        };
        let y = self.planner.define(&node.output, kinds.1);
        self.planner.step(&node.output, Some(kernel), alloc::vec![x], y);
        Ok(())
    }

    /// The integer weights of a layer and its bias.
    fn stored(&self, node: &Node) -> (&Stored, Option<ndarray::Array1<f32>>) {
        let stored = weights_of(node).and_then(|name| self.network.stored.get(name));
        let bias = node.inputs.get(2).and_then(|name| self.network.graph.constant(name));
        (stored.expect(INTEGER_WEIGHTS), bias.map(|b| b.iter().copied().collect()))
    }

    /// The codes of the output, with the clamp of the node.
    fn to_codes(&self, node: &Node) -> Result<Output<u8>> {
        Ok(Output::to(&self.params(&node.output)?).clamp(node.clamp.low, node.clamp.high))
    }

    /// The kernel of a layer with integer weights.
    fn layer_kernel(&self, node: &Node, mode: Mode) -> Result<Box<dyn Kernel>> {
        let (stored, bias) = self.stored(node);
        let bias = bias.as_deref();
        let clamp = if mode == Mode::Integer { Clamp::NONE } else { node.clamp };
        let shapes = [&node.inputs[0], &node.output].map(|name| self.planner.dims(name).in_memory());
        if self.network.graph.shape(&node.inputs[1]).is_some_and(|shape| shape.len() == 4) {
            let weights = stored.to_conv().expect(INTEGER_WEIGHTS)?;
            let Layer { window, groups } = node.operator().layer().expect(INTEGER_WEIGHTS);
            let form = self.form(node, mode, Conv2d::new(&weights, bias, &window, groups)?)?;
            let [input, output] = shapes.map(|shape| [shape[1], shape[2], shape[3]]);
            return Ok(Box::new(LayerKernel { form, input, output, clamp }));
        }
        let [input, output] = shapes.map(|shape| {
            let (len, rows) = shape.split_last().map_or((0, 1), |(&len, rows)| (len, rows.iter().product()));
            [1, rows, len]
        });
        let rows = Rows { rows: input[1], depth: input[2], outputs: output[2], clamp };
        if mode == Mode::WeightOnly || stored.group().is_some() {
            let layer = stored.to_nbits(bias).expect(INTEGER_WEIGHTS)?;
            return Ok(Box::new(if mode == Mode::WeightOnly {
                RowKernel { rows, form: RowForm::WeightOnly(layer) }
            } else {
                RowKernel { rows, form: RowForm::DynamicGroups(layer) }
            }));
        }
        let layer = Linear::new(&stored.to_linear().expect(INTEGER_WEIGHTS)?, bias)?;
        Ok(match self.network.range_len(node) {
            Some(_) => Box::new(RowKernel { rows, form: RowForm::Dynamic(layer) }),
            None => Box::new(LayerKernel { form: self.form(node, mode, layer)?, input, output, clamp }),
        })
    }

    /// A layer in the form of its mode.
    fn form<L: IntegerLayer>(&self, node: &Node, mode: Mode, layer: L) -> Result<Form<L>> {
        Ok(match mode {
            Mode::Integer => Form::Static(layer.prepare(&self.params(&node.inputs[0])?, &self.to_codes(node)?)?),
            Mode::IntegerToFloat => {
                let params = self.params(&node.inputs[0])?;
                layer.check_input(&params)?;
                Form::StaticToF32(layer, params)
            }
            Mode::DynamicRange | Mode::WeightOnly | Mode::Float => Form::DynamicRange(layer),
        })
    }

    /// The kernel of a node without weights on codes.
    fn code_kernel(&self, node: &Node) -> Result<OnCodes> {
        let inputs: Vec<Dims<'_>> = node.inputs.iter().map(|name| self.planner.dims(name)).collect();
        let operand = |name: &String| match self.network.graph.shared_constant(name) {
            Some(value) => self.network.constant_operand(name, value),
            None => self.params(name).map(|params| Operand { params, constant: None }),
        };
        let operands = node.inputs.iter().map(operand).collect::<Result<Vec<_>>>()?;
        let (output, to) = (self.planner.dims(&node.output), self.params(&node.output)?);
        let signed = self.network.is_signed(node);
        let node_on_codes =
            CodeNode { inputs: &inputs, output, operands: &operands, to: &to, clamp: node.clamp, signed };
        node.operator().code_kernel(&node_on_codes)
    }
}
