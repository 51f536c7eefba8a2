//! Rounds the weights of networks by the methods of `ptq`, and the bias that takes up the mean of the error.

use alloc::vec::Vec;

use ndarray::{Array1, Array2, ArrayD, ArrayViewD, Axis, Ix2, IxDyn, Slice};

use super::calibrate::LayerMoments;
use super::network::Constant;
use super::recipe::TensorRecipe;
use crate::element::Element;
use crate::error::Result;
use crate::granularity::Granularity;
use crate::ptq::{AdaRound, CoordinateDescent, Gptq, Hqq, InputStatistics};
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// How the codes of weights are chosen, for [`Graph::quantize_with`](super::Graph::quantize_with). The methods of
/// [`ptq`](crate::ptq) convert into it.
///
/// | method | weights | grid | needs |
/// |---|---|---|---|
/// | `Nearest` | all | the recipe's | nothing |
/// | [`CoordinateDescent`], [`Gptq`], [`AdaRound`] | of convolutions and linear layers | the recipe's | second moments |
/// | [`Hqq`] | of linear layers, in groups; others are rounded to nearest | its own | nothing |
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum WeightRounding {
    /// The code nearest to the weight.
    Nearest,
    /// See [`CoordinateDescent`].
    CoordinateDescent(CoordinateDescent),
    /// See [`Gptq`]. Groups have the scales of the recipe, also without activation order.
    Gptq(Gptq),
    /// See [`AdaRound`].
    AdaRound(AdaRound),
    /// See [`Hqq`].
    Hqq(Hqq),
}

macro_rules! from_methods {
    ($($method:ident),*) => {$(
        impl From<$method> for WeightRounding {
            fn from(method: $method) -> Self {
                WeightRounding::$method(method)
            }
        }
    )*};
}
from_methods!(CoordinateDescent, Gptq, AdaRound, Hqq);

impl WeightRounding {
    /// Returns whether the method reads the moments of a layer's input.
    pub(crate) fn needs_moments(&self) -> bool {
        !matches!(self, WeightRounding::Nearest | WeightRounding::Hqq(_))
    }

    /// Returns whether the method takes other scales and zero points for these weights than their recipe has.
    pub(crate) fn chooses_grid(&self, tensor: &TensorRecipe) -> bool {
        matches!(self, WeightRounding::Hqq(_)) && tensor.is_in_groups() && tensor.given.is_none()
    }
}

/// Quantizes weights `[out, ...]` by their recipe. Without moments all methods but [`Hqq`] round to nearest.
pub(crate) fn round<T: Element<Code = i8>>(
    weights: &Constant,
    tensor: &TensorRecipe,
    moments: Option<&LayerMoments>,
    rounding: WeightRounding,
) -> Result<QTensor<T, IxDyn>> {
    let params = tensor.weight_params::<T>(weights.shape())?;
    if let WeightRounding::Hqq(hqq) = rounding
        && rounding.chooses_grid(tensor)
    {
        let weights = weights.view().into_dimensionality::<Ix2>().expect("weights in groups are a matrix");
        let (codes, params) =
            hqq.quantize(&weights, &tensor.weight_scheme::<T>().with_granularity(params.granularity()))?.into();
        return QTensor::from_valid_codes(codes.into_dyn(), params);
    }
    let mut codes = ArrayD::<i8>::zeros(weights.raw_dim());
    params.quantize_into(weights, &mut codes)?;
    let moments = moments.filter(|_| rounding.needs_moments());
    for (group, statistics) in moments.iter().flat_map(|moments| moments.groups()).enumerate() {
        let covariance = statistics.covariance();
        // The sums of huge inputs overflow. The nearest codes stay then.
        if !covariance.iter().all(|c| c.is_finite()) {
            continue;
        }
        let out = weights.len_of(Axis(0)) / moments.map_or(1, |moments| moments.groups().len());
        let channels = Slice::from(group * out..(group + 1) * out);
        let rows: Vec<f32> = weights.slice_axis(Axis(0), channels).outer_iter().flat_map(row_order).collect();
        let rows = Array2::from_shape_vec((out, statistics.depth()), rows).expect("rows of the layer's depth");
        let params = of_channels(&params, channels)?;
        let moved = match rounding {
            WeightRounding::CoordinateDescent(method) => method.quantize(&rows, &params, &covariance)?,
            WeightRounding::Gptq(method) => method.quantize(&rows, &params, &covariance)?,
            WeightRounding::AdaRound(method) => method.quantize(&rows, &params, &covariance)?,
            WeightRounding::Nearest | WeightRounding::Hqq(_) => continue,
        };
        let moved = moved.unpacked_codes();
        for (mut codes, moved) in codes.slice_axis_mut(Axis(0), channels).outer_iter_mut().zip(moved.rows()) {
            let mut codes = codes.view_mut();
            if codes.ndim() == 3 {
                codes = codes.permuted_axes(&[1, 2, 0][..]);
            }
            codes.iter_mut().zip(moved).for_each(|(code, &q)| *code = q);
        }
    }
    QTensor::from_valid_codes(codes, params)
}

/// The parameters of some output channels, as rows of a matrix. Weights in groups are one matrix.
fn of_channels<T: Element<Code = i8>>(params: &QParams<T>, channels: Slice) -> Result<QParams<T>> {
    let Granularity::PerAxis { .. } = params.granularity() else { return Ok(params.clone()) };
    let slice =
        |values: ArrayViewD<'_, f32>| values.slice_axis(Axis(0), channels).iter().copied().collect::<Array1<f32>>();
    let zero_points = params.zero_point().map(|z| z.slice_axis(Axis(0), channels).iter().copied().collect());
    let (min, max) = params.code_range();
    QParams::per_axis(Axis(0), slice(params.scale().view()), zero_points)?
        .with_convention(params.convention())
        .with_code_range(min, max)
}

/// The mean error of each output channel, `(w - ŵ) · E[x]`, which bias correction adds to the bias.
pub(crate) fn mean_error(moments: &LayerMoments, w: &Constant, rounded: &Constant) -> Vec<f64> {
    let out = w.len_of(Axis(0)) / moments.groups().len().max(1);
    let means: Vec<_> = moments.groups().iter().map(InputStatistics::mean).collect();
    let error = |channel: usize| {
        let [w, rounded] = [w, rounded].map(|w| row_order(w.index_axis(Axis(0), channel)));
        w.iter().zip(&rounded).zip(&means[channel / out]).map(|((&w, &r), m)| (w as f64 - r as f64) * m).sum()
    };
    (0..w.len_of(Axis(0))).map(error).collect()
}

/// The weights of one output channel in the order of its input rows: `[in, kh, kw]` as `[kh, kw, in]`.
fn row_order<T: Copy>(w: ArrayViewD<'_, T>) -> Vec<T> {
    let w = if w.ndim() == 3 { w.permuted_axes(&[1, 2, 0][..]) } else { w };
    w.iter().copied().collect()
}
