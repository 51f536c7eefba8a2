//! Quantized networks against their float networks.

#[cfg(feature = "safetensors")]
mod files;
mod groups;
#[cfg(feature = "rayon")]
mod threads;
mod transforms;

use ndarray::{Array, Array1, Array2, ArrayD, Axis, IxDyn, array};
use ndarray_quant::Error;
use ndarray_quant::error::{GraphError, ValueError};
use ndarray_quant::{
    graph::{
        Activation, Arena, Calibration, CalibrationMethod, Calibrator, Clamp, FullInteger, Graph, GraphBuilder,
        Precision, QuantizedNetwork, Recipe, TensorId, op,
    },
    nn::Window,
    ptq::CoordinateDescent,
};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

fn random<D: ndarray::Dimension>(shape: impl ndarray::ShapeBuilder<Dim = D>, rng: &mut Pcg64Mcg) -> Array<f32, D> {
    Array::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
}

/// Builds a network with all kinds of convolutions, a residual sum, a gate, poolings, a concatenation and a linear
/// layer.
fn network(rng: &mut Pcg64Mcg) -> Graph {
    let mut g = GraphBuilder::new();
    let mut conv = |g: &mut GraphBuilder, name: &str, x: TensorId, shape: [usize; 4], window: Window, groups: usize| {
        let depth = (shape[1] * shape[2] * shape[3]) as f32;
        let w = random(shape, rng) * (2.0 / depth.sqrt());
        g.conv(name, x, &w, Some(&(random(shape[0], rng) * 0.2)), window, groups).unwrap()
    };
    let x = g.input("x", &[1, 3, 12, 12]).unwrap();
    let a = conv(&mut g, "stem", x, [16, 3, 3, 3], Window::new().with_strides([2, 2]).with_padding(1), 1);
    let a = g.relu6("stem_relu", a).unwrap();
    let b = conv(&mut g, "depthwise", a, [16, 1, 3, 3], Window::new().with_padding(1), 16);
    let b = g.relu6("depthwise_relu", b).unwrap();
    let b = conv(&mut g, "project", b, [16, 16, 1, 1], Window::new(), 1);
    let sum = g.add("sum", a, b).unwrap();
    let grouped = conv(&mut g, "grouped", sum, [8, 8, 3, 3], Window::new(), 2);
    let swish = g.activation("swish", grouped, Activation::HardSwish).unwrap();
    let mean = g.global_average_pool("mean", swish).unwrap();
    let gate = g.activation("gate", mean, Activation::Sigmoid).unwrap();
    let gated = g.mul("gated", swish, gate).unwrap();
    let pooled = g.max_pool("pooled", gated, [2, 2], Window::new().with_strides([2, 2])).unwrap();
    let averaged = g.average_pool("averaged", gated, [2, 2], Window::new().with_strides([2, 2]), false).unwrap();
    let both = g.concat("both", &[pooled, averaged], 1).unwrap();
    let flat = g.flatten("flat", both).unwrap();
    let depth = g.shape(flat).unwrap()[1];
    let scores = g.linear("scores", flat, &random((10, depth), rng), Some(&random(10, rng))).unwrap();
    g.build(&[scores]).unwrap().simplify().unwrap()
}

fn images(n: usize, rng: &mut Pcg64Mcg) -> ArrayD<f32> {
    random(IxDyn(&[n, 3, 12, 12]), rng)
}

fn calibrated(graph: &Graph, x: &ArrayD<f32>) -> Recipe {
    let calibration = graph.calibrate(x.axis_chunks_iter(Axis(0), 16)).unwrap();
    calibration.recipe(graph, CalibrationMethod::MinMax).unwrap()
}

/// Observes `x` in batches of `batch` samples, second moments too.
fn observed(graph: &Graph, x: &ArrayD<f32>, batch: usize) -> Calibration {
    let mut calibrator = Calibrator::new(graph).unwrap().with_second_moments();
    x.axis_chunks_iter(Axis(0), batch).for_each(|batch| calibrator.observe(&batch).unwrap());
    calibrator.finish()
}

