//! Compares expected with computed outputs and finds the first element that differs.

use std::fmt::Debug;

use half::{bf16, f16};
use ndarray::{ArrayD, Dimension};

use super::case::{Case, Compare};
use super::tensor::Tensor;
use super::{Outcome, Stop};

/// Compares every output of a case.
pub(crate) fn all(case: &Case, computed: &[Tensor]) -> Outcome<()> {
    if computed.len() != case.outputs.len() {
        let names: Vec<_> = case.outputs.iter().skip(computed.len()).map(|(output, _)| output.name.as_str()).collect();
        return Err(Stop::not_covered(format!("output {}", names.join(", "))));
    }
    for ((expected, compare), got) in case.outputs.iter().zip(computed) {
        one(&expected.tensor, got, compare, case.has_strict_zeros())
            .map_err(|why| Stop::failed(format!("{}{why}", expected.name)))?;
    }
    Ok(())
}

fn one(expected: &Tensor, got: &Tensor, compare: &Compare, strict: bool) -> Result<(), String> {
    if expected.dtype() != got.dtype() {
        return Err(format!(": expected dtype {}, got {}", expected.dtype(), got.dtype()));
    }
    if expected.shape() != got.shape() {
        return Err(format!(": expected shape {:?}, got {:?}", expected.shape(), got.shape()));
    }
    match (expected, got) {
        (Tensor::F64(e), Tensor::F64(g)) => elements(e, g, compare, strict),
        (Tensor::F32(e), Tensor::F32(g)) => elements(e, g, compare, strict),
        (Tensor::F16(e), Tensor::F16(g)) => elements(e, g, compare, strict),
        (Tensor::Bf16(e), Tensor::Bf16(g)) => elements(e, g, compare, strict),
        (e, g) => match (e.integers(), g.integers(), e.minifloats(), g.minifloats()) {
            (Some(e), Some(g), ..) => elements(&e, &g, compare, strict),
            // Different codes have different values, except NaN.
            (.., Some(e), Some(g)) => elements(&e, &g, compare, strict),
            _ => Err(format!(": no comparison for {}", e.dtype())),
        },
    }
}

fn elements<A: Scalar>(e: &ArrayD<A>, g: &ArrayD<A>, compare: &Compare, strict: bool) -> Result<(), String> {
    let agrees = |e: A, g: A| match *compare {
        Compare::Exact => e.distance(g) == 0 && (!strict || e.is_negative() == g.is_negative() || e.is_nan()),
        Compare::Ulp { max } | Compare::CodeDiff { max, .. } => e.distance(g) <= max,
        Compare::Tol { rtol, atol } => {
            e.distance(g) == 0 || (e.wide() - g.wide()).abs() <= atol + rtol * e.wide().abs()
        }
    };
    if let Some(((index, &e), &g)) = e.indexed_iter().zip(g).find(|((_, e), g)| !agrees(**e, **g)) {
        return Err(format!("{:?}: expected {e:?}, got {g:?} ({compare:?})", index.slice()));
    }
    if let Compare::CodeDiff { max_mismatch_frac, .. } = *compare {
        let different = e.iter().zip(g).filter(|(e, g)| e.distance(**g) != 0).count();
        if different as f64 > max_mismatch_frac * e.len() as f64 {
            let place = e.indexed_iter().zip(g).find(|((_, e), g)| e.distance(**g) != 0);
            let place = place.map(|((index, e), g)| format!("{:?}: expected {e:?}, got {g:?}", index.slice()));
            return Err(format!("{}, and {different} of {} differ", place.unwrap_or_default(), e.len()));
        }
    }
    Ok(())
}

/// A number with a distance in units in the last place.
trait Scalar: Copy + Debug {
    /// Returns the distance in units in the last place: 0 between zeros and between NaNs, `u64::MAX` between a NaN and
    /// a number.
    fn distance(self, other: Self) -> u64;
    fn is_negative(self) -> bool;
    fn is_nan(self) -> bool;
    fn wide(self) -> f64;
}

impl Scalar for i64 {
    fn distance(self, other: i64) -> u64 {
        self.abs_diff(other)
    }
    fn is_negative(self) -> bool {
        self < 0
    }
    fn is_nan(self) -> bool {
        false
    }
    fn wide(self) -> f64 {
        self as f64
    }
}

macro_rules! float_scalars {
    ($($t:ident $bits:ident),*) => {$(
        impl Scalar for $t {
            fn distance(self, other: $t) -> u64 {
                // The magnitude's bits count the numbers between it and zero.
                let rank = |x: $t| {
                    let magnitude = (x.to_bits() & ($bits::MAX >> 1)) as i64;
                    if x.is_sign_negative() { -magnitude } else { magnitude }
                };
                match (self.is_nan(), other.is_nan()) {
                    (true, true) => 0,
                    (false, false) => rank(self).abs_diff(rank(other)),
                    _ => u64::MAX,
                }
            }
            fn is_negative(self) -> bool {
                self.is_sign_negative()
            }
            fn is_nan(self) -> bool {
                $t::is_nan(self)
            }
            fn wide(self) -> f64 {
                f64::from(self)
            }
        }
    )*};
}
float_scalars!(f64 u64, f32 u32, f16 u16, bf16 u16);
