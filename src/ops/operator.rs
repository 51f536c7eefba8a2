//! The trait of operators: what a graph needs to know of them. A graph matches on no operator.
//!
//! An operator is a folder here, or a file. It holds the attributes with their checks and shape inference, the kernel on
//! floats, the kernel on codes with its conventions, and the spelling in ONNX files. `registry` lists all of them.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use ndarray::{ArcArray, ArrayD, IxDyn};

use super::clamp::Clamp;
use super::float_weights::Weights;
use super::kernel::Kernel;
use super::nhwc::{Dims, broadcast_constant};
use super::output::Output;
use super::shape::Shape;
use crate::error::Result;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::qparams::QParams;
use crate::scheme::Scheme;
use crate::window::Window;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The value of a constant tensor: weights, a bias. Cheap to clone.
pub(crate) type Constant = ArcArray<f32, IxDyn>;

/// Integers that are known before a network runs: shapes, axes and flags. Cheap to clone.
pub(crate) type IntTensor = ArcArray<i64, IxDyn>;

/// An operator of a network, with its attributes.
///
/// Shapes are logical, for a batch of one. Inputs are in the order of the ONNX operator.
pub(crate) trait Operator {
    /// The name, as errors and reports print it.
    fn name(&self) -> &'static str;

    /// The numbers of inputs it takes, and how an error names them.
    fn arity(&self) -> (RangeInclusive<usize>, &'static str) {
        (1..=1, "1")
    }

    /// Checks the attributes as far as they do not depend on shapes.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Checks the shapes of the inputs, whose number has been checked, and returns the shape of the output.
    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape>;

    /// The layouts of inputs and output that the kernels take.
    fn layouts(&self) -> Layouts {
        Layouts::Same
    }

    /// Prepares the kernel on floats. `None` if the output is an alias of the input.
    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>>;

    /// Prepares the kernel on codes.
    fn code_kernel(&self, _: &CodeNode<'_>) -> Result<OnCodes> {
        Ok(OnCodes::Float)
    }

    /// Computes the output of constants, of any shape. `None` if that is not supported.
    fn evaluate(&self, _: &[&Constant]) -> Option<Result<ArrayD<f32>>> {
        None
    }

    /// Same as [`evaluate`](Self::evaluate), for integers.
    #[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "only files hold integers"))]
    fn evaluate_ints(&self, _: &[&IntTensor]) -> Option<Result<ArrayD<i64>>> {
        None
    }

    /// Adds the operator to an ONNX file. Returns the name of its output there.
    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        Err(node.unsupported("it has no form in ONNX files"))
    }

    /// The form of a layer: a product with weights, input 1, and a bias, input 2, along the channels of the output.
    fn layer(&self) -> Option<Layer> {
        None
    }

    /// Returns whether axis 0 of input 1, and input 2, are the channels of the output, so that factors of channels can be
    /// folded into them.
    fn has_channel_parameters(&self) -> bool {
        self.layer().is_some()
    }

    /// Returns whether input 1 holds recurrent weights `[out, in]`. The kernel on floats takes them as codes, and quantizes
    /// the state that it multiplies with them, row by row.
    fn has_recurrent_weights(&self) -> bool {
        false
    }

    /// Returns whether the inputs after the first one are parameters, which must be constant.
    fn has_parameters(&self) -> bool {
        self.layer().is_some()
    }

    /// Returns whether kernels store constant inputs, so that these are not inputs of a step.
    fn stores_constants(&self) -> bool {
        self.has_parameters()
    }

    /// Returns whether the kernel on codes takes constant inputs, by codes of their own range.
    fn quantizes_constants(&self) -> bool {
        false
    }

    /// Returns whether a node may have a clamp, which the kernels apply to the output.
    fn supports_clamp(&self) -> bool {
        self.has_parameters()
    }

    /// The bounds, if the operator is a clamp.
    fn as_clamp(&self) -> Option<Clamp> {
        None
    }

    /// The factor and the summand of each channel, if the operator multiplies and adds constants by channel. The channels
    /// are the axis `axis` of the activation of shape `x`; `constants` are the values of the inputs that are constant.
    fn channel_affine(&self, _x: &[usize], _axis: usize, _constants: &[Option<Constant>]) -> Option<Vec<(f64, f64)>> {
        None
    }

    /// Returns whether an input must not be rounded, because it is compared.
    fn takes_exact_values(&self, _input: usize) -> bool {
        false
    }

    /// Returns whether the output only has values of the input, so that it keeps the range and the codes.
    fn keeps_range(&self) -> bool {
        false
    }

    /// Returns whether differences of large inputs vanish in the output, as those of logits do in probabilities.
    fn saturates(&self) -> bool {
        false
    }

    /// Returns whether a positive factor of a channel (axis 1) of all inputs is the same factor of the channel of the output.
    fn commutes_with_scaling(&self, _inputs: &Inputs<'_>, _output: &[usize]) -> bool {
        false
    }
}