fn sqnr(expected: &ArrayD<f32>, found: &ArrayD<f32>) -> f64 {
    let power = |x: ArrayD<f32>| x.iter().map(|&x| (x as f64).powi(2)).sum::<f64>();
    10.0 * (power(expected.clone()) / power(expected - found)).log10()
}

#[test]
fn every_kind_of_network_is_close_to_the_float_network() {
    let rng = &mut Pcg64Mcg::seed_from_u64(5);
    let graph = network(rng);
    let (seen, x) = (images(64, rng), images(32, rng));
    let recipe = calibrated(&graph, &seen);
    let calibration = observed(&graph, &seen, 16);
    let float = graph.run(&x).unwrap();
    let quality = |network: &QuantizedNetwork| sqnr(&float, &network.run(&x).unwrap());

    let nearest = graph.quantize(&recipe).unwrap();
    assert!(quality(&nearest) > 30.0, "{}", quality(&nearest));
    assert!(nearest.weights_size_in_bytes() < graph.size_in_bytes() * 45 / 100);

    let dynamic = graph.quantize(&Recipe::dynamic_range(&graph).unwrap()).unwrap();
    assert!(quality(&dynamic) > 35.0, "{}", quality(&dynamic));
    let half = graph.quantize(&Recipe::float16(&graph)).unwrap();
    assert!(quality(&half) > 60.0, "{}", quality(&half));

    // Where the rounding of weights dominates the error, compensation reduces it.
    let mut coarse = recipe.clone();
    coarse
        .tensors
        .iter_mut()
        .filter(|(name, _)| name.ends_with("weight"))
        .for_each(|(_, w)| w.precision = Precision::Int4);
    let rounded = graph.quantize(&coarse).unwrap();
    let compensated = graph.quantize_with(&coarse, Some(&calibration), CoordinateDescent::new()).unwrap();
    assert!(quality(&compensated) > quality(&rounded) + 0.5, "{} {}", quality(&compensated), quality(&rounded));

    // Four bits in one layer, float in two others.
    let mut mixed = recipe.clone();
    mixed.tensor_mut("grouped.weight").unwrap().precision = Precision::Int4;
    mixed.float_layers.extend(["project".to_string(), "sum".to_string()]);
    let mixed = graph.quantize(&mixed).unwrap();
    assert!(mixed.weights_size_in_bytes() != nearest.weights_size_in_bytes());
    assert!(quality(&mixed) > 15.0, "{}", quality(&mixed));
}

#[test]
fn integers_go_in_and_come_out() {
    let rng = &mut Pcg64Mcg::seed_from_u64(6);
    let graph = network(rng);
    let x = images(20, rng);
    let mut recipe = calibrated(&graph, &x);
    recipe.tensor_mut("scores").unwrap().precision = Precision::Int8;
    let network = graph.quantize(&recipe).unwrap();
    let (input, output) = (network.activation("x").unwrap(), network.activation("scores").unwrap());
    let mut codes = ArrayD::<u8>::zeros(x.raw_dim());
    input.quantize_into(&x, &mut codes).unwrap();
    let mut arena = Arena::new();
    let y = network.run_codes(&codes, &mut arena).unwrap();
    let mut expected = ArrayD::<f32>::zeros(y.raw_dim());
    output.dequantize_into(&y, &mut expected).unwrap();
    assert_eq!(expected, network.run(&x).unwrap());
    assert_eq!(expected, network.run_from_codes(&codes, &mut arena).unwrap());
    // Images in NHWC memory order, and with gaps.
    let last = x.view().permuted_axes(IxDyn(&[0, 2, 3, 1])).as_standard_layout().into_owned();
    assert_eq!(expected, network.run(&last.permuted_axes(IxDyn(&[0, 3, 1, 2]))).unwrap());
    let twice = ndarray::concatenate![Axis(3), x, x];
    assert_eq!(expected, network.run(&twice.slice_axis(Axis(3), (12..).into())).unwrap());
}

