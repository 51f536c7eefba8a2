//! Checks of the parameters that operators and layers take.

use alloc::vec::Vec;

use ndarray::Axis;

use crate::element::Element;
use crate::error::{ParamsError, Result};
use crate::granularity::Granularity;
use crate::qparams::QParams;

/// Checks that an input has the scale and zero point of `prepared`. Convention and code range may differ, because they
/// do not change the meaning of a code.
pub(super) fn check_params<T: Element>(what: &'static str, found: &QParams<T>, prepared: &QParams<T>) -> Result<()> {
    let (found, prepared) = (found.scale_zero_point(what)?, prepared.scale_zero_point(what)?);
    if found == prepared {
        return Ok(());
    }
    Err(ParamsError::Mismatch { what, of: "that the operator was prepared for", expected: prepared, found }.into())
}

/// The scales and zero points of weights: one, or one per output channel.
pub(crate) struct ChannelParams<Z> {
    pub(crate) scales: Vec<f32>,
    pub(crate) zero_points: Vec<Z>,
}

impl<Z: Copy + Default> ChannelParams<Z> {
    /// Returns an error for granularities other than per tensor and per `axis`.
    pub(crate) fn new<T: Element<Code = Z>>(what: &'static str, params: &QParams<T>, axis: Axis) -> Result<Self> {
        let expected = Granularity::per_axis(axis);
        let found = params.granularity();
        if found != Granularity::PerTensor && found != expected {
            return Err(ParamsError::Granularity { what, expected, found }.into());
        }
        let zero_points =
            params.zero_point().map_or_else(|| alloc::vec![Z::default()], |z| z.iter().copied().collect());
        Ok(Self { scales: params.scale().iter().copied().collect(), zero_points })
    }
}
