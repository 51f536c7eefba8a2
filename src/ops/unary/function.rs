//! Functions of one element: their attributes and formulas.

use core::f32::consts::FRAC_1_SQRT_2;

use super::super::clamp::Clamp;
use super::super::shape::check_finite;
use super::math::{erf, exp, sigmoid, tanh};
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
    /// `|x|`.
    Abs,
    /// The smallest integer that is not less than `x`.
    Ceil,
    /// `cos(x)`.
    Cos,
    /// `x` if `x > 0`, else `alpha * (exp(x) - 1)`.
    Elu {
        /// The limit for negative `x` is `-alpha`.
        alpha: f32,
    },
    /// `2 / sqrt(pi) * ∫ exp(-t²) dt` from 0 to `x`.
    Erf,
    /// `exp(x)`.
    Exp,
    /// The greatest integer that is not greater than `x`.
    Floor,
    /// `x / 2 * (1 + erf(x / sqrt(2)))`.
    Gelu,
    /// `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x³)))` (ONNX: `Gelu` with `approximate` "tanh").
    GeluTanh,
    /// The natural logarithm.
    Log,
    /// `x * tanh(ln(1 + exp(x)))`.
    Mish,
    /// `-x`.
    Neg,
    /// `x` to a constant power.
    Pow {
        /// The exponent.
        exponent: f32,
    },
    /// `1 / x`.
    Reciprocal,
    /// The nearest integer, ties to even.
    Round,
    /// -1, 0 or 1, the sign of `x`.
    Sign,
    /// `sin(x)`.
    Sin,
    /// `ln(1 + exp(x))`.
    Softplus,
    /// `x / (1 + |x|)`.
    Softsign,
    /// The square root.
    Sqrt,
    /// The integer that is nearest towards zero (ONNX: `Cast` to an integer type).
    Truncate,
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
    #[inline(always)]
    pub fn eval(self, x: f32) -> f32 {
        match self {
            Activation::Clip(clamp) => clamp.apply(x),
            Activation::Sigmoid => sigmoid(x),
            Activation::Tanh => tanh(x),
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
            Activation::Abs => num_traits::Float::abs(x),
            Activation::Ceil => num_traits::Float::ceil(x),
            Activation::Cos => num_traits::Float::cos(x),
            Activation::Elu { alpha } => {
                if x > 0.0 {
                    x
                } else {
                    alpha * num_traits::Float::exp_m1(x)
                }
            }
            Activation::Erf => erf(x),
            Activation::Exp => exp(x),
            Activation::Floor => num_traits::Float::floor(x),
            Activation::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
            Activation::GeluTanh => {
                let inner = GELU_FACTOR * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + tanh(inner))
            }
            Activation::Log => num_traits::Float::ln(x),
            Activation::Mish => x * tanh(softplus(x)),
            Activation::Neg => -x,
            Activation::Pow { exponent } => num_traits::Float::powf(x, exponent),
            Activation::Reciprocal => 1.0 / x,
            Activation::Round => round(x),
            Activation::Sign => {
                if x == 0.0 {
                    0.0
                } else {
                    num_traits::Float::signum(x)
                }
            }
            Activation::Sin => num_traits::Float::sin(x),
            Activation::Softplus => softplus(x),
            Activation::Softsign => x / (1.0 + num_traits::Float::abs(x)),
            Activation::Sqrt => num_traits::Float::sqrt(x),
            Activation::Truncate => num_traits::Float::trunc(x),
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
            Activation::Abs => "Abs",
            Activation::Ceil => "Ceil",
            Activation::Cos => "Cos",
            Activation::Elu { .. } => "Elu",
            Activation::Erf => "Erf",
            Activation::Exp => "Exp",
            Activation::Floor => "Floor",
            Activation::Gelu | Activation::GeluTanh => "Gelu",
            Activation::Log => "Log",
            Activation::Mish => "Mish",
            Activation::Neg => "Neg",
            Activation::Pow { .. } => "Pow",
            Activation::Reciprocal => "Reciprocal",
            Activation::Round => "Round",
            Activation::Sign => "Sign",
            Activation::Sin => "Sin",
            Activation::Softplus => "Softplus",
            Activation::Softsign => "Softsign",
            Activation::Sqrt => "Sqrt",
            Activation::Truncate => "Truncate",
        }
    }

    /// Returns an error unless the attributes are finite.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Activation::Clip(clamp) => clamp.check(),
            Activation::HardSigmoid { alpha, beta } => check_finite("alpha and beta", [alpha, beta]),
            Activation::LeakyRelu { alpha } | Activation::Elu { alpha } => check_finite("alpha", [alpha]),
            Activation::Pow { exponent } => check_finite("exponent", [exponent]),
            _ => Ok(()),
        }
    }
}

/// `sqrt(2 / pi)`.
const GELU_FACTOR: f32 = 0.797_884_6;

/// `ln(1 + exp(x))`, without overflow.
fn softplus(x: f32) -> f32 {
    x.max(0.0) + num_traits::Float::ln_1p(exp(-x.abs()))
}

/// The nearest integer, ties to even.
fn round(x: f32) -> f32 {
    let nearest = num_traits::Float::round(x);
    let tie = num_traits::Float::abs(nearest - x) == 0.5 && nearest % 2.0 != 0.0;
    if tie { nearest - num_traits::Float::signum(x) } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_to_even() {
        let rounded = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4, 1e9].map(round);
        assert_eq!(rounded, [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0, 2.0, 1e9]);
    }
}