#[test]
fn the_simulation_is_the_network() {
    let rng = &mut Pcg64Mcg::seed_from_u64(7);
    let graph = network(rng);
    let x = images(16, rng);
    let network = graph.quantize(&calibrated(&graph, &x)).unwrap();
    let report = network.report(&graph, &x).unwrap();
    assert_eq!(report.layers.len(), graph.nodes().len());
    let last = report.layers.last().unwrap();
    let found = sqnr(&graph.run(&x).unwrap(), &network.run(&x).unwrap());
    assert!((last.accumulated.sqnr_db - found).abs() < 1.5, "{report}{found}");
    for layer in &report.layers {
        assert!(layer.local.sqnr_db >= layer.accumulated.sqnr_db - 3.0, "{report}");
        assert!(layer.local.sqnr_db > 25.0, "{report}");
        assert_eq!(layer.weights.is_some(), matches!(layer.op, "Conv" | "Linear"));
        assert_eq!((layer.clipped, layer.weights_clipped), (0.0, 0.0), "no value is outside its own range");
    }
    assert!(report.to_string().lines().count() == report.layers.len() + 1);
    assert!(report.to_svg().matches("<title>").count() == 2 * report.layers.len());
}

#[test]
fn one_bad_layer_is_found() {
    let rng = &mut Pcg64Mcg::seed_from_u64(8);
    let graph = network(rng);
    let x = images(16, rng);
    let mut recipe = calibrated(&graph, &x);
    recipe.tensor_mut("project").unwrap().ranges = vec![(-0.1, 0.1)];
    let report = graph.quantize(&recipe).unwrap().report(&graph, &x).unwrap();
    let worst = report.worst_first()[0];
    assert_eq!(worst.node, "project", "{report}");
    assert!(worst.clipped > 0.2 && worst.local.sqnr_db < 10.0);
}

#[test]
fn a_bias_beyond_the_accumulator_widens_the_scale() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2]).unwrap();
    let w = array![[1e-6f32, -1e-6], [0.5, 0.25], [0.0, 0.0]];
    let y = g.linear("y", x, &w, Some(&array![400.0, 1.0, 3.0])).unwrap();
    let graph = g.build(&[y]).unwrap();
    let x = array![[1.0f32, -1.0], [0.5, 0.25]].into_dyn();
    let mut recipe = calibrated(&graph, &x);
    recipe.tensor_mut("y").unwrap().precision = Precision::Int8;
    let network = graph.quantize(&recipe).unwrap();
    assert!(network.recipe().tensors["y.weight"].ranges[0].1 > 1e-4);
    let (found, float) = (network.run(&x).unwrap(), graph.run(&x).unwrap());
    assert!(found.iter().zip(&float).all(|(a, b)| (a - b).abs() < 1.6), "{found} {float}");
}

