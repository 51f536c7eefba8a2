//! Integer GEMM with every epilogue: `cargo bench --bench gemm`.
//!
//! Throughput counts operations, two per multiply–accumulate; for packing, bytes.

mod data;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array2;
use ndarray_quant::gemm::{
    DequantizeEpilogue, Epilogue, I32Epilogue, PackedRhs, RequantizeEpilogue, Workspace, gemm_into,
};
use ndarray_quant::{QParams, compat::gemmlowp::FixedPointRounding, nn::Arithmetic};

/// M, K, N: GEMV, a skinny product, layers of a transformer and of a convolution, a cube, an odd shape.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 768, 3072), (16, 768, 3072), (128, 384, 1536), (784, 1152, 128), (512, 512, 512), (17, 33, 65)];

const A_ZERO: u8 = 128;

fn rhs(depth: usize, columns: usize) -> Array2<i8> {
    data::uniform((depth, columns), -127..=127)
}

fn product<E: Epilogue>(c: &mut Criterion, name: &str, epilogue: impl Fn(usize) -> E) {
    let mut group = c.benchmark_group(format!("gemm u8 by i8, {name}"));
    for (m, k, n) in SHAPES {
        group.throughput(Throughput::Elements(2 * (m * k * n) as u64));
        let a: Array2<u8> = data::uniform((m, k), u8::MIN..=u8::MAX);
        let b = PackedRhs::pack(&rhs(k, n), &[0]).expect("a depth that is safe");
        let (epilogue, mut out, mut workspace) =
            (epilogue(n), Array2::from_elem((m, n), E::Out::default()), Workspace::new());
        group.bench_function(format!("{m}x{k}x{n}"), |bench| {
            bench.iter(|| {
                gemm_into(black_box(&a), A_ZERO, &b, &epilogue, &mut out, &mut workspace).expect("shapes agree")
            })
        });
    }
    group.finish();
}

/// Requantizes to `u8`, with a scale and a bias per output channel.
fn requantize(channels: usize, arithmetic: Arithmetic) -> RequantizeEpilogue<u8> {
    let to = QParams::<u8>::per_tensor(0.5, 128).expect("a scale");
    RequantizeEpilogue::new(0.02, &vec![0.01; channels], Some(&vec![7; channels]), &to, arithmetic).expect("scales")
}

fn products(c: &mut Criterion) {
    product(c, "i32", |_| I32Epilogue::new());
    product(c, "dequantize", |n| {
        DequantizeEpilogue::new(&[0.02], &vec![0.01; n], Some(&vec![0.5; n])).expect("scales")
    });
    product(c, "requantize, f32", |n| requantize(n, Arithmetic::F32));
    let fixed_point = Arithmetic::FixedPoint(FixedPointRounding::Double);
    product(c, "requantize, fixed point", |n| requantize(n, fixed_point));
}

/// Packing is done once per weight matrix, so it may allocate.
fn pack(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack the RHS");
    for (_, k, n) in [SHAPES[0], SHAPES[4]] {
        group.throughput(Throughput::Bytes((k * n) as u64));
        let b = rhs(k, n);
        let transposed = rhs(n, k).reversed_axes();
        group.bench_function(format!("rows contiguous/{k}x{n}"), |bench| {
            bench.iter(|| PackedRhs::pack(black_box(&b), &[0]).expect("one zero point"))
        });
        group.bench_function(format!("columns contiguous/{k}x{n}"), |bench| {
            bench.iter(|| PackedRhs::pack(black_box(&transposed), &[0]).expect("one zero point"))
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = products, pack
}
criterion_main!(benches);
