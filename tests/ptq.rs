//! Methods for weights of few bits, against plain computations.
#![cfg(feature = "std")]

use ndarray::{Array1, Array2, ArrayRef2, Axis, Ix2, Slice, array, concatenate};
use ndarray_quant::error::{ParamsError, ShapeError, ValueError};
use ndarray_quant::nn::{Linear, LinearNBits};
use ndarray_quant::ptq::{
    AdaRound, Awq, CoordinateDescent, Gptq, Hadamard, Hqq, InputStatistics, SmoothQuant, output_noise,
};
use ndarray_quant::{Convention, Element, Error, Granularity, I2, I4, QParams, QTensor, Result, Scheme, U4};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

fn random(shape: (usize, usize), rng: &mut Pcg64Mcg) -> Array2<f32> {
    Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0f32))
}

/// Rows whose channels are correlated and have different magnitudes.
fn inputs(rows: usize, channels: usize, rng: &mut Pcg64Mcg) -> Array2<f32> {
    let sources = channels.div_ceil(3).max(1);
    let mix = random((sources, channels), rng);
    let sizes = Array1::from_iter((0..channels).map(|_| 4f32.powf(rng.random_range(-1.0..1.0))));
    (random((rows, sources), rng).dot(&mix) + 0.3 * random((rows, channels), rng)) * &sizes
}

fn statistics(x: &ArrayRef2<f32>) -> InputStatistics {
    let mut statistics = InputStatistics::new(x.ncols());
    statistics.observe(x).unwrap();
    statistics
}

fn noise<T: Element>(weights: &Array2<f32>, found: &QTensor<T, Ix2>, hessian: &Array2<f64>) -> f64 {
    output_noise(weights, &found.dequantize(), hessian).unwrap()
}

fn inverse(a: &Array2<f64>) -> Array2<f64> {
    let n = a.nrows();
    let mut a = concatenate![Axis(1), *a, Array2::<f64>::eye(n)];
    for j in 0..n {
        let pivot = a[[j, j]];
        a.row_mut(j).mapv_inplace(|x| x / pivot);
        let row = a.row(j).to_owned();
        for i in (0..n).filter(|&i| i != j) {
            let factor = a[[i, j]];
            a.row_mut(i).scaled_add(-factor, &row);
        }
    }
    a.slice_axis(Axis(1), Slice::from(n..)).to_owned()
}

/// The recursion of Optimal Brain Quantization in a fixed order, as GPTQ's paper has it: with the inverse of the Hessian of
/// the columns that are left. `None` if a code is so near to a tie that rounding decides it.
fn obq(
    weights: &Array2<f32>,
    scheme: &Scheme<I4>,
    hessian: &Array2<f64>,
    damping: f64,
    activation_order: bool,
) -> Option<(Array2<i8>, Vec<f32>)> {
    let depth = weights.ncols();
    let group = match scheme.granularity() {
        Granularity::PerGroup { size, .. } => size,
        _ => depth,
    };
    let mut order: Vec<usize> = (0..depth).collect();
    if activation_order {
        order.sort_by(|&a, &b| hessian[[b, b]].total_cmp(&hessian[[a, a]]));
    }
    let mut damped = hessian.clone();
    let added = damping * hessian.diag().mean().unwrap();
    damped.diag_mut().mapv_inplace(|d| d + added);
    let per_tensor = scheme.params_of(weights).unwrap();
    let mut codes = Array2::zeros(weights.raw_dim());
    let mut scales = Vec::new();
    for (r, row) in weights.rows().into_iter().enumerate() {
        let mut w = row.mapv(f64::from);
        let mut left = inverse(&damped);
        let mut params = vec![(0.0, 0); depth.div_ceil(group)];
        for (k, params) in params.iter_mut().enumerate() {
            let static_params = match scheme.granularity() {
                Granularity::PerTensor => per_tensor.clone(),
                _ => {
                    let group = row.slice_axis(Axis(0), Slice::from(k * group..depth.min((k + 1) * group)));
                    scheme.with_granularity(Granularity::PerTensor).params_of(&group).unwrap()
                }
            };
            *params = (static_params.scales()[0], static_params.zero_point().map_or(0, |z| z[[]]));
        }
        for (place, &j) in order.iter().enumerate() {
            let grouped = matches!(scheme.granularity(), Granularity::PerGroup { .. });
            if grouped && !activation_order && place % group == 0 {
                let now = w.slice_axis(Axis(0), Slice::from(j..depth.min(j + group))).mapv(|w| w as f32);
                let now = scheme.with_granularity(Granularity::PerTensor).params_of(&now).unwrap();
                params[j / group] = (now.scales()[0], now.zero_point().map_or(0, |z| z[[]]));
            }
            let (scale, zero) = params[j / group];
            let quotient = w[j] / f64::from(scale);
            if ((quotient - quotient.floor()) - 0.5).abs() < 1e-5 {
                return None;
            }
            let code = (quotient.round_ties_even() + f64::from(zero)).clamp(-8.0, 7.0);
            codes[[r, j]] = code as i8;
            let error = (w[j] - f64::from((code - f64::from(zero)) as f32 * scale)) / left[[j, j]];
            let column = left.column(j).to_owned();
            w.scaled_add(-error, &column);
            let pivot = left[[j, j]];
            for a in 0..depth {
                for b in 0..depth {
                    left[[a, b]] -= column[a] * column[b] / pivot;
                }
            }
            // Rounding leaves something where zeros belong.
            left.row_mut(j).fill(0.0);
            left.column_mut(j).fill(0.0);
        }
        scales.extend(params.iter().map(|p| p.0));
    }
    Some((codes, scales))
}

