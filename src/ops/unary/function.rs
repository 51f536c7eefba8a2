//! Functions of one element: their attributes and formulas.

use super::super::clamp::Clamp;
use super::super::shape::check_finite;
use crate::error::Result;

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

    pub(super) fn name(self) -> &'static str {
        match self {
            Activation::Clip(Clamp::RELU) => "Relu",
            Activation::Clip(_) => "Clip",
            Activation::Sigmoid => "Sigmoid",
            Activation::Tanh => "Tanh",
            Activation::HardSigmoid { .. } => "HardSigmoid",
            Activation::HardSwish => "HardSwish",
            Activation::LeakyRelu { .. } => "LeakyRelu",
            Activation::Silu => "Silu",
        }
    }

    /// Returns an error unless the attributes are finite.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Activation::Clip(clamp) => clamp.check(),
            Activation::HardSigmoid { alpha, beta } => check_finite("alpha and beta", [alpha, beta]),
            Activation::LeakyRelu { alpha } => check_finite("alpha", [alpha]),
            _ => Ok(()),
        }
    }
}
