//! The operators of a graph and their attributes.

use alloc::vec::Vec;

use crate::affine::clamp_f32;
use crate::window::Window;

/// The bounds of a fused activation: `min(max(x, low), high)` (ONNX: `Clip`). `None` leaves that side unbounded.
///
/// ```
/// use ndarray_quant::graph::Clamp;
/// assert_eq!([-1.0, 3.0, 9.0].map(|x| Clamp::RELU6.apply(x)), [0.0, 3.0, 6.0]);
/// assert_eq!(Clamp { low: None, high: Some(1.0) }.apply(-5.0), -5.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Clamp {
    /// Lower bound.
    pub low: Option<f32>,
    /// Upper bound.
    pub high: Option<f32>,
}

impl Clamp {
    /// No bounds.
    pub const NONE: Self = Clamp { low: None, high: None };
    /// `max(x, 0)`.
    pub const RELU: Self = Clamp { low: Some(0.0), high: None };
    /// `min(max(x, 0), 6)`.
    pub const RELU6: Self = Clamp { low: Some(0.0), high: Some(6.0) };

    /// Computes `min(max(x, low), high)`. NaN stays NaN.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        let (low, high) = self.bounds();
        clamp_f32(x, low, high)
    }

    /// Both bounds; a bound of `None` is infinite.
    pub(crate) fn bounds(self) -> (f32, f32) {
        (self.low.unwrap_or(f32::NEG_INFINITY), self.high.unwrap_or(f32::INFINITY))
    }

    /// The composition of two clamps: `then.apply(self.apply(x))` for every `x`.
    pub(crate) fn then(self, then: Clamp) -> Self {
        let ((low, high), (then_low, then_high)) = (self.bounds(), then.bounds());
        let bound = |x: f32| Some(then.apply(x)).filter(|x| x.is_finite());
        Clamp {
            low: if low.is_finite() || then_low.is_finite() { bound(low) } else { None },
            high: if high.is_finite() || then_high.is_finite() { bound(high) } else { None },
        }
    }
}

/// An elementwise function, by the formula of the ONNX operator of the same name, in `f32`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Activation {
    /// `min(max(x, low), high)`.
    Clip(Clamp),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
    /// `min(max(alpha * x + beta, 0), 1)`.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at 0.
        beta: f32,
    },
    /// `x * min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// `x` if `x > 0`, else `alpha * x`.
    LeakyRelu {
        /// Slope for negative `x`.
        alpha: f32,
    },
    /// `x * sigmoid(x)`, also called swish.
    Silu,
}

impl Activation {
    /// ReLU: `max(x, 0)`.
    pub fn relu() -> Self {
        Activation::Clip(Clamp::RELU)
    }

    /// ReLU6: `min(max(x, 0), 6)`.
    pub fn relu6() -> Self {
        Activation::Clip(Clamp::RELU6)
    }

    /// Evaluates the function at `x`.
    ///
    /// ```
    /// use ndarray_quant::graph::Activation;
    /// assert_eq!(Activation::relu6().eval(7.0), 6.0);
    /// assert_eq!(Activation::Sigmoid.eval(0.0), 0.5);
    /// assert_eq!(Activation::HardSwish.eval(1.0), 4.0 / 6.0);
    /// ```
    pub fn eval(self, x: f32) -> f32 {
        let sigmoid = |x: f32| 1.0 / (1.0 + num_traits::Float::exp(-x));
        match self {
            Activation::Clip(clamp) => clamp.apply(x),
            Activation::Sigmoid => sigmoid(x),
            Activation::Tanh => num_traits::Float::tanh(x),
            Activation::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Activation::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Activation::LeakyRelu { alpha } => {
                if x > 0.0 {
                    x
                } else {
                    alpha * x
                }
            }
            Activation::Silu => x * sigmoid(x),
        }
    }
}