fn granularity(kind: usize, group: usize) -> Granularity {
    [Granularity::PerTensor, Granularity::per_axis(Axis(0)), Granularity::per_group(Axis(1), group)][kind % 3]
}

proptest! {
    #[test]
    fn gptq_is_the_recursion_of_obq(
        seed: u64, out in 1usize..4, depth in 1usize..20, kind in 0usize..3, group in 1usize..8, symmetric: bool, order: bool,
    ) {
        let rng = &mut Pcg64Mcg::seed_from_u64(seed);
        let weights = random((out, depth), rng);
        let hessian = statistics(&inputs(2 * depth + 4, depth, rng)).second_moments();
        let scheme = if symmetric { Scheme::<I4>::symmetric() } else { Scheme::asymmetric() };
        let scheme = scheme.with_granularity(granularity(kind, group));
        let gptq = Gptq::new().with_damping(0.02).unwrap();
        let gptq = if order { gptq.activation_order() } else { gptq };
        if let Some((codes, scales)) = obq(&weights, &scheme, &hessian, 0.02, order) {
            let found = gptq.quantize(&weights, &scheme, &hessian).unwrap();
            let first = if kind == 0 { &scales[..1] } else { &scales[..] };
            for (found, expected) in found.params().scales().iter().zip(first) {
                prop_assert!((found / expected - 1.0).abs() < 1e-5, "{} for {}", found, expected);
            }
            // A scale that differs in its last bit moves ties, which `obq` excludes.
            prop_assert_eq!(found.unpacked_codes().to_owned(), codes);
        }
    }

    /// Without correlations nothing can cancel: GPTQ has the nearest codes, bit for bit, and other methods too, up to weights
    /// in the middle between two codes.
    #[test]
    fn independent_inputs_leave_the_nearest_codes(
        seed: u64, out in 0usize..5, depth in 0usize..40, kind in 0usize..3, group in 1usize..50, convention in 0usize..3,
        symmetric: bool, order: bool,
    ) {
        let rng = &mut Pcg64Mcg::seed_from_u64(seed);
        let weights = random((out, depth), rng);
        let scheme = if symmetric { Scheme::<I4>::symmetric() } else { Scheme::asymmetric() };
        let scheme = scheme.with_granularity(granularity(kind, group))
            .with_convention([Convention::Onnx, Convention::Torch, Convention::TfLite][convention]);
        let nearest = scheme.quantize(&weights).unwrap();
        let identity = Array2::eye(depth);
        let gptq = if order { Gptq::new().activation_order() } else { Gptq::new() };
        prop_assert_eq!(&gptq.quantize(&weights, &scheme, &identity).unwrap(), &nearest);
        let least = noise(&weights, &nearest, &identity);
        let moved = CoordinateDescent::new().quantize(&weights, &scheme, &identity).unwrap();
        let learned = AdaRound::new().with_iterations(30).quantize(&weights, &scheme, &identity).unwrap();
        for q in [moved, learned] {
            prop_assert!((noise(&weights, &q, &identity) - least).abs() <= 1e-5 * least);
            let differ = q.unpacked_codes().iter().zip(nearest.unpacked_codes()).filter(|(a, b)| *a != b).count();
            // A symmetric grid has the lower end of its range in the middle between two codes.
            prop_assert!(differ <= nearest.params().scales().len(), "{} codes differ", differ);
        }
    }

    /// No method is worse than the nearest codes in the objective that it lowers, and none better than the best codes.
    #[test]
    fn between_the_nearest_and_the_best_codes(seed: u64, depth in 1usize..5) {
        let rng = &mut Pcg64Mcg::seed_from_u64(seed);
        let weights = random((3, depth), rng);
        let hessian = statistics(&inputs(12, depth, rng)).second_moments();
        let scheme = Scheme::<I2>::symmetric().per_axis(Axis(0));
        let params = scheme.params_of(&weights).unwrap();
        let mut best = [f64::INFINITY; 3];
        for code in 0..1usize << (2 * depth) {
            let codes = Array2::from_shape_fn((3, depth), |(_, k)| (code >> (2 * k) & 3) as i8 - 2);
            let found = params.dequantize(&codes).unwrap();
            for (r, best) in best.iter_mut().enumerate() {
                let rows = Slice::from(r..r + 1);
                let [w, found] = [&weights, &found].map(|w| w.slice_axis(Axis(0), rows));
                *best = best.min(output_noise(&w, &found, &hessian).unwrap());
            }
        }
        let best: f64 = best.iter().sum();
        let nearest = noise(&weights, &scheme.quantize(&weights).unwrap(), &hessian);
        let margin = 1.0 + 1e-5;
        let learned = AdaRound::new().with_iterations(100).quantize(&weights, &scheme, &hessian).unwrap();
        for found in [
            learned.clone(),
            Gptq::new().quantize(&weights, &scheme, &hessian).unwrap(),
            CoordinateDescent::new().quantize(&weights, &scheme, &hessian).unwrap(),
        ] {
            prop_assert!(noise(&weights, &found, &hessian) * margin >= best);
        }
        prop_assert!(noise(&weights, &learned, &hessian) <= nearest * margin);
        // Coordinate descent lowers the damped objective.
        let mean = hessian.diag().mean().unwrap();
        let mut damped = hessian.clone();
        damped.diag_mut().mapv_inplace(|d| d + 0.05 * (d + mean));
        let moved = CoordinateDescent::new().quantize(&weights, &scheme, &hessian).unwrap();
        let nearest = noise(&weights, &scheme.quantize(&weights).unwrap(), &damped);
        prop_assert!(noise(&weights, &moved, &damped) <= nearest * margin);
    }

    /// HQQ's grid is never worse than the one of the range, in every block.
    #[test]
    fn hqq_lowers_its_objective(
        seed: u64, out in 1usize..5, depth in 1usize..70, kind in 0usize..3, group in 1usize..40, symmetric: bool,
    ) {
        let rng = &mut Pcg64Mcg::seed_from_u64(seed);
        let weights = random((out, depth), rng).mapv(|w| w.powi(3));
        let scheme = if symmetric { Scheme::<U4>::symmetric() } else { Scheme::asymmetric() };
        let scheme = scheme.with_granularity(granularity(kind, group));
        let (nearest, found) = (scheme.quantize(&weights).unwrap(), Hqq::new().quantize(&weights, &scheme).unwrap());
        prop_assert_eq!(found.params().scale().shape(), nearest.params().scale().shape());
        // The codes are the nearest ones on the grid.
        prop_assert_eq!(&found.params().quantize(&weights).unwrap(), &found);
        if symmetric {
            prop_assert_eq!(found.params().zero_point(), nearest.params().zero_point());
        }
        let objective = |q: &QTensor<U4, Ix2>, columns: std::ops::Range<usize>, rows: std::ops::Range<usize>| {
            let error = &weights - &q.dequantize();
            let error = error.slice_axis(Axis(0), Slice::from(rows)).to_owned();
            error.slice_axis(Axis(1), Slice::from(columns)).iter().map(|e| f64::from(e.abs()).powf(0.7)).sum::<f64>()
        };
        let group = if kind == 2 { group } else { depth };
        for start in (0..depth).step_by(group) {
            let columns = start..depth.min(start + group);
            // One block has all rows, or each row has its own.
            let rows_of_block = if kind == 0 { out } else { 1 };
            for rows in (0..out).step_by(rows_of_block).map(|row| row..row + rows_of_block) {
                let [before, after] = [&nearest, &found].map(|q| objective(q, columns.clone(), rows.clone()));
                prop_assert!(after <= before * (1.0 + 1e-5), "{} {}", after, before);
            }
        }
    }

    #[test]
    fn factors_are_those_of_the_papers_and_keep_the_product(seed: u64, depth in 1usize..30, alpha in 0.0..1.0f64) {
        let rng = &mut Pcg64Mcg::seed_from_u64(seed);
        let (weights, x) = (random((5, depth), rng), inputs(20, depth, rng));
        let seen = statistics(&x);
        let smooth = SmoothQuant::new().with_alpha(alpha).unwrap().factors(&weights, &seen.abs_max()).unwrap();
        for (j, s) in smooth.iter().enumerate() {
            let max = |a: &Array2<f32>| a.column(j).iter().fold(0f32, |max, x| max.max(x.abs()));
            let expected = f64::from(max(&x)).powf(alpha) / f64::from(max(&weights)).powf(1.0 - alpha);
            prop_assert!((f64::from(*s) / expected - 1.0).abs() < 1e-6, "{} for {}", s, expected);
        }

        // AWQ: the least noise of the 20 exponents.
        let scheme = Scheme::<I4>::symmetric().per_group(Axis(1), 8);
        let awq = Awq::new().factors(&weights, &scheme, &seen).unwrap();
        let hessian = seen.second_moments();
        let noise_of = |s: &Array1<f32>| {
            let found = scheme.quantize(&(&weights * s)).unwrap().dequantize() / s;
            let error = (&weights - &found).mapv(f64::from);
            (error.dot(&hessian) * &error).sum()
        };
        let mean = seen.mean_abs();
        let least = (0..20).map(|k| {
            let s = mean.mapv(|x| x.powf(f64::from(k) / 20.0).max(1e-4));
            let (min, max) = s.iter().fold((f64::INFINITY, 0f64), |(min, max), &s| (min.min(s), max.max(s)));
            noise_of(&s.mapv(|s| (s / (min * max).sqrt()) as f32))
        });
        let least = least.fold(f64::INFINITY, f64::min);
        // A factor that differs in its last bits may move a code.
        prop_assert!(noise_of(&awq) <= least * 1.05 + 1e-12, "{} for {}", noise_of(&awq), least);
        prop_assert!(noise_of(&awq) <= noise_of(&Array1::ones(depth)) * (1.0 + 1e-9));

        let exact = x.dot(&weights.t());
        for s in [smooth, awq] {
            let found = (&x / &s).dot(&(&weights * &s).t());
            let size = x.mapv(f32::abs).dot(&weights.mapv(f32::abs).t());
            prop_assert!(found.iter().zip(&exact).zip(&size).all(|((a, b), size)| (a - b).abs() <= 1e-5 * size));
        }
    }

    #[test]
    fn hadamard_is_orthogonal_and_keeps_the_product(seed: u64, channels in 0usize..150, rows in 0usize..4) {
        let rng = &mut Pcg64Mcg::seed_from_u64(seed);
        let rotation = Hadamard::new(channels, seed);
        let r = rotation.rotate(&Array2::eye(channels)).unwrap();
        let product = r.dot(&r.t());
        prop_assert!(product.indexed_iter().all(|((i, j), x)| (x - f32::from(i == j)).abs() < 1e-5));
        // Sylvester's matrices on the diagonal, but for the signs of rows.
        let (mut start, mut rest) = (0, channels);
        while rest > 0 {
            let size = 1 << rest.ilog2();
            for i in 0..size {
                let sign = r[[start + i, start]].signum();
                for j in 0..channels {
                    let inside = (start..start + size).contains(&j);
                    let parity = if inside { (i & (j - start)).count_ones() % 2 } else { 0 };
                    let expected = [1.0, -1.0][parity as usize] / (size as f32).sqrt();
                    let expected = if inside { sign * expected } else { 0.0 };
                    prop_assert!((r[[start + i, j]] - expected).abs() < 1e-6);
                }
            }
            (start, rest) = (start + size, rest - size);
        }
        let (x, weights) = (random((rows, channels), rng), random((3, channels), rng));
        let rotated = rotation.rotate(&x).unwrap();
        let found = rotated.dot(&rotation.rotate(&weights).unwrap().t());
        let exact = x.dot(&weights.t());
        prop_assert!(found.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 1e-4));
        let back = rotation.rotate_back(&rotated).unwrap();
        prop_assert!(back.iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-5));
        // Strides do not matter.
        let mut reversed = x.clone();
        reversed.invert_axis(Axis(1));
        let copied = reversed.as_standard_layout().to_owned();
        prop_assert_eq!(rotation.rotate(&reversed).unwrap(), rotation.rotate(&copied).unwrap());
    }

    /// The same bits in any order and any batches; near the sums of floats.
    #[test]
    fn statistics_do_not_depend_on_batches(seed: u64, rows in 1usize..60, channels in 1usize..20, batch in 1usize..20) {
        let rng = &mut Pcg64Mcg::seed_from_u64(seed);
        let mut x = inputs(rows, channels, rng);
        for mut row in x.rows_mut() {
            let size = 2f32.powi(rng.random_range(-12..12));
            row.mapv_inplace(|x| x * size);
        }
        let whole = statistics(&x);
        let mut parts: Vec<InputStatistics> = x.axis_chunks_iter(Axis(0), batch).map(|x| statistics(&x)).collect();
        let mut merged = InputStatistics::new(channels);
        while !parts.is_empty() {
            merged.merge(&parts.swap_remove(rng.random_range(0..parts.len()))).unwrap();
        }
        prop_assert_eq!(&merged, &whole);
        prop_assert_eq!(whole.rows(), rows as u64);
        let exact = x.mapv(f64::from);
        let size = exact.fold(0f64, |max, x| max.max(x.abs()));
        let near = |found: &Array1<f64>, expected: Array1<f64>, tolerance: f64| {
            found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= tolerance)
        };
        prop_assert!(near(&whole.mean(), exact.mean_axis(Axis(0)).unwrap(), 1e-4 * size));
        prop_assert!(near(&whole.mean_abs(), exact.mapv(f64::abs).mean_axis(Axis(0)).unwrap(), 1e-4 * size));
        for (channel, max) in whole.abs_max().iter().enumerate() {
            prop_assert_eq!(*max, x.column(channel).fold(0f32, |max, x| max.max(x.abs())));
        }
        let second = exact.t().dot(&exact) / rows as f64;
        let found = whole.second_moments();
        prop_assert!(found.iter().zip(&second).all(|(a, b)| (a - b).abs() <= 0.02 * size * size));
        let covariance = whole.covariance();
        prop_assert!(covariance.diag().iter().all(|&v| v >= -1e-12 * size * size));
    }
}

