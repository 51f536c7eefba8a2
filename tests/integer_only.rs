//! A full-integer network executes no floating-point instruction between its quantized input and its output codes.

use ndarray::{Array1, Array2, Axis, Ix2};
use ndarray_quant::gemm::Workspace;
use ndarray_quant::{
    QParams, QTensor, Scheme,
    compat::gemmlowp::{FixedPoint, FixedPointRounding},
    nn::{Arithmetic, Linear, Output, PreparedLinear},
};

/// The weights, bias and output parameters of a layer. They have no short binary form, so float arithmetic would round.
struct Layer {
    weights: QTensor<i8, Ix2>,
    bias: Array1<f32>,
    to: QParams<u8>,
}

fn layers() -> Vec<Layer> {
    let widths = [37, 29, 23, 10];
    let layer = |(i, pair): (usize, &[usize])| {
        let weights = Array2::from_shape_fn((pair[1], pair[0]), |(o, k)| (((o * 31 + k * 17 + i) as f32).sin()) * 0.3);
        Layer {
            weights: Scheme::<i8>::symmetric().narrow_range().per_axis(Axis(0)).quantize(&weights).unwrap(),
            bias: Array1::from_shape_fn(pair[1], |o| (o as f32 * 0.7).cos() * 0.1),
            to: QParams::per_tensor(0.0131 + i as f32 * 0.001, 7 * i as u8).unwrap(),
        }
    };
    widths.windows(2).enumerate().map(layer).collect()
}

fn input() -> QTensor<u8, Ix2> {
    let x = Array2::from_shape_fn((19, 37), |(n, k)| ((n * 37 + k) as f32 * 0.61).sin());
    Scheme::<u8>::asymmetric().quantize(&x).unwrap()
}

fn network(arithmetic: Arithmetic) -> Vec<PreparedLinear<u8, i8, u8>> {
    let mut x = input().params().clone();
    let mut network = Vec::new();
    for layer in layers() {
        let to = Output::to(&layer.to).relu().with_arithmetic(arithmetic);
        network.push(Linear::new(&layer.weights, Some(&layer.bias)).unwrap().prepare(&x, &to).unwrap());
        x = layer.to;
    }
    network
}

/// Runs the codes through all layers.
fn run(network: &[PreparedLinear<u8, i8, u8>], x: &Array2<u8>, workspace: &mut Workspace, out: &mut [Array2<u8>]) {
    for (i, layer) in network.iter().enumerate() {
        let (done, rest) = out.split_at_mut(i);
        layer.forward_into(done.last().unwrap_or(x), &mut rest[0], workspace).unwrap();
    }
}

fn outputs(network: &[PreparedLinear<u8, i8, u8>], batch: usize) -> Vec<Array2<u8>> {
    let shape = |layer: &PreparedLinear<u8, i8, u8>, x: &Array2<u8>| {
        let x = QTensor::new(x.clone(), layer.input().clone()).unwrap();
        layer.forward(&x).unwrap().into_parts().0
    };
    let mut x = input().codes().clone();
    assert_eq!(x.nrows(), batch);
    network
        .iter()
        .map(|layer| {
            x = shape(layer, &x);
            x.clone()
        })
        .collect()
}

/// The sticky exception flags of MXCSR: an operation that rounds sets one, and it stays set until it is cleared.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the flags have no safe interface")]
mod flags {
    const STICKY: u32 = 0x3f;

    pub(super) fn clear() {
        let cleared = read() & !STICKY;
        // SAFETY: loads the control word that was read before, its status bits cleared; no exception is unmasked.
        unsafe { core::arch::asm!("ldmxcsr [{}]", in(reg) &cleared, options(nostack)) };
    }

    pub(super) fn any() -> bool {
        read() & STICKY != 0
    }

