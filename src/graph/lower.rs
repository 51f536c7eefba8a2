//! Quantized network → plan: on codes, or on floats that have been rounded to them.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::code_ops::{self, Operand};
use super::codes::{Conv, DequantizeEpilogue, FakeQuantize, LayerKind, Quantize, requantize};
use super::compile::Planner;
use super::kernel::{Kernel, Kind};
use super::layout::physical;
use super::network::{Constant, Graph, Node};
use super::op::{Clamp, Op};
use super::plan::{Plan, Ports, Role};
use super::real::Weights;
use super::recipe::{Precision, Recipe, weights_of};
use super::stored::Stored;
use crate::error::Result;
use crate::ops::Conv2d;
use crate::window::Window;

/// A network whose weights are in fewer bits, with what tells how to run it.
#[derive(Clone, Copy)]
pub(crate) struct Quantized<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) stored: &'a BTreeMap<String, Stored>,
    pub(crate) recipe: &'a Recipe,
}

/// How a node computes.
enum Mode {
    Codes,
    /// Codes in, floats out.
    CodesToReal,
    Dynamic,
    Float,
}

impl Quantized<'_> {
    fn is_coded(&self, name: &str) -> bool {
        self.recipe.precision(name) == Precision::Int8 && !self.graph.is_constant(name)
    }

    fn mode(&self, node: &Node) -> Mode {
        if self.recipe.float_layers.contains(&node.name) {
            return Mode::Float;
        }
        if let Some(weights) = weights_of(node) {
            let coded = matches!(self.stored.get(weights), Some(Stored::Int8(_) | Stored::Int4(_)));
            return match (coded, self.is_coded(&node.inputs[0]), self.is_coded(&node.output)) {
                (false, ..) => Mode::Float,
                (true, false, _) => Mode::Dynamic,
                (true, true, false) => Mode::CodesToReal,
                (true, true, true) => Mode::Codes,
            };
        }
        let pair = matches!(node.op, Op::Add | Op::Mul);
        let inputs = node.inputs.iter().all(|name| self.is_coded(name) || (pair && self.graph.is_constant(name)));
        if inputs && self.is_coded(&node.output) { Mode::Codes } else { Mode::Float }
    }

    fn weights(&self, name: &str) -> Option<Weights> {
        let stored = self.stored.get(name).map(Stored::to_weights);
        stored.or_else(|| self.graph.constant(name).cloned().map(Weights::Float))
    }

    /// The value of a constant, whether it is stored as codes or as floats.
    fn constant(&self, name: &str) -> Option<Constant> {
        self.weights(name).map(|weights| weights.to_real())
    }

    /// The plan that runs on codes wherever the recipe says so.
    pub(crate) fn plan(self) -> Result<Plan> {
        let mut lowering = Lowering { network: self, planner: Planner::new(self.graph) };
        let mut inputs = Ports::default();
        for input in self.graph.inputs() {
            inputs.reals.push(lowering.planner.define(&input.name, Kind::Float));
        }
        for input in self.graph.inputs().iter().filter(|input| self.is_coded(&input.name)) {
            inputs.codes.push(lowering.quantize(&input.name, Role::Entry)?);
        }
        for node in self.graph.nodes() {
            lowering.node(node).map_err(|e| e.at(&node.name))?;
        }
        let mut outputs = Ports::default();
        for name in self.graph.outputs() {
            outputs.codes.extend(lowering.planner.find(name, Kind::Code));
            outputs.reals.push(match self.constant(name) {
                Some(_) => lowering.planner.output(name, |name| self.constant(name)),
                None => lowering.real(name, Role::Exit)?,
            });
        }
        // Codes are taken or given for all, or not at all.
        for ports in [&mut inputs, &mut outputs] {
            if ports.codes.len() < ports.reals.len() {
                ports.codes.clear();
            }
        }
        Ok(lowering.planner.finish(inputs, outputs))
    }

    /// A plan on floats, each rounded to what it would be as a code.
    pub(crate) fn simulation(self) -> Result<Plan> {
        let mut planner = Planner::new(self.graph);
        let reals = self.graph.inputs().iter().map(|input| planner.define(&input.name, Kind::Float)).collect();
        for input in self.graph.inputs() {
            self.round(&mut planner, &input.name)?;
        }
        for node in self.graph.nodes() {
            let (kernel, inputs) = self.simulated(&mut planner, node);
            let output = planner.define(&node.output, Kind::Float);
            planner.step(&node.name, kernel, inputs, output);
            self.round(&mut planner, &node.output)?;
        }
        let outputs = self.graph.outputs().iter();
        let outputs = outputs.map(|name| planner.output(name, |name| self.constant(name))).collect();
        let ports = |reals| Ports { reals, codes: Vec::new() };
        Ok(planner.finish(ports(reals), ports(outputs)))
    }

    /// The kernel of a node on floats, with its weights as they are stored, and its inputs: those of a dynamic range
    /// rounded first.
    pub(crate) fn simulated(&self, planner: &mut Planner<'_>, node: &Node) -> (Option<Box<dyn Kernel>>, Vec<usize>) {
        let on_codes = matches!(self.mode(node), Mode::Codes) && weights_of(node).is_none();
        let constant = |name: &str| {
            let rounded = self.graph.constant(name).filter(|_| on_codes).map(code_ops::constant_codes);
            let Some(Ok((params, codes))) = rounded else { return self.weights(name) };
            let mut real = ndarray::ArrayD::zeros(codes.raw_dim());
            let fits = params.dequantize_into(&codes, &mut real);
            debug_assert_eq!(fits, Ok(()));
            Some(Weights::Float(real.into_shared()))
        };
        let (kernel, mut inputs) = planner.float_kernel(node, constant);
        if let Mode::Dynamic = self.mode(node) {
            let rounded = planner.aside("", &node.inputs[0]);
            planner.step(&node.name, Some(Box::new(FakeQuantize { params: None })), inputs, rounded);
            inputs = alloc::vec![rounded];
        }
        (kernel, inputs)
    }

    /// Rounds the last tensor of this name to its codes, if it has some.
    fn round(&self, planner: &mut Planner<'_>, name: &str) -> Result<()> {
        if self.is_coded(name) {
            let params = Some(self.recipe.tensors[name].activation_params()?);
            let raw = planner.real(name);
            let rounded = planner.define(name, Kind::Float);
            planner.step(name, Some(Box::new(FakeQuantize { params })), alloc::vec![raw], rounded);
        }
        Ok(())
    }
}