/// On correlated inputs each method that needs them loses less than half of what the nearest codes lose, measured on rows
/// that were not observed, and layers take its tensors.
#[test]
fn methods_lose_less_than_half() {
    let rng = &mut Pcg64Mcg::seed_from_u64(3);
    let (out, depth) = (24, 96);
    let weights = random((out, depth), rng);
    let all = inputs(700, depth, rng);
    let (seen, held) = all.view().split_at(Axis(0), 500);
    let hessian = statistics(&seen).second_moments();
    let y = held.dot(&weights.t());
    let layer_noise = |q: &QTensor<I4, Ix2>| {
        let found = LinearNBits::new(q, None).unwrap().forward(&held).unwrap();
        (&found - &y).mapv(|e| f64::from(e).powi(2)).sum()
    };
    for scheme in [
        Scheme::<I4>::symmetric().per_group(Axis(1), 32),
        Scheme::<I4>::asymmetric().per_group(Axis(1), 40),
        Scheme::<I4>::symmetric().per_axis(Axis(0)),
    ] {
        let nearest = layer_noise(&scheme.quantize(&weights).unwrap());
        let gptq = Gptq::new().quantize(&weights, &scheme, &hessian).unwrap();
        let ordered = Gptq::new().activation_order().quantize(&weights, &scheme, &hessian).unwrap();
        let moved = CoordinateDescent::new().quantize(&weights, &scheme, &hessian).unwrap();
        let learned = AdaRound::new().quantize(&weights, &scheme, &hessian).unwrap();
        for (name, q) in [("gptq", &gptq), ("activation order", &ordered), ("descent", &moved), ("AdaRound", &learned)]
        {
            let found = layer_noise(q);
            println!("{name}: {:.3} of the noise", found / nearest);
            assert!(found < 0.5 * nearest, "{name}: {found} of {nearest}");
        }
    }
    let q = Gptq::new().quantize(&weights, &Scheme::<I4>::symmetric().per_axis(Axis(0)), &hessian).unwrap();
    let i8_weights = Gptq::new().quantize(&weights, &Scheme::<i8>::symmetric().per_axis(Axis(0)), &hessian).unwrap();
    assert_eq!(Linear::new(&i8_weights, None).unwrap().forward_dynamic(&held).unwrap().dim(), (200, out));
    assert_eq!(q.shape(), [out, depth]);
}

