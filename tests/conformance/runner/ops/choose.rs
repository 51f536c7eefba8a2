//! Scale and zero point of a tensor by FBGEMM's formula.

use ndarray_quant::{Granularity, observer::Ranges};

use crate::runner::case::Case;
use crate::runner::tensor::Tensor;
use crate::runner::{Outcome, Stop};

/// PyTorch: `_choose_qparams_per_tensor`.
pub(crate) fn choose_qparams(case: &Case) -> Outcome<Vec<Tensor>> {
    // `qmax` already includes `reduce_range`.
    case.knows(&["qdtype", "qmin", "qmax", "reduce_range"])?;
    let (code_min, code_max) = case.code_range()?.ok_or_else(|| Stop::failed("no qmin and qmax"))?;
    let ranges = Ranges::of(case.values::<f32>(0)?, Granularity::PerTensor)?;
    let bounds = ranges.min().first().zip(ranges.max().first());
    let (&min, &max) = bounds.ok_or_else(|| Stop::failed("no range"))?;
    let (scale, zero_point) = ndarray_quant::compat::fbgemm::choose_qparams(min, max, code_min, code_max)?;
    Ok(vec![case.like_output::<f64>(0, vec![scale])?, case.like_output::<i64>(1, vec![zero_point.into()])?])
}