struct Lowering<'a> {
    network: Quantized<'a>,
    planner: Planner<'a>,
}

impl Lowering<'_> {
    fn params<D: ndarray::Dimension>(&self, name: &str) -> Result<crate::QParams<u8, D>> {
        self.network.recipe.tensors[name].activation_params()
    }

    /// A step from the tensor as floats to codes.
    fn quantize(&mut self, name: &str, role: Role) -> Result<usize> {
        let real = self.planner.real(name);
        let kernel = Quantize::new(self.params(name)?);
        let codes = self.planner.define(name, Kind::Code);
        self.planner.role(name, role, Some(Box::new(kernel)), alloc::vec![real], codes);
        Ok(codes)
    }

    /// The tensor as codes.
    fn code(&mut self, name: &str) -> Result<usize> {
        self.planner.find(name, Kind::Code).map_or_else(|| self.quantize(name, Role::Body), Ok)
    }

    /// The tensor as floats.
    fn real(&mut self, name: &str, role: Role) -> Result<usize> {
        if let (None, Some(codes)) = (self.planner.find(name, Kind::Float), self.planner.find(name, Kind::Code)) {
            let kernel = DequantizeEpilogue(self.params(name)?);
            let real = self.planner.define(name, Kind::Float);
            self.planner.role(name, role, Some(Box::new(kernel)), alloc::vec![codes], real);
        }
        Ok(self.planner.real(name))
    }

    fn node(&mut self, node: &Node) -> Result<()> {
        let mode = self.network.mode(node);
        match mode {
            Mode::Float => {}
            Mode::Codes if weights_of(node).is_none() => {
                if let Some(kernel) = self.code_kernel(node)? {
                    let codes = node.inputs.iter().filter(|name| !self.network.graph.is_constant(name));
                    let inputs = codes.map(|name| self.code(name)).collect::<Result<_>>()?;
                    let output = self.planner.define(&node.output, Kind::Code);
                    self.planner.step(&node.name, kernel, inputs, output);
                    return Ok(());
                }
            }
            mode => return self.conv(node, mode),
        }
        for name in &node.inputs {
            if !self.network.graph.is_constant(name) {
                self.real(name, Role::Body)?;
            }
        }
        let network = self.network;
        self.planner.float_node(node, |name| network.weights(name));
        if self.network.is_coded(&node.output) {
            self.quantize(&node.output, Role::Body)?;
        }
        Ok(())
    }

    /// A convolution or linear layer with integer weights.
    fn conv(&mut self, node: &Node, mode: Mode) -> Result<()> {
        let stored = weights_of(node).and_then(|name| self.network.stored.get(name)).and_then(Stored::to_conv);
        let weights = stored.expect("the mode is that of a layer with codes")?;
        let bias = node.inputs.get(2).and_then(|name| self.network.graph.constant(name));
        let bias = bias.map(|b| b.iter().copied().collect::<ndarray::Array1<f32>>());
        let (window, groups) = match node.op {
            Op::Conv { window, groups } => (window, groups),
            _ => (Window::new(), 1),
        };
        let layer = Conv2d::new(&weights, bias.as_deref(), &window, groups)?;
        let dims = |name: &str| match &physical(self.planner.shape(name))[..] {
            &[_, h, w, c] => [h, w, c],
            rest => [1, 1, rest[1..].iter().product()],
        };
        let [input, output] = [dims(&node.inputs[0]), dims(&node.output)];
        let (kind, kinds) = match mode {
            Mode::Codes => {
                let to = requantize(&self.params(&node.output)?, node.clamp);
                let layer = layer.prepare(&self.params(&node.inputs[0])?, &to)?;
                (LayerKind::Static(layer), (Kind::Code, Kind::Code))
            }
            Mode::CodesToReal => {
                let params = self.params(&node.inputs[0])?;
                layer.check_input(&params)?;
                (LayerKind::ToReal(layer, params), (Kind::Code, Kind::Float))
            }
            Mode::Dynamic | Mode::Float => (LayerKind::Dynamic(layer), (Kind::Float, Kind::Float)),
        };
        let clamp = if kinds.1 == Kind::Float { node.clamp } else { Clamp::NONE };
        let x = match kinds.0 {
            Kind::Code => self.code(&node.inputs[0])?,
            Kind::Float => self.real(&node.inputs[0], Role::Body)?,
        };
        let y = self.planner.define(&node.output, kinds.1);
        let kernel = Conv { kind, input, output, clamp };
        self.planner.step(&node.name, Some(Box::new(kernel)), alloc::vec![x], y);
        Ok(())
    }

    /// The kernel of a node without weights on codes, see [`code_ops::kernel`].
    #[allow(clippy::option_option, reason = "three different things")]
    fn code_kernel(&self, node: &Node) -> Result<Option<Option<Box<dyn Kernel>>>> {
        let shapes: Vec<&[usize]> = node.inputs.iter().map(|name| self.planner.shape(name)).collect();
        let operand = |name: &String| match self.network.graph.constant(name) {
            Some(value) => Ok(Operand::Constant(value.clone())),
            None => self.params(name).map(Operand::Codes),
        };
        let operands = node.inputs.iter().map(operand).collect::<Result<_>>()?;
        let output = self.planner.shape(&node.output);
        code_ops::kernel(node, operands, &shapes, output, &self.params(&node.output)?)
    }
}