/// Deep layers leave little of the accumulator to the bias: scales are widened for it, and a layer that is too deep is
/// an error.
#[test]
fn deep_layers() {
    let deep = |depth: usize, precision: Precision| {
        let mut g = GraphBuilder::new();
        let x = g.input("x", &[1, depth]).unwrap();
        let w = Array::from_shape_fn((2, depth), |(o, i)| if i == 0 { o as f32 + 1.0 } else { 0.0 });
        let y = g.linear("y", x, &w, Some(&array![3e4, -7e3])).unwrap();
        let graph = g.build(&[y]).unwrap();
        let x = Array::from_shape_fn((2, depth), |(n, i)| ((n + i) % 2) as f32);
        let mut recipe = calibrated(&graph, &x.clone().into_dyn());
        recipe.tensor_mut("y").unwrap().precision = precision;
        (graph.quantize(&recipe), graph.run(&x).unwrap(), x)
    };
    for precision in [Precision::Int8, Precision::Float32] {
        for depth in [10_000, 65_000] {
            let (network, expected, x) = deep(depth, precision);
            let found = network.unwrap().run(&x).unwrap();
            assert!(found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 100.0), "{found}");
        }
        match deep(70_000, precision).0.map(|network| network.size_in_bytes()) {
            Err(Error::Graph(GraphError::Node { node, error })) => {
                assert_eq!((&*node, *error), ("y", Error::Value(ValueError::Depth { max: 65_793, found: 70_000 })));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn calibrations_do_not_depend_on_batches_order_or_shards() {
    let rng = &mut Pcg64Mcg::seed_from_u64(9);
    let graph = network(rng);
    // Samples of very different magnitudes, so that sums have several units.
    let mut x = images(24, rng);
    x.outer_iter_mut().enumerate().for_each(|(i, mut x)| x *= 4f32.powi(i as i32 % 9 - 4));
    let whole = observed(&graph, &x, 24);
    assert_eq!(whole.samples(), 24);
    assert_eq!(observed(&graph, &x, 1), whole);
    let order: Vec<usize> = (0..24).map(|i| (i * 7 + 3) % 24).collect();
    let shuffled = x.select(Axis(0), &order);
    assert_eq!(observed(&graph, &shuffled, 5), whole);
    for parts in [2, 7] {
        let mut calibrator = Calibrator::new(&graph).unwrap().with_second_moments();
        let mut shards: Vec<Calibration> = vec![calibrator.take()]; // an empty shard changes nothing
        for shard in shuffled.axis_chunks_iter(Axis(0), 24 / parts) {
            calibrator.observe(&shard).unwrap();
            assert_eq!(calibrator.calibration().samples(), shard.len_of(Axis(0)) as u64);
            shards.push(calibrator.take());
        }
        for shards in [shards.iter().collect::<Vec<_>>(), shards.iter().rev().collect()] {
            let mut merged = shards[0].clone();
            shards[1..].iter().for_each(|shard| merged.merge(shard).unwrap());
            assert_eq!(merged, whole, "{parts} parts");
        }
    }
    #[cfg(feature = "serde")]
    {
        let text = serde_json::to_string(&whole).unwrap();
        let read: Calibration = serde_json::from_str(&text).unwrap();
        assert_eq!(read, whole);
        assert_eq!(serde_json::to_string(&observed(&graph, &shuffled, 3)).unwrap(), text);
        let broken = text.replacen("\"abs_max\":[", "\"abs_max\":[1.0,", 1);
        assert_ne!(broken, text);
        assert!(serde_json::from_str::<Calibration>(&broken).is_err());
    }

    // Other networks, and other kinds of calibrations.
    let mut g = GraphBuilder::new();
    let y = g.input("x", &[1, 3, 12, 12]).unwrap();
    let y = g.relu("y", y).unwrap();
    let other = g.build(&[y]).unwrap().calibrate([x.view()]).unwrap();
    assert!(matches!(whole.clone().merge(&other), Err(Error::Graph(GraphError::Unknown { .. }))));
    let plain = graph.calibrate([x.view()]).unwrap();
    assert!(matches!(whole.clone().merge(&plain), Err(Error::Graph(GraphError::Mismatch { .. }))));
    assert!(matches!(other.recipe(&graph, CalibrationMethod::MinMax), Err(Error::Graph(GraphError::Unknown { .. }))));
    let recipe = plain.recipe(&graph, CalibrationMethod::MinMax).unwrap();
    assert!(matches!(
        graph.quantize_with(&recipe, Some(&plain), CoordinateDescent::new()),
        Err(Error::Argument { .. })
    ));
}

#[test]
fn any_method_from_one_pass() {
    let rng = &mut Pcg64Mcg::seed_from_u64(19);
    let graph = network(rng);
    let x = images(24, rng);
    let calibration = graph.calibrate(x.axis_chunks_iter(Axis(0), 8)).unwrap();
    let recipe = |method| calibration.recipe(&graph, method).unwrap();
    let full = recipe(CalibrationMethod::MinMax);
    let histogram = calibration.histogram("x").unwrap();
    assert_eq!(full.tensors["x"].ranges, [(histogram.bounds().min(), histogram.bounds().max())]);
    assert_eq!(histogram.counts().iter().sum::<u64>(), x.len() as u64);
    let clipped = recipe(CalibrationMethod::Percentile(99.0));
    assert!(clipped.tensors["x"].ranges[0].1 < full.tensors["x"].ranges[0].1);
    for method in [CalibrationMethod::Mse, CalibrationMethod::Entropy] {
        assert!(recipe(method).tensors["swish"].ranges[0].1 <= full.tensors["swish"].ranges[0].1);
    }
    assert!(calibration.recipe(&graph, CalibrationMethod::Percentile(20.0)).is_err());
}

#[test]
fn unsound_recipes_are_errors() {
    let rng = &mut Pcg64Mcg::seed_from_u64(10);
    let graph = network(rng);
    let recipe = calibrated(&graph, &images(2, rng));
    let error = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = recipe.clone();
        change(&mut recipe);
        graph.quantize(&recipe).err().unwrap_or_else(|| panic!("{recipe:?}"))
    };
    let name = |e: Error| matches!(e, Error::Graph(GraphError::Unknown { .. }));
    assert!(name(error(&|r| r.float_layers.extend(["nothing".to_string()]))));
    assert!(name(error(&|r| drop(r.tensors.insert("nothing".into(), recipe.tensors["x"].clone())))));
    let node = |e: Error| matches!(e, Error::Graph(GraphError::Node { .. }));
    assert!(node(error(&|r| r.tensor_mut("x").unwrap().ranges.clear())));
    assert!(node(error(&|r| r.tensor_mut("x").unwrap().ranges = vec![(1.0, 0.0)])));
    assert!(node(error(&|r| r.tensor_mut("x").unwrap().ranges = vec![(0.0, f32::NAN)])));
    assert!(node(error(&|r| {
        // Also for a precision that has no range: a saved recipe could not be read.
        let x = r.tensor_mut("x").unwrap();
        (x.precision, x.ranges) = (Precision::Float32, vec![(0.0, f32::NAN)]);
    })));
    assert!(node(error(&|r| r.tensor_mut("x").unwrap().precision = Precision::Int4)));
    assert!(node(error(&|r| r.tensor_mut("stem.weight").unwrap().symmetric = false)));
    assert!(node(error(&|r| r.tensor_mut("stem.weight").unwrap().ranges.truncate(3))));
    assert!(matches!(recipe.clone().tensor_mut("nothing"), Err(Error::Graph(GraphError::Unknown { .. }))));
    let empty = Calibrator::new(&graph).unwrap().finish().recipe(&graph, CalibrationMethod::MinMax);
    assert!(matches!(empty, Err(Error::Graph(GraphError::Node { .. }))), "{empty:?}");
}

#[test]
fn clamps_and_constants_are_fused_into_codes() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 3]).unwrap();
    let c = g.constant("c", &Array1::from(vec![0.5f32, -0.5, 2.0])).unwrap();
    let y = g.mul("scaled", x, c).unwrap();
    let y = g.add("shifted", y, c).unwrap();
    let y = g.relu("relu", y).unwrap();
    let graph = g.build(&[y]).unwrap().simplify().unwrap();
    assert_eq!(graph.node("relu").unwrap().clamp, Clamp::RELU);
    let x = Array2::from_shape_fn((50, 3), |(i, j)| ((i * 3 + j) as f32).sin()).into_dyn();
    let mut recipe = calibrated(&graph, &x);
    recipe.tensor_mut("relu").unwrap().precision = Precision::Int8;
    let network = graph.quantize(&recipe).unwrap();
    let (found, float) = (network.run(&x).unwrap(), graph.run(&x).unwrap());
    assert!(sqnr(&float, &found) > 35.0, "{}", sqnr(&float, &found));
}

