//! Functions of one element: their attributes and formulas.

use core::f32::consts::FRAC_1_SQRT_2;

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
    pub fn eval(self, x: f32) -> f32 {
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
            Activation::Exp => num_traits::Float::exp(x),
            Activation::Floor => num_traits::Float::floor(x),
            Activation::Gelu => 0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2)),
            Activation::GeluTanh => {
                let inner = GELU_FACTOR * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + num_traits::Float::tanh(inner))
            }
            Activation::Log => num_traits::Float::ln(x),
            Activation::Mish => x * num_traits::Float::tanh(softplus(x)),
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
    x.max(0.0) + num_traits::Float::ln_1p(num_traits::Float::exp(-num_traits::Float::abs(x)))
}

/// The nearest integer, ties to even.
fn round(x: f32) -> f32 {
    let nearest = num_traits::Float::round(x);
    let tie = num_traits::Float::abs(nearest - x) == 0.5 && nearest % 2.0 != 0.0;
    if tie { nearest - num_traits::Float::signum(x) } else { nearest }
}

/// The error function, with a relative error below 1e-6. Computed in `f64`.
fn erf(x: f32) -> f32 {
    let (x, magnitude) = (f64::from(x), num_traits::Float::abs(f64::from(x)));
    if magnitude < 1.0 {
        // The Taylor series `2 / sqrt(pi) * Σ (-1)^n x^(2n + 1) / (n! (2n + 1))`.
        const TERMS: usize = 12;
        let (square, mut power, mut sum) = (x * x, x, 0.0);
        for n in 0..TERMS {
            sum += power / (2 * n + 1) as f64;
            power *= -square / (n + 1) as f64;
        }
        return (sum * core::f64::consts::FRAC_2_SQRT_PI) as f32;
    }
    // Abramowitz and Stegun, 7.1.26: an absolute error of 1.5e-7.
    const P: f64 = 0.327_591_1;
    const A: [f64; 5] = [0.254_829_592, -0.284_496_736, 1.421_413_741, -1.453_152_027, 1.061_405_429];
    let t = 1.0 / (1.0 + P * magnitude);
    let polynomial = A.iter().rev().fold(0.0, |sum, a| (sum + a) * t);
    let y = 1.0 - polynomial * num_traits::Float::exp(-magnitude * magnitude);
    (if x < 0.0 { -y } else { y }) as f32
}

/// `1 / (1 + exp(-x))`.
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + num_traits::Float::exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_function() {
        // From tables.
        let pairs = [(0.0, 0.0), (0.1, 0.112_462_92), (0.5, 0.520_499_9), (0.999, 0.842_285_6), (1.0, 0.842_700_8)];
        for (x, y) in pairs.into_iter().chain([(1.5, 0.966_105_2), (2.0, 0.995_322_3), (4.0, 1.0)]) {
            assert!((erf(x) - y).abs() < 3e-7, "{x}: {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn ties_to_even() {
        let rounded = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.4, 1e9].map(round);
        assert_eq!(rounded, [-2.0, -2.0, 0.0, 0.0, 2.0, 2.0, 2.0, 1e9]);
    }
}