/// An operator of a [`Graph`](super::Graph), with its attributes.
///
/// Layout is ONNX's: NCHW `[batch, channels, height, width]` for images, `[batch, features]` for vectors. The first axis
/// of every activation is the batch, and no operator mixes samples of a batch.
///
/// `X` is the first input. Weights, biases and normalization statistics are further inputs, which must be constant.
/// [`GraphBuilder`](super::GraphBuilder) has a method for each operator; use
/// [`GraphBuilder::node`](super::GraphBuilder::node) to share constants between nodes.
///
/// ```
/// use ndarray::Array2;
/// use ndarray_quant::graph::{GraphBuilder, Op};
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 3])?;
/// let w = g.constant("w", &Array2::eye(3))?; // one matrix, used twice
/// let y = g.node("y", Op::Linear, &[x, w])?;
/// let z = g.node("z", Op::Linear, &[y, w])?;
/// assert_eq!(g.shape(z)?, [1, 3]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Op {
    /// Convolution of `X: [batch, in, h, w]` with weights `[out, in / groups, kh, kw]`, plus an optional bias `[out]`
    /// (ONNX: `Conv`).
    Conv {
        /// Strides, dilations and padding of the kernel.
        window: Window,
        /// Number of channel groups: each group of outputs reads its own group of inputs.
        groups: usize,
    },
    /// `X · Wᵀ + B` for `X: [batch, in]`, weights `W: [out, in]` and an optional bias `B: [out]` (ONNX: `Gemm` with
    /// `transB = 1`).
    Linear,
    /// `(X - mean) / sqrt(variance + epsilon) * scale + shift` per channel, the second axis of `X`. The inputs after `X`
    /// are `scale`, `shift`, `mean` and `variance`, each `[channels]` (ONNX: `BatchNormalization`).
    BatchNorm {
        /// Added to the variance, so that the root is not 0.
        epsilon: f32,
    },
    /// The sum of two tensors, with broadcasting (ONNX: `Add`).
    Add,
    /// The product of two tensors, with broadcasting (ONNX: `Mul`).
    Mul,
    /// An elementwise function.
    Activation(Activation),
    /// The maximum of each window; padding is ignored (ONNX: `MaxPool`).
    MaxPool {
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Strides, dilations and padding of the kernel.
        window: Window,
    },
    /// The mean of each window (ONNX: `AveragePool`).
    AveragePool {
        /// Height and width of the kernel.
        kernel: [usize; 2],
        /// Strides, dilations and padding of the kernel.
        window: Window,
        /// Counts padding as zeros in the mean. Elements beyond the padding, which
        /// [`ceil_mode`](Window::with_ceil_mode) lets a kernel cover, never count.
        count_include_pad: bool,
    },
    /// The mean of each channel: `[batch, c, h, w]` to `[batch, c, 1, 1]` (ONNX: `GlobalAveragePool`).
    GlobalAveragePool,
    /// Concatenation of all inputs along an axis other than the batch (ONNX: `Concat`).
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Zero padding of height and width (ONNX: `Pad`).
    Pad {
        /// Rows or columns added at the top, left, bottom and right.
        pads: [usize; 4],
    },
    /// Nearest-neighbour upsampling of height and width by integer factors (ONNX: `Resize`, mode `nearest`, coordinates
    /// `asymmetric`).
    Resize {
        /// Factors of height and width.
        scales: [usize; 2],
    },
    /// The same elements, in row-major order, in another shape; the batch stays (ONNX: `Reshape`, `Flatten`).
    Reshape {
        /// The shape without the batch.
        shape: Vec<usize>,
    },
    /// `exp(x) / Σ exp(x)` along an axis other than the batch (ONNX: `Softmax`).
    Softmax {
        /// The axis.
        axis: usize,
    },
}

impl Op {
    /// The operator's name, as errors and reports print it.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Conv { .. } => "Conv",
            Op::Linear => "Linear",
            Op::BatchNorm { .. } => "BatchNorm",
            Op::Add => "Add",
            Op::Mul => "Mul",
            Op::Activation(a) => match a {
                Activation::Clip(Clamp::RELU) => "Relu",
                Activation::Clip(_) => "Clip",
                Activation::Sigmoid => "Sigmoid",
                Activation::Tanh => "Tanh",
                Activation::HardSigmoid { .. } => "HardSigmoid",
                Activation::HardSwish => "HardSwish",
                Activation::LeakyRelu { .. } => "LeakyRelu",
                Activation::Silu => "Silu",
            },
            Op::MaxPool { .. } => "MaxPool",
            Op::AveragePool { .. } => "AveragePool",
            Op::GlobalAveragePool => "GlobalAveragePool",
            Op::Concat { .. } => "Concat",
            Op::Pad { .. } => "Pad",
            Op::Resize { .. } => "Resize",
            Op::Reshape { .. } => "Reshape",
            Op::Softmax { .. } => "Softmax",
        }
    }

    /// Returns the number of groups of a convolution, and 1 for other operators.
    pub(crate) fn groups(&self) -> usize {
        if let Op::Conv { groups, .. } = *self { groups } else { 1 }
    }

    /// Returns whether a node of this operator may have a [clamp](super::Node::clamp).
    pub(crate) fn supports_clamp(&self) -> bool {
        matches!(self, Op::Conv { .. } | Op::Linear | Op::BatchNorm { .. } | Op::Add | Op::Mul)
    }
}