/// Computes a fingerprint of all codes. Every instruction set and number of threads must give the same.
#[test]
fn codes_are_the_same_on_every_instruction_set() {
    const NAME: &str = "NDARRAY_QUANT_ISA";
    let rng = &mut Pcg64Mcg::seed_from_u64(11);
    let graph = network(rng);
    let x = images(400, rng);
    // Fixed ranges, because calibrated ranges come from float sums, whose last bits depend on the machine.
    let mut recipe = calibrated(&graph, &x);
    recipe.tensors.iter_mut().for_each(|(name, tensor)| {
        if !name.ends_with("weight") {
            tensor.ranges = vec![(-6.0, 8.0)];
        }
    });
    recipe.tensor_mut("scores").unwrap().precision = Precision::Int8;
    let network = graph.quantize(&recipe).unwrap();
    let codes: ArrayD<u8> = x.mapv(|x| (x * 127.0 + 128.0) as u8);
    let y = network.run_codes(&codes, &mut Arena::new()).unwrap();
    let print =
        y.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &code| (hash ^ u64::from(code)).wrapping_mul(0x100_0000_01b3));
    println!("fingerprint {print:016x}");
    if std::env::var(NAME).is_ok() {
        return;
    }
    for (threads, isa) in [("1", "sse2"), ("2", "avx2"), ("3", "avx512vnni")] {
        let test = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "codes_are_the_same_on_every_instruction_set", "--nocapture"])
            .env(NAME, isa)
            .env("RAYON_NUM_THREADS", threads)
            .output();
        let Ok(test) = test else { return };
        let text = String::from_utf8_lossy(&test.stdout).into_owned();
        assert!(text.contains(&format!("fingerprint {print:016x}")), "{isa}: {text}");
    }
}

