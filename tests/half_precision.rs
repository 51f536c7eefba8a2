//! Casts to half precision round once, from every float type.

use half::{bf16, f16};
use ndarray::{Array1, array};
use ndarray_quant::half::{HalfCast, HalfFloat, Overflow};

fn cast<H: HalfFloat>(x: &Array1<f64>) -> Array1<H> {
    HalfCast::<H>::new(Overflow::Infinity).quantize(x).expect("shapes agree")
}

#[test]
fn values_next_to_a_tie_round_to_their_own_side() {
    // A tie between 1 and the next number, and the nearest f64 values above and below it.
    let tie = |ulp: f64| 1.0 + ulp / 2.0;
    let beside = |ulp: f64| array![tie(ulp).next_down(), tie(ulp), tie(ulp).next_up(), -tie(ulp).next_up()];
    let (f, b) = (f16::EPSILON, bf16::EPSILON);
    assert_eq!(cast::<f16>(&beside(f.to_f64())), array![f16::ONE, f16::ONE, f16::ONE + f, -(f16::ONE + f)]);
    assert_eq!(cast::<bf16>(&beside(b.to_f64())), array![bf16::ONE, bf16::ONE, bf16::ONE + b, -(bf16::ONE + b)]);
}

#[test]
fn the_ends_of_the_range() {
    let x = array![65520.0f64.next_down(), 65520.0, -1e300, 1e-300, -1e-300, f64::NAN, f64::INFINITY];
    let y = cast::<f16>(&x);
    assert_eq!(y.slice(ndarray::s![..3]), array![f16::MAX, f16::INFINITY, f16::NEG_INFINITY]);
    assert_eq!(y.slice(ndarray::s![3..5]).mapv(f16::to_bits), array![0, 0x8000]);
    assert!(y[5].is_nan() && y[6] == f16::INFINITY);
    // Half the smallest subnormal is a tie to zero.
    let tiny = array![2f64.powi(-25), 2f64.powi(-25).next_up()];
    assert_eq!(cast::<f16>(&tiny).mapv(f16::to_bits), array![0, 1]);
}
