//! A full-integer network as a model for microcontrollers.

use alloc::string::String;
use alloc::vec::Vec;

use ndarray::Axis;

use super::lower::Quantized;
use super::modes::{Mode, NodeMode};
use super::network::Node;
use super::plan::{Plan, Role, Step as PlanStep, Tensor};
use super::qnetwork::QuantizedNetwork;
use super::recipe::weights_of;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{GraphError, Result};
use crate::gemm::Finish;
use crate::micro::{Conv, ModelBuf, ModelWriter, Region, Step, StepWriter, StridedCopy, Unsupported, Written};
use crate::ops::kernel::Kind;
use crate::ops::nhwc::{Layout, in_order, logical};
use crate::ops::output_stage::OutputStage;
use crate::ops::{ChannelParams, Output};
use crate::window::Window;

impl QuantizedNetwork {
    /// Writes a full-integer network for a microcontroller: the bytes that [`Model`](crate::micro::Model) runs without a
    /// heap, to the same codes as [`run_codes`](Self::run_codes), and the flash and RAM that each node takes. The module
    /// [`micro`](crate::micro) lists what a model can compute.
    ///
    /// # Errors
    /// [`Error::Graph`] unless there is one input and one output, both `Int8` in the recipe, and for a node that computes on
    /// floats or has no form in a model; the error names it.
    pub fn to_micro(&self) -> Result<ModelBuf> {
        self.check_code_inputs()?;
        self.check_code_outputs()?;
        if let Some(NodeMode { output, why, .. }) = self.modes().into_iter().find(|mode| mode.mode != Mode::Integer) {
            let why = alloc::format!("it computes on floats, because {}", why.unwrap_or_default());
            return Err(self.unsupported(&output, Unsupported(why)));
        }
        let plan = self.plan();
        let ([input], [output]) = (&plan.inputs.codes[..], &plan.outputs.codes[..]) else {
            let (expected, found) = ("1".into(), alloc::format!("{}", plan.inputs.codes.len()));
            return Err(match plan.inputs.codes.len() {
                1 => GraphError::Outputs { expected, found: alloc::format!("{}", plan.outputs.codes.len()) }.into(),
                _ => GraphError::Inputs { expected, found }.into(),
            });
        };
        let mut model = Translation::new(plan);
        let input_region = model.enter(*input).map_err(|e| self.unsupported(&plan.tensors[*input].name, e))?;
        for step in plan.steps.iter().filter(|step| step.role == Role::Body) {
            model.node(self.parts(), step).map_err(|e| self.unsupported(&step.node, e))?;
        }
        let last = &plan.tensors[*output];
        let output_region = model.leave(*output, input_region).map_err(|e| self.unsupported(&last.name, e))?;
        let params = |t: usize| {
            let params = self.parts().recipe.tensors[&plan.tensors[t].name].activation_params()?;
            params.of_tensor("input or output")
        };
        let shapes = [*input, *output].map(|t| external_shape(&plan.tensors[t]));
        let written = model.writer.finish([input_region, output_region], shapes, [params(*input)?, params(*output)?]);
        written.ok_or_else(|| self.unsupported(&last.name, "the model exceeds 2 GiB".into()))
    }

    /// The error for a node, or the input, that has no form in a model.
    fn unsupported(&self, name: &str, Unsupported(why): Unsupported) -> crate::Error {
        let node = self.graph().nodes().iter().find(|node| node.output == name);
        let op = node.map_or("input", |node| node.operator().name());
        GraphError::Unsupported { op: op.into(), node: String::from(name), why }.into()
    }
}

/// The model of a plan in the making.
struct Translation<'p> {
    plan: &'p Plan,
    writer: ModelWriter,
    /// The tensors of the model, by those of the plan.
    regions: Vec<Option<Region>>,
}

impl<'p> Translation<'p> {
    fn new(plan: &'p Plan) -> Self {
        Self { plan, writer: ModelWriter::default(), regions: alloc::vec![None; plan.tensors.len()] }
    }

    fn define(&mut self, t: usize) -> core::result::Result<Region, Unsupported> {
        let region = self.writer.tensor(self.plan.tensors[t].len()).ok_or("it has no elements, or too many")?;
        self.regions[t] = Some(region);
        Ok(region)
    }

    /// Defines the input. An image whose channels are not last in the plan is transposed. Returns the tensor that callers
    /// write.
    fn enter(&mut self, t: usize) -> core::result::Result<Region, Unsupported> {
        let inner = self.define(t)?;
        let Some(order) = transposition(&self.plan.tensors[t], false) else { return Ok(inner) };
        let outer = self.writer.tensor(inner.len()).ok_or("it has too many elements")?;
        let (tensor, x) = (&self.plan.tensors[t], [outer]);
        StepWriter { model: &mut self.writer, x: &x, y: inner }.copy(StridedCopy::of_runs(&order, 1), 0)?;
        self.writer.end_node(&tensor.name, "Transpose");
        Ok(outer)
    }

    /// Defines the output that callers read, which must not be the input.
    fn leave(&mut self, t: usize, input: Region) -> core::result::Result<Region, Unsupported> {
        let inner = self.regions[t].ok_or("no node computes it from the input")?;
        let tensor = &self.plan.tensors[t];
        let order = transposition(tensor, true);
        if order.is_none() && inner != input {
            return Ok(inner);
        }
        let outer = self.writer.tensor(inner.len()).ok_or("it has too many elements")?;
        let copy = match order {
            Some(order) => StridedCopy::of_runs(&order, 1),
            None => StridedCopy::of_rows([1, inner.len()], inner.len(), 0),
        };
        StepWriter { model: &mut self.writer, x: &[inner], y: outer }.copy(copy, 0)?;
        self.writer.end_node(&tensor.name, "Transpose");
        Ok(outer)
    }