#[test]
fn budgets_are_kept() {
    let rng = &mut Pcg64Mcg::seed_from_u64(14);
    let graph = network(rng);
    let x = images(8, rng);
    let recipe = calibrated(&graph, &x);
    let network = graph.quantize(&recipe).unwrap();
    let float = graph.run(&x).unwrap();
    let quality = |recipe: &Recipe| sqnr(&float, &graph.quantize(recipe).unwrap().run(&x).unwrap());

    let limit = network.weights_size_in_bytes() - 300;
    let small = graph.mixed_precision_within_bytes(&recipe, &x, limit).unwrap();
    assert!(graph.quantize(&small).unwrap().weights_size_in_bytes() <= limit);
    assert!(small.tensors.values().any(|t| t.precision == Precision::Int8));
    assert!(quality(&small) > 10.0, "{}", quality(&small));
    let target = quality(&recipe) + 4.0;
    let good = graph.mixed_precision_for_sqnr(&recipe, &x, target).unwrap();
    assert!(good.sqnr_db >= target && good.held_out_sqnr_db >= target && quality(&good.recipe) >= target, "{good}");
    assert_eq!(good.held_out, 2);
    assert!(good.to_string().contains(&good.raised[0]), "{good}");
    assert_eq!(graph.mixed_precision_for_sqnr(&recipe, &x, 1.0).unwrap().recipe, recipe);
    assert!(matches!(graph.mixed_precision_within_bytes(&recipe, &x, 10), Err(Error::Argument { .. })));
    let error = graph.mixed_precision_for_sqnr(&recipe, &x, 500.0).unwrap_err().to_string();
    // The error says what is reached, and that is true.
    let half = quality(&Recipe::float16(&graph));
    let said: f64 = error.split("they reach ").nth(1).and_then(|text| text.split(' ').next()).unwrap().parse().unwrap();
    assert!((said - half).abs() < 3.0, "{half}: {error}");
}

