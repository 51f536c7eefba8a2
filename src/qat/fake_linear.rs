//! The linear layer of quantization-aware training.

use alloc::vec::Vec;

use ndarray::{Array1, Array2, ArrayRef1, ArrayRef2, Axis, Ix2};

use super::fake_quantize::{FakeQuantize, Gradients};
use crate::affine::{Arithmetic, Codes, Multiplier, SteClipping};
use crate::element::{Code, Element};
use crate::error::{Result, check_shapes};
use crate::gemm::{I32Epilogue, Int8, gemm};
use crate::ops::linear::{Linear, PreparedLinear, pack_weights};
use crate::ops::{Output, check_bias, float_product, quantize_bias};
use crate::qparams::QParams;

/// A linear layer in training, `y = fake_quantize(x̂ · ŵᵀ + b̂)`, whose output codes equal its integer form's, bit for bit.
///
/// The forward pass is the integer layer: inputs and weights are quantized, their product is an exact `i32`, the bias is
/// rounded to the unit of the accumulator ([`fake_quantize_bias`](super::fake_quantize_bias)), and the accumulator is
/// requantized. A float product of fake-quantized values would be rounded, and could fall on the other side of a tie.
/// [`to_integer`](Self::to_integer) therefore changes no output code.
///
/// The backward pass is straight-through: with `g` the gradient that passes the fake quantization of the output,
/// `∂L/∂x = g · ŵ`, `∂L/∂ŵ = gᵀ · x` (then through the fake quantization of the weights), and `∂L/∂b` is the sum of the rows
/// of `g`. (Jacob et al. 2018, section 3.)
///
/// Weights are `[out, in]`, per tensor or per axis 0, of 8 bits or fewer.
///
/// ```
/// use ndarray::{Axis, array};
/// use ndarray_quant::{QParams, Quantize, Scheme, nn::Output, qat::{FakeLinear, FakeQuantize}};
///
/// let (w, bias) = (array![[1.0f32, -1.0], [0.5, 0.25]], array![0.1f32, 0.0]);
/// let weights = FakeQuantize::new(Scheme::<i8>::symmetric().with_bits(4)?.per_axis(Axis(0)).params_of(&w)?);
/// let (input, output) = (QParams::<u8>::per_tensor(0.01, 0)?, QParams::<u8>::per_tensor(0.02, 0)?);
/// let layer = FakeLinear::new(&input, &weights, &Output::to(&output).relu())?;
///
/// let x = array![[2.0f32, 1.0]];
/// let pass = layer.forward(&x, &w, Some(&bias))?;
/// let gradients = layer.backward(&x, &w, &pass, &array![[1.0f32, 1.0]])?;
/// assert_eq!(gradients.bias, array![1.0, 1.0]);
///
/// let integer = layer.to_integer(&w, Some(&bias))?;
/// let y = integer.forward(&input.quantize(&x)?)?;
/// assert_eq!(y.codes(), pass.codes());
/// assert_eq!(y.dequantize(), pass.output());
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FakeLinear<X: Int8, T: Element, Y: Element> {
    x: QParams<X>,
    weights: FakeQuantize<T>,
    to: Output<Y>,
    /// Fake quantization of outputs in units of their scale, clamped to the bounds of the activation.
    unit: FakeQuantize<Y>,
}

/// The output of a forward pass of [`FakeLinear`], and the values that its backward pass needs.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearPass<Y: Element> {
    codes: Array2<Y::Code>,
    output: Array2<f32>,
    /// The outputs in units of their scale, before rounding.
    unrounded: Array2<f32>,
    /// The fake-quantized weights.
    weights: Array2<f32>,
}

impl<Y: Element> LinearPass<Y> {
    /// The codes of the outputs, `[batch, out]`.
    pub fn codes(&self) -> &Array2<Y::Code> {
        &self.codes
    }

    /// The dequantized outputs, `[batch, out]`, which the next layer sees.
    pub fn output(&self) -> &Array2<f32> {
        &self.output
    }
}

/// The gradients of a loss by the inputs of [`FakeLinear`].
#[derive(Debug, Clone, PartialEq)]
pub struct LinearGradients {
    /// The gradient by the input, `[batch, in]`, which is the gradient by the output of the layer before.
    pub input: Array2<f32>,
    /// The gradients by the weights, `[out, in]`, by their scales and by their zero points.
    pub weights: Gradients<f32, Ix2>,
    /// The gradient by the bias, `[out]`.
    pub bias: Array1<f32>,
    /// The gradient by the output scale.
    pub output_scale: f32,
    /// The gradient by the output zero point.
    pub output_zero_point: f32,
}