/// Codes on a grid that is given, such as HQQ's.
#[test]
fn codes_on_a_given_grid() {
    let rng = &mut Pcg64Mcg::seed_from_u64(5);
    let (weights, x) = (random((6, 50), rng), inputs(200, 50, rng));
    let hessian = statistics(&x).second_moments();
    let scheme = Scheme::<U4>::asymmetric().per_group(Axis(1), 16);
    let hqq = Hqq::new().quantize(&weights, &scheme).unwrap();
    for q in [
        Gptq::new().quantize(&weights, hqq.params(), &hessian).unwrap(),
        CoordinateDescent::new().quantize(&weights, hqq.params(), &hessian).unwrap(),
        AdaRound::new().quantize(&weights, hqq.params(), &hessian).unwrap(),
    ] {
        assert_eq!(q.params(), hqq.params());
        assert!(noise(&weights, &q, &hessian) < 0.7 * noise(&weights, &hqq, &hessian));
    }
}

/// Channels that were always 0 and directions that were never seen.
#[test]
fn singular_hessians() {
    let rng = &mut Pcg64Mcg::seed_from_u64(7);
    let weights = random((4, 30), rng);
    let mut x = inputs(5, 30, rng);
    x.column_mut(3).fill(0.0);
    let hessian = statistics(&x).second_moments();
    let scheme = Scheme::<I4>::symmetric().per_axis(Axis(0));
    let nearest = scheme.quantize(&weights).unwrap();
    let dead = |q: &QTensor<I4, Ix2>| q.unpacked_codes().column(3) == nearest.unpacked_codes().column(3);
    for q in [
        Gptq::new().quantize(&weights, &scheme, &hessian).unwrap(),
        CoordinateDescent::new().quantize(&weights, &scheme, &hessian).unwrap(),
        AdaRound::new().quantize(&weights, &scheme, &hessian).unwrap(),
    ] {
        assert!(dead(&q));
        assert!(noise(&weights, &q, &hessian) < 0.5 * noise(&weights, &nearest, &hessian));
    }
    let undamped = Gptq::new().with_damping(0.0).unwrap().quantize(&weights, &scheme, &hessian);
    match undamped {
        Ok(q) => assert!(dead(&q)),
        Err(error) => assert!(matches!(error, Error::Argument { what: "hessian", .. }), "{error}"),
    }
    // No input at all.
    let zeros = Array2::zeros((30, 30));
    assert_eq!(Gptq::new().quantize(&weights, &scheme, &zeros).unwrap(), nearest);
    assert_eq!(CoordinateDescent::new().quantize(&weights, &scheme, &zeros).unwrap(), nearest);
    assert_eq!(AdaRound::new().quantize(&weights, &scheme, &zeros).unwrap(), nearest);
    assert_eq!(Awq::new().factors(&weights, &scheme, &InputStatistics::new(30)).unwrap(), Array1::<f32>::ones(30));
    let zero = Array1::zeros(30);
    assert_eq!(SmoothQuant::new().factors(&weights, &zero).unwrap(), Array1::<f32>::ones(30));
    // A matrix that is no second moment.
    let error = Gptq::new().quantize(&weights, &scheme, &-Array2::eye(30)).unwrap_err();
    assert!(matches!(error, Error::Argument { what: "hessian", .. }), "{error}");
}