/// The tensors between functions are raised if no layer is at fault.
#[test]
fn any_tensor_is_raised() {
    let rng = &mut Pcg64Mcg::seed_from_u64(17);
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 16]).unwrap();
    let a = g.linear("a", x, &random((16, 16), rng), None).unwrap();
    let mut y = g.activation("swish", a, Activation::HardSwish).unwrap();
    // An outlier takes most of the range of a product, far from any layer.
    let mut factors = Array1::ones(16);
    factors[3] = 300.0;
    let up = g.constant("up", &factors).unwrap();
    let down = g.constant("down", &factors.mapv(|x: f32| 1.0 / x)).unwrap();
    y = g.mul("large", y, up).unwrap();
    y = g.activation("tanh", y, Activation::LeakyRelu { alpha: 0.5 }).unwrap();
    y = g.mul("small", y, down).unwrap();
    let y = g.linear("y", y, &random((4, 16), rng), None).unwrap();
    let graph = g.build(&[y]).unwrap();
    let x = random(IxDyn(&[40, 16]), rng);
    let found = graph.mixed_precision_for_sqnr(&calibrated(&graph, &x), &x, 35.0).unwrap();
    assert!(found.raised.iter().any(|name| name == "large"), "{found}");
    assert!(!found.raised.iter().any(|name| name == "x"), "{found}");
}

/// Samples whose outliers plain ranges follow.
fn with_outliers(graph: &Graph, rng: &mut Pcg64Mcg) -> ArrayD<f32> {
    let shape = graph.shape("x").unwrap().to_vec();
    let mut x = random(IxDyn(&[&[96], &shape[1..]].concat()), rng);
    x.iter_mut().step_by(997).for_each(|x| *x *= 30.0);
    x
}

#[test]
fn the_whole_trip_is_never_behind_plain_quantization() {
    let rng = &mut Pcg64Mcg::seed_from_u64(18);
    let graph = network(rng);
    let seen = with_outliers(&graph, rng);
    let batches: Vec<_> = seen.axis_chunks_iter(Axis(0), 5).collect();
    let found = FullInteger::calibrated(&batches).search(&graph).unwrap();
    assert_eq!((found.observed, found.held_out), (72, 24));
    assert!(found.steps[0].kept && found.steps[0].name == "MinMax");
    assert_eq!(found.steps[0].held_out_sqnr_db, found.plain_sqnr_db);
    assert!(found.held_out_sqnr_db > found.plain_sqnr_db + 0.1, "{found}");
    let kept = found.steps.iter().rfind(|step| step.kept).unwrap();
    assert_eq!(kept.held_out_sqnr_db, found.held_out_sqnr_db);
    assert!(found.to_string().lines().count() == found.steps.len() + 1);
    // On other samples, too.
    let x = with_outliers(&graph, rng);
    let float = graph.run(&x).unwrap();
    let quality = |network: &QuantizedNetwork| sqnr(&float, &network.run(&x).unwrap());
    let in_a_line = graph.quantize(&FullInteger::calibrated(&batches)).unwrap();
    assert!(quality(&in_a_line) > quality(&graph.quantize(&calibrated(&graph, &seen)).unwrap()) - 0.1);
    // Its float network has the tensors of the quantized one.
    let report = found.network.report(&found.float, &x).unwrap();
    assert_eq!(report.layers.len(), found.float.nodes().len());

    let none: [ArrayD<f32>; 0] = [];
    let error = graph.quantize(&FullInteger::calibrated(&none)).unwrap_err();
    assert_eq!(error, Error::Value(ValueError::EmptyCalibration));
    let one = seen.slice_axis(Axis(0), (..1).into());
    assert_eq!(FullInteger::calibrated(&[one]).search(&graph).unwrap().held_out, 1);
}

