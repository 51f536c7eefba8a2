//! Layers, functions of one or two tensors, pooling.

use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Axis, IxDyn};

use super::import::Importer;
use super::node::OnnxNode;
use crate::error::Result;
use crate::graph::{Activation, Clamp, Constant, Op, op};
use crate::window::Window;

impl Importer {
    /// Adds a node that computes floats. The table of operators has checked its inputs and attributes.
    pub(super) fn layer(&mut self, node: &OnnxNode) -> Result<()> {
        let function = |activation: Activation| Op::from(activation);
        let op = match node.op() {
            "Identity" => return self.alias(node),
            "Dropout" => return self.dropout(node),
            "Conv" => return self.conv(node),
            "Gemm" => return self.gemm(node),
            "MatMul" => return self.matmul(node),
            "BatchNormalization" => {
                self.check_test_mode(node)?;
                op::BatchNorm { epsilon: node.float("epsilon", 1e-5) }.into()
            }
            "Add" => op::Binary::Add.into(),
            "Mul" => op::Binary::Mul.into(),
            "Sub" => return self.with_mapped_constant(node, op::Binary::Add.into(), |x| -x),
            "Div" => return self.with_mapped_constant(node, op::Binary::Mul.into(), |x| 1.0 / x),
            "Relu" => function(Activation::relu()),
            "Clip" => return self.clip(node),
            "Sigmoid" => function(Activation::Sigmoid),
            "Tanh" => function(Activation::Tanh),
            "HardSwish" => function(Activation::HardSwish),
            "HardSigmoid" => {
                let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
                function(Activation::HardSigmoid { alpha, beta })
            }
            "LeakyRelu" => function(Activation::LeakyRelu { alpha: node.float("alpha", 0.01) }),
            "Softmax" => return self.softmax(node),
            "MaxPool" => {
                let (kernel, window) = self.pool_window(node)?;
                op::MaxPool { kernel, window }.into()
            }
            "AveragePool" => {
                let (kernel, window) = self.pool_window(node)?;
                op::AveragePool { kernel, window, count_include_pad: node.int("count_include_pad", 0) != 0 }.into()
            }
            "GlobalAveragePool" => op::GlobalAveragePool.into(),
            "ReduceMean" => return self.reduce_mean(node),
            "Concat" => {
                let ndim = self.shape(node, 0)?.len();
                op::Concat { axis: node.axis(self.concat_axis(node)?, ndim)? }.into()
            }
            "Pad" => return self.pad(node),
            "Resize" | "Upsample" => return self.resize(node),
            "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => return self.reshape(node),
            _ => return Err(node.unsupported("the operator is not implemented")),
        };
        let inputs = self.operands(node)?;
        self.push(node, op, inputs)
    }

    /// Rejects nodes of opsets 1 to 6 that are in training mode, which is their default.
    fn check_test_mode(&self, node: &OnnxNode) -> Result<()> {
        match node.int("is_test", 0) {
            0 if self.opset < 7 => Err(node.unsupported("training mode (attribute is_test = 0)")),
            _ => Ok(()),
        }
    }

    fn dropout(&mut self, node: &OnnxNode) -> Result<()> {
        self.check_test_mode(node)?;
        if self.int_constant(node, 2)?.is_some_and(|mode| mode.len() != 1 || mode.first() != Some(&0)) {
            return Err(node.unsupported("training mode (input training_mode = true)"));
        }
        self.alias(node)
    }

    fn conv(&mut self, node: &OnnxNode) -> Result<()> {
        let weights = self.shape(node, 1)?;
        let &[_, _, height, width] = &weights[..] else {
            return Err(node.unsupported(alloc::format!("weights of shape {weights:?}: not a 2-D convolution")));
        };
        let window = node.window([height, width])?;
        let groups = node.sizes::<1>("group", &[node.int("group", 1)])?[0];
        let inputs = self.operands(node)?;
        self.push(node, op::Conv { window, groups }.into(), inputs)
    }

    fn pool_window(&self, node: &OnnxNode) -> Result<([usize; 2], Window)> {
        let input = self.shape(node, 0)?;
        if input.len() != 4 {
            return Err(node.unsupported(alloc::format!("an input of shape {input:?}: not a 2-D pooling")));
        }
        let kernel = node.ints("kernel_shape").ok_or_else(|| node.malformed("node", "kernel_shape", "none"))?;
        let kernel = node.sizes("kernel_shape", kernel)?;
        let window = node.window(kernel)?.with_ceil_mode(node.int("ceil_mode", 0) != 0);
        // A gap that spans the image is of no use, and shape inference would visit every output.
        if (0..2).any(|axis| kernel[axis] > 1 && window.dilations[axis] > input[axis + 2]) {
            let why = alloc::format!("attribute dilations = {:?} on shape {input:?}", window.dilations);
            return Err(node.unsupported(why));
        }
        Ok((kernel, window))
    }

