use ndarray::Dimension;

use crate::affine::{Arithmetic, Codes, FixedPointRounding};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::gemm::RequantizeEpilogue;
use crate::qparams::QParams;

/// What an integer layer puts out: the parameters of its codes, the arithmetic that leads there, a fused activation.
///
/// ```
/// use ndarray::Ix2;
/// use ndarray_quant::{QParams, nn::Output};
/// let y = QParams::<u8, Ix2>::per_tensor(0.1, 20)?;
/// let plain = Output::to(&y);
/// let relu = Output::to(&y).relu().integer_only();
/// assert_eq!((plain.clamp_range(), relu.clamp_range()), ((0, 255), (20, 255)));
/// assert_eq!(Output::to(&y).relu6().clamp_range(), (20, 80));
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Output<Y: Element, D: Dimension> {
    pub(crate) params: QParams<Y, D>,
    pub(crate) arithmetic: Arithmetic,
    low: Option<f32>,
    high: Option<f32>,
}

impl<Y: Element, D: Dimension> Output<Y, D> {
    /// To codes with these parameters, which must be per tensor, in `f32` arithmetic and without activation.
    pub fn to(params: &QParams<Y, D>) -> Self {
        Self { params: params.clone(), arithmetic: Arithmetic::F32, low: None, high: None }
    }

    /// With `max(y, 0)` fused: a clamp of the codes.
    pub fn relu(self) -> Self {
        self.clamp(Some(0.0), None)
    }

    /// With `min(max(y, 0), 6)` fused.
    pub fn relu6(self) -> Self {
        self.clamp(Some(0.0), Some(6.0))
    }

    /// With the real output clamped to these bounds, `min(max(y, low), high)`, where they are given: the codes are
    /// clamped to the bounds' codes. A NaN does not bound. Replaces an activation that was there.
    pub fn clamp(mut self, low: Option<f32>, high: Option<f32>) -> Self {
        (self.low, self.high) = (low, high);
        self
    }

    /// By this arithmetic.
    pub fn with_arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        self.arithmetic = arithmetic;
        self
    }

    /// By multiplier and shift with gemmlowp's double rounding: no float instruction runs from codes to codes.
    pub fn integer_only(self) -> Self {
        self.with_arithmetic(Arithmetic::FixedPoint(FixedPointRounding::Double))
    }

    /// The smallest and greatest code that come out.
    pub fn clamp_range(&self) -> (i32, i32) {
        let code = |bound: Option<f32>| bound.filter(|bound| !bound.is_nan()).map(|bound| self.params.code_of(bound));
        let (min, max) = self.params.code_range();
        let high = code(self.high).unwrap_or(max);
        (code(self.low).unwrap_or(min).min(high), high)
    }

    /// The codes that come out.
    pub(super) fn codes(&self) -> Codes {
        let (min, max) = self.clamp_range();
        Codes { min, max }
    }

    /// The epilogue of a product with these input scales.
    pub(super) fn epilogue(
        &self,
        x_scale: f32,
        w_scale: &[f32],
        bias: Option<&[i32]>,
    ) -> Result<RequantizeEpilogue<Y>> {
        let (min, max) = self.clamp_range();
        RequantizeEpilogue::new(x_scale, w_scale, bias, &self.params, self.arithmetic)?.with_clamp(min, max)
    }
}

/// Refuses an input whose parameters are not those that a layer was prepared for.
pub(super) fn check_params<X: Element, D: Dimension>(found: &QParams<X, D>, expected: &QParams<X, D>) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Argument {
        what: "parameters of the input",
        expected: "those that the layer was prepared for",
        found: alloc::format!("{found:?}"),
    })
}