/// The layouts that the kernels of an operator take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layouts {
    /// The inputs and the output have one layout.
    Same,
    /// The inputs and the output have the channels last.
    ChannelsLast,
    /// Each has any layout.
    Any,
}

/// The shapes of the inputs of a node, and which of them are constant.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) shapes: &'a [&'a [usize]],
    pub(crate) constant: &'a [bool],
}

impl<'a> Inputs<'a> {
    /// The shape of the first input.
    pub(crate) fn x(&self) -> &'a [usize] {
        self.shapes[0]
    }
}

/// The form of a convolution or linear layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    pub(crate) window: Window,
    pub(crate) groups: usize,
}

/// A node to be prepared on floats.
pub(crate) struct FloatNode<'a> {
    pub(crate) inputs: &'a [Dims<'a>],
    pub(crate) output: Dims<'a>,
    /// The values of constant inputs, if the operator stores them.
    pub(crate) constants: &'a [Option<Weights>],
    pub(crate) clamp: Clamp,
}

impl<'a> FloatNode<'a> {
    /// The shape of the first input.
    pub(crate) fn x(&self) -> Dims<'a> {
        self.inputs[0]
    }

    /// The constant input `i` in the precision it is stored in.
    pub(crate) fn weights(&self, i: usize) -> Option<&'a Weights> {
        self.constants.get(i).and_then(Option::as_ref)
    }

    /// The constant input `i`.
    pub(crate) fn values(&self, i: usize) -> Option<Constant> {
        self.weights(i).map(Weights::to_f32)
    }

    /// The elements of the constant input `i`.
    pub(crate) fn vector(&self, i: usize) -> Option<Vec<f32>> {
        self.values(i).map(|values| values.iter().copied().collect())
    }

    /// The constant input `i`, to be broadcast to the output in memory order.
    pub(crate) fn broadcast(&self, i: usize) -> Option<ArrayD<f32>> {
        self.values(i).map(|values| broadcast_constant(values.into_owned(), self.output))
    }
}

/// A node to be prepared on codes.
pub(crate) struct CodeNode<'a> {
    pub(crate) inputs: &'a [Dims<'a>],
    pub(crate) output: Dims<'a>,
    pub(crate) operands: &'a [Operand],
    /// The parameters of the output.
    pub(crate) to: &'a QParams<u8>,
    pub(crate) clamp: Clamp,
    /// Another system holds the codes as `i8`, see [`GivenParams`](crate::graph::GivenParams).
    pub(crate) signed: bool,
}

/// An input of a node on codes: its parameters, and its codes if it is constant.
#[derive(Debug, Clone)]
pub(crate) struct Operand {
    pub(crate) params: QParams<u8>,
    pub(crate) constant: Option<ArrayD<u8>>,
}

impl Operand {
    /// Quantizes a constant by its own range.
    pub(crate) fn constant(value: &Constant) -> Result<Self> {
        let (codes, params) = Scheme::<u8>::asymmetric().quantize(&**value)?.into_parts();
        let (scale, zero_point) = params.of_tensor("a constant")?;
        Ok(Self { params: QParams::per_tensor(scale, zero_point)?, constant: Some(codes) })
    }
}

impl<'a> CodeNode<'a> {
    /// The shape of the first input.
    pub(crate) fn x(&self) -> Dims<'a> {
        self.inputs[0]
    }

    /// The parameters of the first input.
    pub(crate) fn params(&self) -> &'a QParams<u8> {
        &self.operands[0].params
    }

    /// Returns whether all inputs have the parameters of the output, so that codes can be moved and compared.
    pub(crate) fn same_params(&self) -> bool {
        self.operands.iter().all(|operand| operand.params == *self.to)
    }

    /// The codes of the output, with the clamp of the node.
    pub(crate) fn to(&self) -> Output<u8> {
        let to = Output::to(self.to).clamp(self.clamp.low, self.clamp.high);
        if self.signed { to.offset() } else { to }
    }

    /// The codes of constant inputs, to be broadcast to the output in memory order.
    pub(crate) fn broadcast_constants(&self) -> Vec<Option<ArrayD<u8>>> {
        let broadcast = |codes: &ArrayD<u8>| broadcast_constant(codes.clone(), self.output);
        self.operands.iter().map(|operand| operand.constant.as_ref().map(broadcast)).collect()
    }
}

/// How a node computes on codes.
pub(crate) enum OnCodes {
    /// It does not: it runs on floats.
    Float,
    /// The output is an alias of the input.
    Alias,
    Kernel(Box<dyn Kernel>),
}

impl OnCodes {
    pub(crate) fn kernel(kernel: impl Kernel + 'static) -> Result<Self> {
        Ok(OnCodes::Kernel(Box::new(kernel)))
    }
}
