//! The output specification of integer operators.

use crate::affine::{Arithmetic, Codes, FixedPointRounding};
use crate::element::Element;
use crate::error::Result;
use crate::gemm::RequantizeEpilogue;
use crate::qparams::QParams;

/// The output specification of an integer layer or operator: parameters, arithmetic, fused activation.
///
/// Accumulators become `clamp(round(acc * multiplier) + zero_point)`, where `multiplier` is the product of the input
/// scales divided by the output scale, evaluated in the given [`Arithmetic`]. The clamp is the code range of the
/// parameters, narrowed by the activation.
///
/// | method | effect |
/// |---|---|
/// | [`Output::to`] | parameters of the output codes, arithmetic in `f32` (ONNX Runtime), no activation |
/// | [`relu`](Self::relu), [`relu6`](Self::relu6), [`clamp`](Self::clamp) | fused activation |
/// | [`integer_only`](Self::integer_only), [`with_arithmetic`](Self::with_arithmetic) | arithmetic of the multiplication |
///
/// ```
/// use ndarray::Ix2;
/// use ndarray_quant::{QParams, nn::Output};
/// let y = QParams::<u8>::per_tensor(0.1, 20)?;
/// let plain = Output::to(&y);
/// let relu = Output::to(&y).relu().integer_only();
/// assert_eq!((plain.clamp_range(), relu.clamp_range()), ((0, 255), (20, 255)));
/// assert_eq!(Output::to(&y).relu6().clamp_range(), (20, 80));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Output<Y: Element> {
    pub(crate) params: QParams<Y>,
    pub(crate) arithmetic: Arithmetic,
    low: Option<f32>,
    high: Option<f32>,
    /// The offset of stored codes from the codes that formulas take. See [`Self::offset`].
    pub(crate) code_offset: i32,
}

impl<Y: Element> Output<Y> {
    /// Output codes with these parameters, by `f32` arithmetic and without activation. The parameters must be per
    /// tensor: operators check this when they are prepared.
    pub fn to(params: &QParams<Y>) -> Self {
        Self { params: params.clone(), arithmetic: Arithmetic::F32, low: None, high: None, code_offset: 0 }
    }

    /// Takes all codes for `i8`, stored with an offset of 128. That matters to formulas in `f32` that add the zero
    /// point before they round.
    pub(crate) fn offset(self) -> Self {
        Self { code_offset: 128, ..self }
    }

    /// Fuses `max(y, 0)`, as a clamp of the codes.
    pub fn relu(self) -> Self {
        self.clamp(Some(0.0), None)
    }

    /// Fuses `min(max(y, 0), 6)`, as a clamp of the codes.
    pub fn relu6(self) -> Self {
        self.clamp(Some(0.0), Some(6.0))
    }

    /// Fuses `min(max(y, low), high)`: codes are clamped to the codes of the bounds. `None` and NaN are no bound.
    /// Replaces an activation set before.
    pub fn clamp(mut self, low: Option<f32>, high: Option<f32>) -> Self {
        (self.low, self.high) = (low, high);
        self
    }

    /// Sets the arithmetic of the multiplication by the output multiplier.
    pub fn with_arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        self.arithmetic = arithmetic;
        self
    }

    /// Multiplies by an integer multiplier and a shift with two roundings, as gemmlowp and TFLite do. A prepared layer
    /// then runs without floating-point instructions.
    pub fn integer_only(self) -> Self {
        self.with_arithmetic(Arithmetic::FixedPoint(FixedPointRounding::Double))
    }

    /// Returns the smallest and the greatest output code.
    pub fn clamp_range(&self) -> (i32, i32) {
        let code = |bound: Option<f32>| bound.filter(|bound| !bound.is_nan()).map(|bound| self.params.code_of(bound));
        let (min, max) = self.params.code_range();
        let high = code(self.high).unwrap_or(max);
        (code(self.low).unwrap_or(min).min(high), high)
    }

    /// The range of output codes.
    pub(super) fn codes(&self) -> Codes {
        let (min, max) = self.clamp_range();
        Codes { min, max }
    }

    /// Prepares the epilogue of a GEMM. Returns an error unless the output parameters are per tensor.
    pub(super) fn epilogue(
        &self,
        x_scale: f32,
        w_scale: &[f32],
        bias: Option<&[i32]>,
    ) -> Result<RequantizeEpilogue<Y>> {
        self.params.of_tensor("output")?;
        let (min, max) = self.clamp_range();
        RequantizeEpilogue::new(x_scale, w_scale, bias, &self.params, self.arithmetic)?.with_clamp(min, max)
    }
}