    fn read() -> u32 {
        let mut word = 0u32;
        // SAFETY: stores the control and status word into a local of its size.
        unsafe { core::arch::asm!("stmxcsr [{}]", in(reg) &mut word, options(nostack)) };
        word
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn no_float_instruction_rounds_anything() {
    use std::hint::black_box;
    let rounded = |arithmetic| {
        let network = network(arithmetic);
        let x = input().codes().clone();
        let mut out = outputs(&network, x.nrows());
        let mut workspace = Workspace::new();
        run(&network, &x, &mut workspace, &mut out);
        flags::clear();
        run(black_box(&network), black_box(&x), &mut workspace, black_box(&mut out));
        flags::any()
    };
    assert!(rounded(Arithmetic::F32), "the flags must catch the float arithmetic");
    assert!(rounded(Arithmetic::F64), "the flags must catch the double arithmetic");
    assert!(!rounded(Arithmetic::FixedPoint(FixedPointRounding::Double)));
    assert!(!rounded(Arithmetic::FixedPoint(FixedPointRounding::Single)));
}

/// Each arithmetic over the whole network equals its formula on naive sums.
#[test]
fn every_requantization_equals_its_formula() {
    for arithmetic in [
        Arithmetic::F32,
        Arithmetic::F64,
        Arithmetic::FixedPoint(FixedPointRounding::Double),
        Arithmetic::FixedPoint(FixedPointRounding::Single),
    ] {
        let mut x = input();
        for (layer, integer) in layers().iter().zip(&network(arithmetic)) {
            let expected = reference(&x, layer, arithmetic);
            x = integer.forward(&x).unwrap();
            assert_eq!(x.codes(), expected, "{arithmetic:?}");
            assert!(
                x.codes()
                    .iter()
                    .any(|&q| q != layer.to.zero_point().map_or(0, |z| z.iter().next().copied().unwrap_or_default())),
                "not all zero"
            );
        }
    }
}

fn reference(x: &QTensor<u8, Ix2>, layer: &Layer, arithmetic: Arithmetic) -> Array2<u8> {
    let zero = |p: &QParams<u8>| p.zero_point().map_or(0, |z| z.iter().next().copied().unwrap_or_default()) as i64;
    let (x_scale, y_scale) = (x.params().scales()[0], layer.to.scales()[0]);
    let (x_zero, y_zero) = (zero(x.params()), zero(&layer.to));
    Array2::from_shape_fn((x.codes().nrows(), layer.bias.len()), |(n, o)| {
        let w_scale = layer.weights.params().scales()[o];
        let bias = (layer.bias[o] as f64 / (x_scale as f64 * w_scale as f64)).round_ties_even() as i64;
        let products = x
            .codes()
            .row(n)
            .iter()
            .zip(layer.weights.codes().row(o))
            .map(|(&a, &b)| (a as i64 - x_zero) * b as i64)
            .sum::<i64>();
        let acc = products + bias;
        let double = x_scale as f64 * w_scale as f64 / y_scale as f64;
        let scaled = match arithmetic {
            Arithmetic::F64 => (acc as f64 * double).round() as i64,
            Arithmetic::FixedPoint(rounding) => fixed_point(acc, double, rounding),
            _ => (acc as f32 * ((x_scale * w_scale) / y_scale)).round_ties_even() as i64,
        };
        (scaled + y_zero).clamp(y_zero, 255) as u8
    })
}

/// Multiplies in `i128` by the mantissa and the shift of the multiplier.
fn fixed_point(acc: i64, factor: f64, rounding: FixedPointRounding) -> i64 {
    let parts = FixedPoint::from_f64(factor).unwrap();
    assert!((parts.q31() as f64 * 2f64.powi(parts.shift() - 31) / factor - 1.0).abs() < 1e-9);
    let product = acc as i128 * parts.q31() as i128;
    let away = |value: i128, by: i32| (value.abs() + ((1i128 << by) >> 1)) >> by;
    (match rounding {
        FixedPointRounding::Single => (product + (1i128 << (30 - parts.shift()))) >> (31 - parts.shift()),
        FixedPointRounding::Double => {
            // Multipliers are below 1 here, so the shift is to the right.
            assert!(parts.shift() <= 0);
            let high = (product + if product >= 0 { 1 << 30 } else { 1 - (1 << 30) }) / (1 << 31);
            away(high, -parts.shift()) * high.signum()
        }
    }) as i64
}