/// A rounding that fits the observed samples only is not kept.
#[test]
fn steps_that_do_not_help_are_dropped() {
    let rng = &mut Pcg64Mcg::seed_from_u64(21);
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 64]).unwrap();
    let y = g.linear("y", x, &random((8, 64), rng), None).unwrap();
    let graph = g.build(&[y]).unwrap();
    // Far fewer samples than weights, without correlations to learn.
    let x = random(IxDyn(&[6, 64]), rng);
    let found = FullInteger::calibrated(&[x.view()]).search(&graph).unwrap();
    let descent = found.steps.last().unwrap();
    assert!(descent.name == "coordinate descent" && !descent.kept, "{found}");
    assert!(found.held_out_sqnr_db >= found.plain_sqnr_db, "{found}");
}

#[test]
fn equal_channels_lose_less() {
    let rng = &mut Pcg64Mcg::seed_from_u64(15);
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 4, 6, 6]).unwrap();
    // Channels whose ranges differ by a factor of a thousand, summed with others like them.
    let uneven = |rng: &mut Pcg64Mcg| {
        let mut w = random((8, 4, 1, 1), rng);
        for (c, mut w) in w.outer_iter_mut().enumerate() {
            w *= 10f32.powi(-(c as i32 % 4));
        }
        w
    };
    let a = g.conv("a", x, &uneven(rng), Some(&Array1::zeros(8)), Window::new(), 1).unwrap();
    let b = g.conv("b", x, &uneven(rng), None, Window::new(), 1).unwrap();
    let sum = g.add("sum", a, b).unwrap();
    let mut w = random((3, 8, 3, 3), rng);
    for (c, mut w) in w.axis_iter_mut(Axis(1)).enumerate() {
        w *= 10f32.powi(c as i32 % 4);
    }
    let y = g.conv("y", sum, &w, None, Window::new().with_padding(1), 1).unwrap();
    let graph = g.build(&[y]).unwrap();
    let x = random(IxDyn(&[16, 4, 6, 6]), rng);
    let equal = graph.equalize(&graph.calibrate([x.view()]).unwrap()).unwrap();
    let float = graph.run(&x).unwrap();
    assert!(sqnr(&float, &equal.run(&x).unwrap()) > 100.0, "the same function");
    let quality = |graph: &Graph| sqnr(&float, &graph.quantize(&calibrated(graph, &x)).unwrap().run(&x).unwrap());
    assert!(quality(&equal) > quality(&graph) + 6.0, "{} {}", quality(&equal), quality(&graph));
}

/// Equalization and bias correction add constants. They keep the constants that have the names of the new ones.
#[test]
fn new_constants_get_fresh_names() {
    let rng = &mut Pcg64Mcg::seed_from_u64(16);
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 4, 1, 1]).unwrap();
    let w = g.constant("w", &random((4, 4, 1, 1), rng)).unwrap();
    let conv = op::Conv { window: Window::new(), groups: 1 };
    let a = g.node("a", conv.clone(), &[x, w]).unwrap();
    let mut y = g.node("b", conv, &[a, w]).unwrap();
    for name in ["w.a", "w.b", "a.corrected.bias", "b.corrected.bias"] {
        let constant = g.constant(name, &random((1, 4, 1, 1), rng)).unwrap();
        y = g.add(&format!("sum with {name}"), y, constant).unwrap();
    }
    let graph = g.build(&[y]).unwrap();
    let x = random(IxDyn(&[16, 4, 1, 1]), rng);
    let float = graph.run(&x).unwrap();
    let calibration = observed(&graph, &x, 16);
    let equal = graph.equalize(&calibration).unwrap();
    assert!(sqnr(&float, &equal.run(&x).unwrap()) > 100.0, "the same function");
    let recipe = Recipe::dynamic_range(&graph).unwrap();
    let network = graph.quantize_with(&recipe, Some(&calibration), CoordinateDescent::new()).unwrap();
    assert!(sqnr(&float, &network.run(&x).unwrap()) > 30.0, "bias correction");
}