    /// `alpha * A · B + beta * C`, with constant `B` and `C`.
    fn gemm(&mut self, node: &OnnxNode) -> Result<()> {
        let weights = self.required_constant(node, 1)?;
        let (alpha, beta) = (node.float("alpha", 1.0), node.float("beta", 1.0));
        let (weights, out) = self.weights(node, weights, node.int("transB", 0) != 0, alpha)?;
        let mut inputs = alloc::vec![self.operand(node.required(0)?)?, weights];
        if let Some(bias) = self.float_constant(node, 2)? {
            let row = bias.broadcast(IxDyn(&[1, out])).map(|b| b.index_axis(Axis(0), 0).mapv(|b| beta * b));
            let why = || node.unsupported(alloc::format!("input 2 of shape {:?}: not one row", bias.shape()));
            inputs.push(self.new_constant(node, "bias", row.ok_or_else(why)?)?);
        }
        self.push(node, op::Linear.into(), inputs)
    }

    fn matmul(&mut self, node: &OnnxNode) -> Result<()> {
        let lhs = self.shape(node, 0)?;
        if lhs.len() != 2 {
            return Err(node.unsupported(alloc::format!("an LHS of shape {lhs:?}: not a matrix")));
        }
        let weights = self.required_constant(node, 1)?;
        let (weights, _) = self.weights(node, weights, false, 1.0)?;
        let inputs = alloc::vec![self.operand(node.required(0)?)?, weights];
        self.push(node, op::Linear.into(), inputs)
    }

    fn required_constant(&self, node: &OnnxNode, i: usize) -> Result<Constant> {
        node.required(i)?;
        let missing = || node.malformed("node", alloc::format!("an input {i}"), "none");
        self.float_constant(node, i)?.ok_or_else(missing)
    }

    /// Adds the constant `alpha * w` in the layout `[out, in]`. Returns its name and `out`.
    fn weights(&mut self, node: &OnnxNode, w: Constant, transposed: bool, alpha: f32) -> Result<(String, usize)> {
        if w.ndim() != 2 {
            return Err(node.unsupported(alloc::format!("an RHS of shape {:?}: not a matrix", w.shape())));
        }
        let w = if transposed { w } else { w.reversed_axes() };
        let out = w.shape()[0];
        Ok((self.new_constant(node, "weight", w.mapv(|w| alpha * w))?, out))
    }

    /// `a - b` is `a + (-b)`, and `a / b` is `a * (1 / b)`, for a constant `b`.
    fn with_mapped_constant(&mut self, node: &OnnxNode, op: Op, f: impl Fn(f32) -> f32) -> Result<()> {
        let value = self.required_constant(node, 1)?;
        let value = self.new_constant(node, "operand", value.mapv(f))?;
        let inputs = alloc::vec![self.operand(node.required(0)?)?, value];
        self.push(node, op, inputs)
    }

    /// The value of a constant of one element.
    pub(super) fn scalar(&self, node: &OnnxNode, what: &'static str, value: &Constant) -> Result<f32> {
        match value.first() {
            Some(&first) if value.len() == 1 => Ok(first),
            _ => Err(node.malformed(what, "one element", alloc::format!("shape {:?}", value.shape()))),
        }
    }

    fn clip(&mut self, node: &OnnxNode) -> Result<()> {
        let bound = |i: usize, name: &'static str, unbounded: f32| -> Result<Option<f32>> {
            let bound = match self.float_constant(node, i)? {
                Some(value) => self.scalar(node, name, &value)?,
                None => node.float(name, unbounded),
            };
            match bound {
                _ if bound == unbounded => Ok(None),
                _ if bound.is_finite() => Ok(Some(bound)),
                _ => Err(node.unsupported(alloc::format!("{name} = {bound}"))),
            }
        };
        let clamp = Clamp { low: bound(1, "min", f32::NEG_INFINITY)?, high: bound(2, "max", f32::INFINITY)? };
        let inputs = alloc::vec![self.operand(node.required(0)?)?];
        self.push(node, Activation::Clip(clamp).into(), inputs)
    }

    fn softmax(&mut self, node: &OnnxNode) -> Result<()> {
        let shape = self.shape(node, 0)?;
        let axis = node.axis(node.int("axis", if self.opset < 13 { 1 } else { -1 }), shape.len())?;
        // Before opset 13 the operator flattens all axes from `axis` on.
        if self.opset < 13 && shape[axis + 1..].iter().any(|&len| len != 1) {
            let why = alloc::format!(
                "attribute axis = {axis} on shape {shape:?}: more than one axis in opset {}",
                self.opset
            );
            return Err(node.unsupported(why));
        }
        let inputs = alloc::vec![self.operand(node.required(0)?)?];
        self.push(node, op::Softmax { axis }.into(), inputs)
    }

    fn reduce_mean(&mut self, node: &OnnxNode) -> Result<()> {
        let shape = self.shape(node, 0)?;
        let axes = self.int_list(node, "axes", 1)?.unwrap_or_default();
        let mut axes = node.axes(&axes, shape.len())?;
        axes.sort_unstable();
        if shape.len() != 4 || axes != [2, 3] {
            let why = alloc::format!("axes {axes:?} of shape {shape:?}: only height and width are supported");
            return Err(node.unsupported(why));
        }
        let inputs: Vec<String> = alloc::vec![self.operand(node.required(0)?)?];
        if node.int("keepdims", 1) != 0 {
            return self.push(node, op::GlobalAveragePool.into(), inputs);
        }
        let mean = self.new_name(&alloc::format!("{}.mean", node.output()?));
        self.push_as(op::GlobalAveragePool.into(), inputs, &mean)?;
        self.push(node, op::Reshape { shape: alloc::vec![shape[1]] }.into(), alloc::vec![mean])
    }
}