#[test]
fn hostile_arguments() {
    let weights = Array2::<f32>::ones((3, 8));
    let mut nan = weights.clone();
    nan[[1, 2]] = f32::NAN;
    let eye = Array2::eye(8);
    let mut infinite = eye.clone();
    infinite[[0, 1]] = f64::INFINITY;
    let scheme = Scheme::<I4>::symmetric().per_group(Axis(1), 4);
    let along_outputs = Scheme::<I4>::symmetric().per_group(Axis(0), 4);
    let by_column = Scheme::<I4>::symmetric().per_axis(Axis(1));
    let known = scheme.params_of(&weights).unwrap();
    let other = scheme.params_of(&Array2::<f32>::ones((2, 8))).unwrap();

    type Method = fn(&Array2<f32>, &Scheme<I4>, Option<&QParams<I4>>, &Array2<f64>) -> Result<QTensor<I4, Ix2>>;
    let methods: [Method; 3] = [
        |w, s, p, h| p.map_or_else(|| Gptq::new().quantize(w, s, h), |p| Gptq::new().quantize(w, p, h)),
        |w, s, p, h| {
            let method = CoordinateDescent::new();
            p.map_or_else(|| method.quantize(w, s, h), |p| method.quantize(w, p, h))
        },
        |w, s, p, h| {
            let method = AdaRound::new().with_iterations(3);
            p.map_or_else(|| method.quantize(w, s, h), |p| method.quantize(w, p, h))
        },
    ];
    for method in methods {
        let not_finite = |result: Result<QTensor<I4, Ix2>>| {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Value(ValueError::NonFinite { .. })), "{error}");
        };
        not_finite(method(&nan, &scheme, None, &eye));
        not_finite(method(&nan, &scheme, Some(&known), &eye));
        not_finite(method(&weights, &scheme, None, &infinite));
        let shape = method(&weights, &scheme, None, &Array2::eye(7)).unwrap_err();
        assert!(matches!(shape, Error::Shape(ShapeError::Mismatch { what: "hessian, [in, in]", .. })), "{shape}");
        assert!(matches!(method(&weights, &scheme, Some(&other), &eye), Err(Error::Shape(_))));
        for scheme in [&along_outputs, &by_column] {
            let error = method(&weights, scheme, None, &eye).unwrap_err();
            assert!(matches!(error, Error::Params(ParamsError::Granularity { .. })), "{error}");
        }
        // Numbers near the ends of `f32`.
        for w in [f32::MAX, f32::MIN_POSITIVE, 1e-45] {
            let extreme = Array2::from_shape_fn((3, 8), |(i, j)| if (i + j) % 3 == 0 { -w } else { w });
            let correlated = Array2::from_elem((8, 8), 1e300) + &eye * 1e299;
            method(&extreme, &scheme, None, &correlated).unwrap();
        }
        for (out, depth) in [(0, 8), (3, 0), (0, 0)] {
            let q = method(&Array2::zeros((out, depth)), &scheme, None, &Array2::eye(depth)).unwrap();
            assert_eq!(q.shape(), [out, depth]);
        }
    }

    for scheme in [&along_outputs, &by_column] {
        assert!(matches!(Hqq::new().quantize(&weights, scheme), Err(Error::Params(ParamsError::Granularity { .. }))));
    }
    assert!(matches!(Hqq::new().quantize(&nan, &scheme), Err(Error::Value(_))));
    for w in [0.0, f32::MAX, 1e-45] {
        Hqq::new().quantize(&Array2::from_elem((2, 8), w), &scheme).unwrap();
    }
    for (out, depth) in [(0, 8), (3, 0)] {
        for scheme in [scheme, Scheme::symmetric()] {
            assert_eq!(Hqq::new().quantize(&Array2::zeros((out, depth)), &scheme).unwrap().shape(), [out, depth]);
        }
    }
    assert!(Hqq::new().with_norm(0.0).is_err() && Hqq::new().with_norm(f64::NAN).is_err());
    assert!(Hqq::new().with_beta(0.0, 1.0).is_err() && Hqq::new().with_beta(1.0, 0.9).is_err());

    let mut seen = InputStatistics::new(8);
    assert!(matches!(seen.observe(&Array2::ones((2, 7))), Err(Error::Shape(_))));
    assert!(matches!(seen.observe(&nan), Err(Error::Value(ValueError::NonFinite { .. }))));
    assert_eq!(seen, InputStatistics::new(8));
    assert!(matches!(seen.merge(&InputStatistics::new(7)), Err(Error::Shape(_))));
    seen.observe(&weights).unwrap();
    let mut none = InputStatistics::new(0);
    none.observe(&Array2::zeros((5, 0))).unwrap();
    assert_eq!((none.rows(), none.second_moments().dim()), (5, (0, 0)));

    assert!(matches!(Awq::new().factors(&nan, &scheme, &seen), Err(Error::Value(_))));
    assert!(matches!(Awq::new().factors(&weights, &scheme, &InputStatistics::new(7)), Err(Error::Shape(_))));
    Awq::new().factors(&Array2::from_elem((2, 8), f32::MAX), &scheme, &seen).unwrap();
    assert!(SmoothQuant::new().with_alpha(1.1).is_err() && SmoothQuant::new().with_alpha(f64::NAN).is_err());
    assert!(matches!(SmoothQuant::new().factors(&weights, &Array1::ones(7)), Err(Error::Shape(_))));
    assert!(matches!(SmoothQuant::new().factors(&nan, &Array1::ones(8)), Err(Error::Value(_))));
    assert!(matches!(Hadamard::new(8, 0).rotate(&Array2::ones((1, 9))), Err(Error::Shape(_))));
    assert!(Gptq::new().with_damping(-0.1).is_err() && Gptq::new().with_damping(f64::INFINITY).is_err());
    assert!(AdaRound::new().with_learning_rate(0.0).is_err() && AdaRound::new().with_regularization(-1.0).is_err());
    let one = array![[1.0f64]];
    assert!(matches!(output_noise(&weights, &Array2::ones((3, 7)), &eye), Err(Error::Shape(_))));
    assert!(matches!(output_noise(&nan, &weights, &eye), Err(Error::Value(_))));
    assert!(matches!(output_noise(&weights, &weights, &one), Err(Error::Shape(_))));
}

