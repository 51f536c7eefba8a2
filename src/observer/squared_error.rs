//! The integral of the squared rounding error.

use crate::element::Compute;

/// `∫ (t - Q(t))² dt` from 0 to `x`, where `Q` rounds to the nearest of the integers `low..=high`.
///
/// The integral over the unit interval around each integer is `1 / 12`; the remainder `r` adds `r³ / 3`, and exceeds one
/// half only outside `low..=high`.
pub(super) fn integral(x: f64, low: f64, high: f64) -> f64 {
    let nearest = Compute::round_ties_even(x).clamp(low, high);
    let rest = x - nearest;
    nearest / 12.0 + rest * rest * rest / 3.0
}

/// The mean of `(t - Q(t))²` over `from..=to`.
pub(super) fn mean(from: f64, to: f64, low: f64, high: f64) -> f64 {
    let width = to - from;
    if width > 0.0 {
        ((integral(to, low, high) - integral(from, low, high)) / width).max(0.0)
    } else {
        let rest = from - Compute::round_ties_even(from).clamp(low, high);
        rest * rest
    }
}
