//! PyTorch's observers: batches → range → parameters.

use ndarray_quant::observer::Bounds;
use ndarray_quant::{
    Convention, Element, Granularity, Scheme,
    element::Code,
    observer::{BlockObserver, HistogramObserver, MinMax, MovingAverage, Statistic},
};

use super::affine::checked_axis;
use crate::runner::case::Case;
use crate::runner::tensor::{Tensor, with_element};
use crate::runner::{Outcome, Stop};

const ATTRS: [&str; 10] =
    ["qdtype", "qscheme", "qmin", "qmax", "reduce_range", "eps", "axis", "averaging_constant", "bins", "upsample_rate"];

/// PyTorch: `MinMaxObserver`, `PerChannelMinMaxObserver`.
pub(crate) fn min_max(case: &Case) -> Outcome<Vec<Tensor>> {
    let observer = observe(case, MinMax::per_tensor())?;
    outputs(case, &observer, |&bounds| bounds)
}

/// PyTorch: `MovingAverageMinMaxObserver`, `MovingAveragePerChannelMinMaxObserver`.
pub(crate) fn moving_average(case: &Case) -> Outcome<Vec<Tensor>> {
    let constant = case.number("averaging_constant")?;
    let observer = match constant {
        Some(constant) => MovingAverage::per_tensor().with_averaging_constant(constant as f32)?,
        None => MovingAverage::per_tensor(),
    };
    outputs(case, &observe(case, observer)?, |average| average.bounds())
}

/// PyTorch: `HistogramObserver`.
pub(crate) fn histogram(case: &Case) -> Outcome<Vec<Tensor>> {
    case.expects("bins", 2048)?;
    case.expects("upsample_rate", 16)?;
    let observer = observe(case, HistogramObserver::per_tensor())?;
    let mut outputs = outputs(case, &observer, |histogram| histogram.bounds())?;
    let counts = observer.blocks().iter().flat_map(|histogram| histogram.counts()).map(|&count| count as f32);
    outputs.push(case.like_output::<f32>(4, counts.collect())?);
    Ok(outputs)
}

/// Returns the observer after all inputs, per channel if the case names an axis.
fn observe<S: Statistic>(case: &Case, observer: BlockObserver<S>) -> Outcome<BlockObserver<S>> {
    case.knows(&ATTRS)?;
    case.expects("eps", f64::from(f32::EPSILON))?;
    let granularity = match case.integer("axis")? {
        Some(axis) => Granularity::PerAxis { axis: checked_axis(axis, case.input(0)?.shape().len())? },
        None => Granularity::PerTensor,
    };
    let mut observer = observer.with_granularity(granularity);
    for index in 0..case.inputs.len() {
        observer.observe(case.values::<f32>(index)?)?;
    }
    Ok(observer)
}

/// Returns scale, zero point, minimum and maximum.
fn outputs<S: Statistic>(
    case: &Case,
    observer: &BlockObserver<S>,
    bounds: impl Fn(&S::State) -> Bounds,
) -> Outcome<Vec<Tensor>> {
    let qdtype = case.text("qdtype")?.ok_or_else(|| Stop::failed("no qdtype"))?;
    let (scale, zero_point) = with_element!(qdtype, T => parameters::<T>(case, observer))?;
    let bounds: Vec<Bounds> = observer.blocks().iter().map(bounds).collect();
    Ok(vec![
        case.like_output::<f32>(0, scale)?,
        case.like_output::<i64>(1, zero_point)?,
        case.like_output::<f32>(2, bounds.iter().map(|b| b.min()).collect())?,
        case.like_output::<f32>(3, bounds.iter().map(|b| b.max()).collect())?,
    ])
}

fn parameters<T: Element>(case: &Case, observer: &BlockObserver<impl Statistic>) -> Outcome<(Vec<f32>, Vec<i64>)> {
    let scheme = match case.text("qscheme")? {
        Some("affine") | None => Scheme::<T>::asymmetric(),
        Some("symmetric") => {
            // PyTorch keeps the zero point of the full code range there.
            case.expects("reduce_range", false)?;
            Scheme::symmetric()
        }
        Some(other) => return Err(Stop::not_covered(format!("attribute qscheme {other}"))),
    };
    let scheme = scheme.with_convention(Convention::Torch).with_granularity(observer.granularity());
    let scheme = match case.code_range()? {
        Some((min, max)) => scheme.with_code_range(min, max)?,
        None => scheme,
    };
    let params = scheme.params(observer)?;
    let scale: Vec<f32> = params.scale().iter().copied().collect();
    let zero_point = match params.zero_point() {
        Some(zero_point) => zero_point.iter().map(|z| z.to_i32().into()).collect(),
        None => vec![0; scale.len()],
    };
    Ok((scale, zero_point))
}
