//! The operators of a float network.

use alloc::vec::Vec;

use crate::affine::clamp_f32;
use crate::window::Window;

/// Bounds that values are clamped to: `min(max(x, low), high)` (ONNX: `Clip`). One that is `None` does not bound.
///
/// ```
/// use ndarray_quant::graph::Clamp;
/// assert_eq!([-1.0, 3.0, 9.0].map(|x| Clamp::RELU6.apply(x)), [0.0, 3.0, 6.0]);
/// assert_eq!(Clamp { low: None, high: Some(1.0) }.apply(-5.0), -5.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Clamp {
    /// The lower bound.
    pub low: Option<f32>,
    /// The upper bound.
    pub high: Option<f32>,
}

impl Clamp {
    /// No bounds.
    pub const NONE: Self = Clamp { low: None, high: None };
    /// `max(x, 0)`.
    pub const RELU: Self = Clamp { low: Some(0.0), high: None };
    /// `min(max(x, 0), 6)`.
    pub const RELU6: Self = Clamp { low: Some(0.0), high: Some(6.0) };

    /// `min(max(x, low), high)`. NaN stays NaN.
    #[inline(always)]
    pub fn apply(self, x: f32) -> f32 {
        let (low, high) = self.bounds();
        clamp_f32(x, low, high)
    }

    /// Both bounds; infinite where there is none.
    pub(crate) fn bounds(self) -> (f32, f32) {
        (self.low.unwrap_or(f32::NEG_INFINITY), self.high.unwrap_or(f32::INFINITY))
    }

    /// The values of `then` after those of `self`, as one clamp.
    pub(crate) fn then(self, then: Clamp) -> Self {
        let ((low, high), (then_low, then_high)) = (self.bounds(), then.bounds());
        let bound = |x: f32| Some(then.apply(x)).filter(|x| x.is_finite());
        Clamp {
            low: if low.is_finite() || then_low.is_finite() { bound(low) } else { None },
            high: if high.is_finite() || then_high.is_finite() { bound(high) } else { None },
        }
    }
}

/// A function of single elements, by the formulas of the ONNX operators of the same names, in `f32`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Activation {
    /// `min(max(x, low), high)`.
    Clip(Clamp),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `min(max(alpha * x + beta, 0), 1)`.
    HardSigmoid {
        /// The slope.
        alpha: f32,
        /// The value at 0.
        beta: f32,
    },
    /// `x * min(max(x / 6 + 1/2, 0), 1)`.
    HardSwish,
    /// `x` where it is positive, else `alpha * x`.
    LeakyRelu {
        /// The slope below 0.
        alpha: f32,
    },
    /// `x / (1 + exp(-x))`, also called swish.
    Silu,
}

impl Activation {
    /// `max(x, 0)`.
    pub fn relu() -> Self {
        Activation::Clip(Clamp::RELU)
    }

    /// `min(max(x, 0), 6)`.
    pub fn relu6() -> Self {
        Activation::Clip(Clamp::RELU6)
    }

    /// The value at `x`.
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

/// What a node computes. Shapes are those of ONNX: `[batch, channels, height, width]` and `[batch, features]`; the
/// first axis of an activation is always the batch, and no operator mixes images of a batch.
///
/// `W` and `B` below are inputs of the node like any other, though they must be constant.
///
/// ```
/// use ndarray_quant::{graph::{GraphBuilder, Op}, nn::Window};
/// let mut g = GraphBuilder::new();
/// let x = g.input("image", &[1, 3, 8, 8])?;
/// let mean = Op::AveragePool { kernel: [2, 2], window: Window::new().with_strides([2, 2]), count_include_pad: false };
/// let y = g.node("mean", mean, &[&x])?;
/// let y = g.node("twice", Op::Concat { axis: 1 }, &[&y, &y])?;
/// assert_eq!(g.shape(&y), Some(&[1, 6, 4, 4][..]));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Op {
    /// Convolution of `X` with `W: [out, in / groups, height, width]`, and `B: [out]` added if there is one (ONNX:
    /// `Conv`).
    Conv {
        /// How the weights slide over height and width.
        window: Window,
        /// Groups of channels that do not see each other.
        groups: usize,
    },
    /// `X · Wᵀ + B` for `X: [batch, in]`, `W: [out, in]`, `B: [out]` (ONNX: `Gemm` with `transB`).
    Linear,
    /// `(X - mean) / sqrt(variance + epsilon) * scale + shift` per channel, for inputs `X`, `scale`, `shift`, `mean`,
    /// `variance`, all constant but `X` (ONNX: `BatchNormalization`).
    BatchNorm {
        /// What keeps the root away from 0.
        epsilon: f32,
    },
    /// The sum of two tensors that broadcast to each other (ONNX: `Add`).
    Add,
    /// The product of two tensors that broadcast to each other (ONNX: `Mul`).
    Mul,
    /// A function of each element.
    Activation(Activation),
    /// The greatest element under each place of a kernel; the padding counts for nothing (ONNX: `MaxPool`).
    MaxPool {
        /// The height and width of the kernel.
        kernel: [usize; 2],
        /// How it slides.
        window: Window,
    },
    /// The mean of the elements under each place of a kernel (ONNX: `AveragePool`).
    AveragePool {
        /// The height and width of the kernel.
        kernel: [usize; 2],
        /// How it slides.
        window: Window,
        /// Whether the padding counts as zeros, or not at all. What [`Window::ceil`] lets a kernel cover beyond the
        /// padding never counts.
        count_include_pad: bool,
    },
    /// The mean of each channel, with height and width of 1 (ONNX: `GlobalAveragePool`).
    GlobalAveragePool,
    /// All inputs one after the other along an axis other than the batch (ONNX: `Concat`).
    Concat {
        /// The axis.
        axis: usize,
    },
    /// Zeros around height and width: at the top, the left, the bottom and the right (ONNX: `Pad`).
    Pad {
        /// How many on each side.
        pads: [usize; 4],
    },
    /// Each element repeated down and to the right (ONNX: `Resize`, nearest, asymmetric, by whole factors).
    Repeat {
        /// How often.
        factors: [usize; 2],
    },
    /// The same elements in row-major order under another shape; the batch stays (ONNX: `Reshape`, `Flatten`).
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
    /// The operator's name, as messages and reports write it.
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
            Op::Repeat { .. } => "Repeat",
            Op::Reshape { .. } => "Reshape",
            Op::Softmax { .. } => "Softmax",
        }
    }
}
