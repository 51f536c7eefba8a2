//! Float → codes → float: `cargo bench --bench elementwise`.
//!
//! Throughput counts the bytes that are read and written at the interface: 5 per element to or from 8-bit codes, 6 to
//! half precision, 8 from float to float.

mod data;

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use half::f16;
use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use ndarray_quant::{
    Granularity, QParams, Scheme,
    half::{HalfCast, Overflow},
};

/// Numbers of elements. The first fits in L1, the second in L2, the third in neither.
const SIZES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];

const COLUMNS: usize = 256;

const FITS: &str = "shapes agree and no value is too large";

/// Layouts and granularities to time. Strided layouts are timed per tensor only.
fn variants() -> [(&'static str, Granularity, isize); 5] {
    let per_group = Granularity::per_group(Axis(1), 32);
    [
        ("per tensor", Granularity::PerTensor, 1),
        ("per tensor, strided", Granularity::PerTensor, 2),
        ("per axis, outer", Granularity::per_axis(Axis(0)), 1),
        ("per axis, inner", Granularity::per_axis(Axis(1)), 1),
        ("per group of 32", per_group, 1),
    ]
}

/// An operand or a result whose inner stride is 1 or more.
struct Strided<T> {
    whole: Array2<T>,
    step: isize,
}

impl<T: Clone + Default> Strided<T> {
    fn new(len: usize, step: isize, fill: impl FnOnce((usize, usize)) -> Array2<T>) -> Self {
        Self { whole: fill((len / COLUMNS, COLUMNS * step as usize)), step }
    }

    fn default(len: usize, step: isize) -> Self {
        Self::new(len, step, Array2::default)
    }

    fn view(&self) -> ArrayView2<'_, T> {
        self.whole.slice(s![.., ..;self.step])
    }

    fn view_mut(&mut self) -> ArrayViewMut2<'_, T> {
        self.whole.slice_mut(s![.., ..;self.step])
    }
}

fn floats(len: usize, step: isize) -> Strided<f32> {
    Strided::new(len, step, |shape| data::uniform(shape, -2.0..2.0))
}

fn codes(len: usize, step: isize) -> Strided<i8> {
    Strided::new(len, step, |shape| data::uniform(shape, i8::MIN..=i8::MAX))
}

/// Chooses asymmetric parameters for the range of each block of `x`.
fn params(granularity: Granularity, x: &Strided<f32>) -> QParams<i8> {
    let scheme = Scheme::<i8>::asymmetric().with_granularity(granularity);
    scheme.params_of(&x.view()).expect("finite values")
}

/// Calls `each` for every size and variant, with the throughput set.
fn sweep(
    c: &mut Criterion,
    operation: &str,
    bytes_per_element: usize,
    mut each: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, String, usize, Granularity, isize),
) {
    let mut group = c.benchmark_group(operation);
    for len in SIZES {
        group.throughput(Throughput::Bytes((bytes_per_element * len) as u64));
        for (variant, granularity, step) in variants() {
            each(&mut group, format!("{variant}/{len}"), len, granularity, step);
        }
    }
    group.finish();
}

fn quantize(c: &mut Criterion) {
    sweep(c, "quantize f32 to i8", 5, |group, id, len, granularity, step| {
        let (x, mut out) = (floats(len, step), Strided::<i8>::default(len, step));
        let params = params(granularity, &x);
        group.bench_function(id, |b| {
            b.iter(|| params.quantize_into(black_box(&x.view()), &mut out.view_mut()).expect(FITS))
        });
    });
}

fn dequantize(c: &mut Criterion) {
    sweep(c, "dequantize i8 to f32", 5, |group, id, len, granularity, step| {
        let (q, mut out) = (codes(len, step), Strided::<f32>::default(len, step));
        let params = params(granularity, &floats(len, step));
        group.bench_function(id, |b| {
            b.iter(|| params.dequantize_into(black_box(&q.view()), &mut out.view_mut()).expect(FITS))
        });
    });
}

/// Dynamic quantization: finds the range of the tensor, then its codes. Only the parameters are allocated.
fn dynamic_quantize(c: &mut Criterion) {
    sweep(c, "dynamic quantize f32 to u8", 5, |group, id, len, granularity, step| {
        let (x, mut out) = (floats(len, step), Strided::<u8>::default(len, step));
        let scheme = Scheme::<u8>::asymmetric().with_granularity(granularity);
        group.bench_function(id, |b| {
            b.iter(|| {
                let params = scheme.params_of(black_box(&x.view())).expect("finite values");
                params.quantize_into(&x.view(), &mut out.view_mut()).expect(FITS)
            })
        });
    });
}

fn fake_quantize(c: &mut Criterion) {
    sweep(c, "fake-quantize f32", 8, |group, id, len, granularity, step| {
        let (x, mut out) = (floats(len, step), Strided::<f32>::default(len, step));
        let params = params(granularity, &x);
        group.bench_function(id, |b| {
            b.iter(|| params.fake_quantize_into(black_box(&x.view()), &mut out.view_mut()).expect(FITS))
        });
    });
}

fn cast_to_half(c: &mut Criterion) {
    let mut group = c.benchmark_group("cast f32 to f16");
    let policies = [("infinity", Overflow::Infinity), ("saturate", Overflow::Saturate), ("error", Overflow::Error)];
    for len in SIZES {
        group.throughput(Throughput::Bytes(6 * len as u64));
        for (policy, overflow) in policies {
            let (x, mut out) = (floats(len, 1), Strided::<f16>::default(len, 1));
            let cast = HalfCast::<f16>::new(overflow);
            group.bench_function(format!("overflow: {policy}/{len}"), |b| {
                b.iter(|| cast.quantize_into(black_box(&x.view()), &mut out.view_mut()).expect(FITS))
            });
        }
        let (x, mut out) = (floats(len, 2), Strided::<f16>::default(len, 2));
        let cast = HalfCast::<f16>::new(Overflow::Infinity);
        group.bench_function(format!("strided/{len}"), |b| {
            b.iter(|| cast.quantize_into(black_box(&x.view()), &mut out.view_mut()).expect(FITS))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = quantize, dequantize, dynamic_quantize, fake_quantize, cast_to_half
}
criterion_main!(benches);
