//! Calibration: the cost of observing a batch, of finding the range, and of merging.
//! `cargo bench --bench observers`.
//!
//! Observers are in the steady state: they have seen the range of the data. Throughput counts the bytes observed.

mod data;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{Array2, Axis};
use ndarray_quant::{
    Granularity, Scheme,
    observer::{BlockObserver, Entropy, HistogramObserver, MinMax, MovingAverage, Mse, Percentile, Statistic},
};

const CHANNELS: usize = 64;
const SIZES: [usize; 2] = [64 << 10, 1 << 20];

fn batch(len: usize) -> Array2<f32> {
    data::uniform((CHANNELS, len / CHANNELS), -2.0..2.0)
}

fn granularities() -> [(&'static str, Granularity); 3] {
    [
        ("per tensor", Granularity::PerTensor),
        ("per axis, outer", Granularity::per_axis(Axis(0))),
        ("per axis, inner", Granularity::per_axis(Axis(1))),
    ]
}

fn observe<S: Statistic>(c: &mut Criterion, name: &str, observer: BlockObserver<S>) {
    let mut group = c.benchmark_group(format!("observe {name}"));
    for len in SIZES {
        group.throughput(Throughput::Bytes(4 * len as u64));
        for (granularity_name, granularity) in granularities() {
            // The inner axis has one block per column; transpose, so that their number is a layer's number of channels.
            let x = if granularity == Granularity::per_axis(Axis(1)) { batch(len).reversed_axes() } else { batch(len) };
            let x = x.as_standard_layout().into_owned();
            let mut observer = observer.clone().with_granularity(granularity);
            group.bench_function(format!("{granularity_name}/{len}"), |b| {
                b.iter(|| observer.observe(black_box(&x)).expect("finite values"))
            });
        }
    }
    group.finish();
}

fn all_observe(c: &mut Criterion) {
    observe(c, "MinMax", MinMax::per_tensor());
    observe(c, "MovingAverage", MovingAverage::per_tensor());
    observe(c, "Percentile", Percentile::per_tensor());
    observe(c, "Entropy", Entropy::per_tensor());
    observe(c, "Mse", Mse::per_tensor());
    observe(c, "HistogramObserver", HistogramObserver::per_tensor());
}

/// Finds the range from the observed statistics. The cost does not depend on the amount of data.
fn search<S: Statistic>(c: &mut Criterion, name: &str, mut observer: BlockObserver<S>) {
    observer.observe(&batch(SIZES[0])).expect("finite values");
    let scheme = Scheme::<u8>::asymmetric();
    c.bench_function(&format!("range of {name}/per tensor"), |b| {
        b.iter(|| observer.ranges(black_box(&scheme)).expect("values were observed"))
    });
}

fn all_search(c: &mut Criterion) {
    search(c, "MinMax", MinMax::per_tensor());
    search(c, "MovingAverage", MovingAverage::per_tensor());
    search(c, "Percentile", Percentile::per_tensor());
    search(c, "Entropy", Entropy::per_tensor());
    search(c, "Mse", Mse::per_tensor());
    search(c, "HistogramObserver", HistogramObserver::per_tensor());
}

/// Merges one observer into another: the reduce step of a map-reduce.
fn merge(c: &mut Criterion) {
    let mut seen = Mse::per_axis(Axis(0));
    seen.observe(&batch(SIZES[0])).expect("finite values");
    let mut into = seen.clone();
    c.bench_function("merge Mse/per axis, outer", |b| {
        b.iter(|| into.merge(black_box(&seen)).expect("the same settings"))
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = all_observe, all_search, merge
}
criterion_main!(benches);