/// The same bits on any number of threads, at sizes beyond the blocks of rows and columns.
#[cfg(feature = "rayon")]
#[test]
fn threads() {
    let rng = &mut Pcg64Mcg::seed_from_u64(9);
    let (weights, x) = (random((70, 300), rng), inputs(400, 300, rng));
    let seen = statistics(&x);
    let hessian = seen.second_moments();
    let scheme = Scheme::<I4>::asymmetric().per_group(Axis(1), 24);
    let run = |threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let codes = [
                Gptq::new().quantize(&weights, &scheme, &hessian).unwrap(),
                Gptq::new().activation_order().quantize(&weights, &scheme, &hessian).unwrap(),
                CoordinateDescent::new().quantize(&weights, &scheme, &hessian).unwrap(),
                AdaRound::new().with_iterations(20).quantize(&weights, &scheme, &hessian).unwrap(),
                Hqq::new().quantize(&weights, &scheme).unwrap(),
            ];
            (codes, Awq::new().factors(&weights, &scheme, &seen).unwrap())
        })
    };
    let one = run(1);
    assert_eq!(run(2), one);
    assert_eq!(run(7), one);
}

/// The settings and statistics are data.
#[cfg(feature = "serde")]
#[test]
fn serialized() {
    let seen = statistics(&inputs(10, 5, &mut Pcg64Mcg::seed_from_u64(1)));
    let text = serde_json::to_string(&seen).unwrap();
    assert_eq!(serde_json::from_str::<InputStatistics>(&text).unwrap(), seen);
    let fewer = text.replacen("\"abs_max\":[", "\"abs_max\":[1.0,", 1);
    assert!(serde_json::from_str::<InputStatistics>(&fewer).is_err());
    let rotation = Hadamard::new(5, 2);
    let text = serde_json::to_string(&rotation).unwrap();
    assert_eq!(serde_json::from_str::<Hadamard>(&text).unwrap(), rotation);
}