impl<X: Int8, T: Element<Code: Int8>, Y: Element> FakeLinear<X, T, Y> {
    /// A layer with input parameters `x`, fake-quantized weights, and the output spec `to`, which may fuse an activation.
    ///
    /// The outputs take the clipping condition of the weights; change it by [`with_output_clipping`](Self::with_output_clipping).
    ///
    /// # Errors
    /// [`Error::Params`](crate::Error::Params) unless inputs and outputs are per tensor, and if the activation's bounds
    /// exclude zero.
    pub fn new(x: &QParams<X>, weights: &FakeQuantize<T>, to: &Output<Y>) -> Result<Self> {
        x.of_tensor("input")?;
        let (_, zero_point) = to.params.of_tensor("output")?;
        let (min, max) = to.clamp_range();
        let unit = QParams::per_tensor(1.0, zero_point)?.with_code_range(min, max)?;
        let unit = FakeQuantize::new(unit).with_clipping(weights.clipping());
        Ok(Self { x: x.clone(), weights: weights.clone(), to: to.clone(), unit })
    }

    /// Sets the clipping condition for the outputs. The default is the weights' condition.
    pub fn with_output_clipping(mut self, clipping: SteClipping) -> Self {
        self.unit = self.unit.with_clipping(clipping);
        self
    }

    /// The forward pass: `x` is `[batch, in]`, `weights` `[out, in]`, `bias` `[out]`; the output is `[batch, out]`.
    ///
    /// # Errors
    /// Same as [`Linear::new`] and [`Linear::forward`].
    pub fn forward(
        &self,
        x: &ArrayRef2<f32>,
        weights: &ArrayRef2<f32>,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<LinearPass<Y>> {
        let ((x_scale, x_zero_point), (y_scale, y_zero_point)) =
            (self.x.of_tensor("input")?, self.to.params.of_tensor("output")?);
        let weights = self.weights.params().quantize(weights)?;
        let (w_scales, packed) = pack_weights(&weights)?;
        check_bias(bias, packed.ncols())?;
        let bias = bias.map(|bias| quantize_bias(&bias.to_vec(), x_scale, &w_scales)).transpose()?;
        let epilogue = bias.map_or_else(I32Epilogue::new, |bias| I32Epilogue::with_bias(&bias));
        let acc = gemm(&self.x.quantize(x)?.unpacked_codes(), x_zero_point, &packed, &epilogue)?;

        let multiplier = |arithmetic| {
            let channel = |&w_scale: &f32| Multiplier::new(x_scale, w_scale, y_scale, arithmetic);
            w_scales.iter().map(channel).collect::<Result<Vec<_>>>()
        };
        let (to_code, to_unrounded) = (multiplier(self.to.arithmetic)?, multiplier(Arithmetic::F32)?);
        let (min, max) = self.to.clamp_range();
        let mut codes = Array2::from_elem(acc.raw_dim(), Y::Code::default());
        let mut unrounded = Array2::zeros(acc.raw_dim());
        for ((acc, mut codes), mut unrounded) in acc.rows().into_iter().zip(codes.rows_mut()).zip(unrounded.rows_mut())
        {
            for (j, &acc) in acc.iter().enumerate() {
                let channel = if w_scales.len() == 1 { 0 } else { j };
                let code = to_code[channel].apply::<Y>(acc, y_zero_point.to_i32(), Codes { min, max });
                codes[j] = Y::Code::from_i32(code);
                unrounded[j] = to_unrounded[channel].centred(acc);
            }
        }
        let mut output = Array2::zeros(codes.raw_dim());
        self.to.params.dequantize_into(&codes, &mut output)?;
        Ok(LinearPass { codes, output, unrounded, weights: weights.dequantize() })
    }

    /// The backward pass, given the input and weights of the forward pass, its result, and the gradient of its output.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) if a shape differs from the forward pass.
    pub fn backward(
        &self,
        x: &ArrayRef2<f32>,
        weights: &ArrayRef2<f32>,
        pass: &LinearPass<Y>,
        grad: &ArrayRef2<f32>,
    ) -> Result<LinearGradients> {
        check_shapes("input", &[pass.unrounded.nrows(), pass.weights.ncols()], x.shape())?;
        let (y_scale, _) = self.to.params.of_tensor("output")?;
        // The output is `y_scale * round(v)`, with `v = z / y_scale` of the unrounded output `z`. The scale cancels from the
        // derivative by `z`, so gradients are computed in units of `y_scale`.
        let by_output = self.unit.gradients(&pass.unrounded, grad)?;
        let by_weights = float_product(by_output.input.t(), x.view());
        Ok(LinearGradients {
            input: float_product(by_output.input.view(), pass.weights.view()),
            weights: self.weights.gradients(weights, &by_weights)?,
            bias: by_output.input.sum_axis(Axis(0)),
            output_scale: by_output.scale.sum(),
            output_zero_point: by_output.zero_point.sum() * y_scale,
        })
    }

    /// The integer layer, whose output codes equal the codes of [`forward`](Self::forward).
    ///
    /// # Errors
    /// Same as [`Linear::new`] and [`Linear::prepare`].
    pub fn to_integer(
        &self,
        weights: &ArrayRef2<f32>,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<PreparedLinear<X, T::Code, Y>> {
        Linear::new(&self.weights.params().quantize(weights)?, bias)?.prepare(&self.x, &self.to)
    }
}