    fn node(&mut self, network: Quantized<'_>, step: &PlanStep) -> Written {
        let plan = self.plan;
        if step.inputs.iter().chain([&step.output]).any(|&t| plan.tensors[t].kind == Kind::F32) {
            return Err("it computes on floats".into());
        }
        let inputs: Option<Vec<Region>> = step.inputs.iter().map(|&t| self.regions[t]).collect();
        let inputs = inputs.ok_or("its input does not depend on the input of the network")?;
        let Some(kernel) = &step.kernel else {
            self.regions[step.output] = inputs.first().copied();
            return Ok(());
        };
        let y = self.define(step.output)?;
        let node = network.graph.nodes().iter().find(|node| node.output == step.node).ok_or("it is no node")?;
        let mut writer = StepWriter { model: &mut self.writer, x: &inputs, y };
        match node.operator().layer() {
            Some(_) => layer(network, node, [step.inputs[0], step.output].map(|t| &plan.tensors[t]), &mut writer)?,
            None if plan.tensors[step.output].shape.first().is_some_and(|&batch| batch != 1) => {
                return Err("the batch is not its first axis".into());
            }
            None => kernel.write_micro(&mut writer)?,
        }
        self.writer.end_node(&step.node, node.operator().name());
        Ok(())
    }
}

/// A tensor in the order of a model: images have their channels last.
fn external_shape(tensor: &Tensor) -> Vec<usize> {
    match tensor.shape[..] {
        [n, c, h, w] => alloc::vec![n, h, w, c],
        _ => tensor.shape.clone(),
    }
}

/// Where each element of an image comes from, if it is row-major in the plan and has its channels last outside.
fn transposition(tensor: &Tensor, leaves: bool) -> Option<Vec<u32>> {
    let [_, c, h, w] = tensor.shape[..] else { return None };
    if tensor.layout == Layout::ChannelsLast || c == 1 || h * w == 1 {
        return None;
    }
    let indices: Vec<u32> = (0..u32::try_from(tensor.len()).ok()?).collect();
    Some(match leaves {
        true => {
            in_order(logical(&indices, &tensor.shape, Layout::RowMajor), Layout::ChannelsLast).iter().copied().collect()
        }
        false => logical(&indices, &tensor.shape, Layout::ChannelsLast).iter().copied().collect(),
    })
}

/// Adds a layer with integer weights.
fn layer(network: Quantized<'_>, node: &Node, [x, y]: [&Tensor; 2], writer: &mut StepWriter<'_>) -> Written {
    let weights = weights_of(node).and_then(|name| network.stored.get(name)).ok_or("its weights are no codes")?;
    let params = |name: &String| network.recipe.tensors[name].activation_params();
    let (x_params, y_params) = (params(&node.inputs[0])?, params(&node.output)?);
    let to = Output::to(&y_params).clamp(node.clamp.low, node.clamp.high);
    let bias = node.inputs.get(2).and_then(|name| network.graph.constant(name));
    let bias: Option<Vec<f32>> = bias.map(|bias| bias.iter().copied().collect());

    let (window, groups, codes, weight_params) = match (weights.shape().len(), node.operator().layer()) {
        (4, Some(layer)) => {
            let (codes, params) = weights.to_conv().ok_or("its weights are floats")??.into_parts();
            let [height, width] = [x.shape[2], x.shape[3]];
            let window = layer.window.place([codes.dim().1, codes.dim().2], [height, width])?;
            (window, layer.groups, codes.into_dyn(), ChannelParams::new("weights", &params, Axis(0))?)
        }
        _ => {
            let (codes, params) = weights.to_linear().ok_or("its weights are floats")??.into_parts();
            let rows = x.len() / codes.ncols();
            let window = Window::new().place([1, 1], [rows, 1])?;
            (window, 1, codes.into_dyn(), ChannelParams::new("weights", &params, Axis(0))?)
        }
    };
    if weight_params.zero_points.iter().any(|&zero| zero != 0) {
        return Err("its weights have zero points".into());
    }
    let stage = OutputStage::new(&x_params, &weight_params.scales, bias.as_deref(), &to)?;
    let (multipliers, y_zero, range) = stage.epilogue.f32_parts().ok_or("its arithmetic is not f32")?;
    let (bias, (_, x_zero)) = (stage.epilogue.bias(), x_params.of_tensor("input")?);
    let outputs = codes.shape()[0];
    // The share of the zero point in each sum.
    let folded = |(channel, weights): (usize, ndarray::ArrayViewD<'_, i8>)| {
        let sum: i64 = weights.iter().map(|&w| i64::from(w)).sum();
        (bias.map_or(0, |bias| i64::from(bias[channel])) - i64::from(x_zero) * sum) as i32
    };
    let folded: Vec<i32> = codes.outer_iter().enumerate().map(folded).collect();
    let channels = [x.len() / (window.image[0] * window.image[1]), outputs];
    debug_assert_eq!(y.len(), window.output[0] * window.output[1] * outputs);
    let conv = Conv {
        x: writer.x[0],
        y: writer.y,
        patch: writer.scratch(Conv::patch_len(&window, channels[0]).ok_or("it has no elements")?)?,
        weights: writer.data(codes.iter().map(|&code| code as u8)),
        bias: writer.words(&folded, |&bias| bias as u32),
        multipliers: writer.words(multipliers, |multiplier| multiplier.to_bits()),
        window,
        channels,
        groups,
        x_zero: x_zero.into(),
        y_zero,
        codes: range,
    };
    writer.step(Step::Conv(conv));
    Ok(())
}
