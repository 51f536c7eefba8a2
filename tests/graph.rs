//! Float networks against plain loops, and graph passes against the original networks.

use ndarray::{Array, Array1, Array4, ArrayD, IxDyn, array};
use ndarray_quant::Error;
use ndarray_quant::error::{GraphError, ShapeError, ValueError};
use ndarray_quant::{
    graph::{Activation, Arena, Calibrator, Clamp, Graph, GraphBuilder, Op, Recipe, TensorId, op},
    nn::{Padding, Window},
    ptq::CoordinateDescent,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

fn random<D: ndarray::Dimension>(shape: impl ndarray::ShapeBuilder<Dim = D>, rng: &mut Pcg64Mcg) -> Array<f32, D> {
    Array::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0))
}

/// Computes `Conv` element by element.
fn plain_conv(x: &Array4<f32>, w: &Array4<f32>, bias: &Array1<f32>, window: Window, groups: usize) -> Array4<f32> {
    let ((n, channels, ..), (out, depth, kh, kw)) = (x.dim(), w.dim());
    let [rows, columns] = window.output_size([kh, kw], [x.dim().2, x.dim().3]).unwrap();
    assert_eq!(channels, depth * groups);
    Array4::from_shape_fn((n, out, rows, columns), |(n, o, oy, ox)| {
        let mut sum = bias[o] as f64;
        for (c, ky, kx) in ndarray::indices((depth, kh, kw)) {
            let at = [n, o / (out / groups) * depth + c, source(&window, 0, oy, ky), source(&window, 1, ox, kx)];
            sum += x.get(at).map_or(0.0, |&x| x as f64 * w[[o, c, ky, kx]] as f64);
        }
        sum as f32
    })
}

/// Returns the pixel under an element of the kernel. Padding before the image wraps to an index beyond any image.
fn source(window: &Window, axis: usize, output: usize, tap: usize) -> usize {
    let Padding::Explicit(pads) = window.padding else { panic!("{window:?}") };
    (output * window.strides[axis] + tap * window.dilations[axis]).wrapping_sub(pads[axis])
}

/// Computes `MaxPool` or `AveragePool` element by element.
fn plain_pool(x: &Array4<f32>, kernel: [usize; 2], window: Window, mean: Option<bool>) -> Array4<f32> {
    let (n, channels, h, w) = x.dim();
    let Padding::Explicit(pads) = window.padding else { panic!("{window:?}") };
    let [rows, columns] = window.output_size(kernel, [h, w]).unwrap();
    Array4::from_shape_fn((n, channels, rows, columns), |(n, c, oy, ox)| {
        let (mut sum, mut greatest, mut inside, mut padded) = (0.0, f32::NEG_INFINITY, 0, 0);
        for (ky, kx) in ndarray::indices((kernel[0], kernel[1])) {
            if let Some(&x) = x.get([n, c, source(&window, 0, oy, ky), source(&window, 1, ox, kx)]) {
                (sum, greatest, inside) = (sum + x, greatest.max(x), inside + 1);
            }
            let ends = [h + pads[0] + pads[2], w + pads[1] + pads[3]];
            let within =
                |axis: usize, o: usize, k: usize| o * window.strides[axis] + k * window.dilations[axis] < ends[axis];
            padded += (within(0, oy, ky) && within(1, ox, kx)) as usize;
        }
        mean.map_or(greatest, |count_include_pad| sum / if count_include_pad { padded } else { inside } as f32)
    })
}

fn close(a: &ArrayD<f32>, b: &ArrayD<f32>) -> bool {
    a.shape() == b.shape() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn convolutions(
        seed in any::<u64>(), n in 1..3usize, size in (1..9usize, 1..9usize), kernel in (1..4usize, 1..4usize),
        strides in (1..3usize, 1..3usize), pads in prop::array::uniform4(0..3usize), dilation in 1..3usize,
        (groups, each_in, each_out) in (1..4usize, 1..4usize, 1..4usize), depthwise in any::<bool>(), ceil in any::<bool>(),
    ) {
        let (groups, each_in, each_out) = if depthwise { (33, 1, 1) } else { (groups, each_in, each_out) };
        let window = Window::new().with_strides([strides.0, strides.1]).with_dilations([dilation, dilation]);
        let window = window.with_padding(Padding::Explicit(pads)).with_ceil_mode(ceil);
        let rng = &mut Pcg64Mcg::seed_from_u64(seed);
        let x = random((n, groups * each_in, size.0, size.1), rng);
        let w = random((groups * each_out, each_in, kernel.0, kernel.1), rng);
        let bias = random(groups * each_out, rng);
        let mut g = GraphBuilder::new();
        let input = g.input("x", &[1, groups * each_in, size.0, size.1]).unwrap();
        let dilated = |k: usize| dilation * (k - 1) + 1;
        let fits = size.0 + pads[0] + pads[2] >= dilated(kernel.0) && size.1 + pads[1] + pads[3] >= dilated(kernel.1);
        let y = g.conv("y", input, &w, Some(&bias), window, groups);
        prop_assert_eq!(y.is_ok(), fits, "{:?}", y);
        if let Ok(y) = y {
            let found = g.build(&[y]).unwrap().run(&x).unwrap();
            prop_assert!(close(&found, &plain_conv(&x, &w, &bias, window, groups).into_dyn()));
        }
    }

    #[test]
    fn poolings(
        seed in any::<u64>(), n in 1..3usize, channels in 1..4usize, size in (1..9usize, 1..9usize),
        kernel in [1..4usize, 1..4usize], strides in [1..4usize, 1..4usize], dilations in [1..3usize, 1..3usize],
        pads in prop::array::uniform4(0..3usize), ceil in any::<bool>(), count_include_pad in any::<bool>(),
    ) {
        let window = Window::new().with_strides(strides).with_dilations(dilations).with_padding(Padding::Explicit(pads)).with_ceil_mode(ceil);
        let x = random((n, channels, size.0, size.1), &mut Pcg64Mcg::seed_from_u64(seed));
        let mut g = GraphBuilder::new();
        let input = g.input("x", &[1, channels, size.0, size.1]).unwrap();
        let max = g.max_pool("max", input, kernel, window);
        let mean = g.average_pool("mean", input, kernel, window, count_include_pad);
        let fits = window.output_size(kernel, [size.0, size.1]).is_ok();
        let expected = fits.then(|| plain_pool(&x, kernel, window, None));
        // A window of padding only is an error.
        let sound = expected.as_ref().is_some_and(|y| y.iter().all(|y| y.is_finite()));
        prop_assert_eq!((max.is_ok(), mean.is_ok()), (sound, sound));
        if let (Ok(max), Ok(mean), Some(expected)) = (max, mean, expected) {
            let network = g.build(&[max, mean]).unwrap().compile().unwrap();
            let found = network.run_many(&[x.view().into_dyn()], &mut Arena::new()).unwrap();
            prop_assert_eq!(&found[0], &expected.into_dyn());
            prop_assert!(close(&found[1], &plain_pool(&x, kernel, window, Some(count_include_pad)).into_dyn()));
        }
    }
}

/// Builds a network with every operator.
fn every_operator(rng: &mut Pcg64Mcg) -> Graph {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 3, 8, 6]).unwrap();
    let conv = |g: &mut GraphBuilder, name: &str, x: TensorId, out: usize, channels: usize, rng: &mut Pcg64Mcg| {
        let w = random((out, channels, 3, 3), rng);
        g.conv(name, x, &w, None, Window::new().with_padding(1), 1).unwrap()
    };
    let a = conv(&mut g, "a", x, 8, 3, rng);
    let [scale, shift, mean, variance] = [0.5, -0.5, -0.2, 0.5].map(|low| random(8, rng) * 0.3 + low + 0.5);
    let a = g.batch_norm("norm", a, &scale, &shift, &mean, &variance, 1e-3).unwrap();
    let a = g.relu6("relu6", a).unwrap();
    let b = conv(&mut g, "b", a, 8, 8, rng);
    let b = g.batch_norm("norm_b", b, &scale, &shift, &mean, &variance, 1e-3).unwrap();
    let sum = g.add("sum", b, a).unwrap();
    let sum = g.relu("relu", sum).unwrap();
    let gate = g.activation("gate", sum, Activation::Sigmoid).unwrap();
    let silu = g.mul("silu", gate, sum).unwrap();
    let mean = g.global_average_pool("mean_of", silu).unwrap();
    let hard = g.activation("hard", mean, Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }).unwrap();
    let excited = g.mul("excited", silu, hard).unwrap();
    let half =
        g.constant("half", &array![[[[0.5f32]], [[1.0]], [[2.0]], [[1.0]], [[1.0]], [[1.0]], [[1.0]], [[-1.0]]]]);
    let scaled = g.mul("scaled", half.unwrap(), excited).unwrap();
    let pooled = g.max_pool("pooled", scaled, [2, 2], Window::new().with_strides([2, 2])).unwrap();
    let averaged = g.average_pool("averaged", pooled, [3, 3], Window::new().with_padding(1), false).unwrap();
    let padded = g.pad("padded", averaged, [1, 0, 0, 2]).unwrap();
    let resized = g.resize("resized", padded, [2, 1]).unwrap();
    let tanh = g.activation("tanh", resized, Activation::Tanh).unwrap();
    let both = g.concat("both", &[resized, tanh], 1).unwrap();
    let swish = g.activation("swish", both, Activation::HardSwish).unwrap();
    let features = g.flatten("features", swish).unwrap();
    let depth = g.shape(features).unwrap()[1];
    let scores = g.linear("scores", features, &random((5, depth), rng), Some(&random(5, rng))).unwrap();
    let y = g.softmax("y", scores, 1).unwrap();
    g.build(&[y]).unwrap()
}

#[test]
fn simpler_networks_compute_the_same() {
    let rng = &mut Pcg64Mcg::seed_from_u64(1);
    let graph = every_operator(rng);
    let simple = graph.clone().simplify().unwrap();
    assert!(simple.nodes().len() + 5 <= graph.nodes().len());
    assert!(!simple.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm(_))));
    // Fused layers are named by their output.
    assert_eq!((simple.node("a"), simple.node("relu6").unwrap().clamp), (None, Clamp::RELU6));
    let x = random(IxDyn(&[7, 3, 8, 6]), rng);
    let (before, after) = (graph.run(&x).unwrap(), simple.run(&x).unwrap());
    assert!(close(&before, &after), "{before} {after}");
}

#[test]
fn images_do_not_depend_on_their_batch_or_on_the_arena() {
    let rng = &mut Pcg64Mcg::seed_from_u64(2);
    let network = every_operator(rng).simplify().unwrap().compile().unwrap();
    let x = random(IxDyn(&[300, 3, 8, 6]), rng);
    let mut arena = Arena::new();
    let all = network.run_with(&x, &mut arena).unwrap();
    for i in [0, 1, 150, 299] {
        let image = x.slice_axis(ndarray::Axis(0), (i..i + 1).into());
        let alone = network.run_with(&image, &mut arena).unwrap();
        assert!(close(&alone, &all.slice_axis(ndarray::Axis(0), (i..i + 1).into()).to_owned()));
    }
    let mut strided = x.clone();
    strided.swap_axes(0, 1);
    strided = strided.as_standard_layout().into_owned();
    strided.swap_axes(0, 1);
    assert_eq!(network.run(&strided).unwrap(), all);
    assert_eq!(network.run(&ArrayD::zeros(IxDyn(&[0, 3, 8, 6]))).unwrap().shape(), [0, 5]);
}

#[test]
fn reshapes_keep_the_logical_order() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2, 3, 4]).unwrap();
    let flat = g.flatten("flat", x).unwrap();
    let back = g.reshape("back", flat, &[4, 3, 2]).unwrap();
    let network = g.build(&[flat, back]).unwrap().compile().unwrap();
    let x = Array::from_shape_fn((2, 2, 3, 4), |(n, c, h, w)| (n * 24 + c * 12 + h * 4 + w) as f32).into_dyn();
    let y = network.run_many(&[x.view()], &mut Arena::new()).unwrap();
    let in_order = |shape: &[usize]| Array::from_iter((0..48).map(|x| x as f32)).into_shape_with_order(shape).unwrap();
    assert_eq!(y[0], in_order(&[2, 24]));
    assert_eq!(y[1], in_order(&[2, 4, 3, 2]));
}

#[test]
fn operators_on_constants_check_their_attributes() {
    let mut g = GraphBuilder::new();
    let c = g.constant("c", &array![[1.0, 2.0], [3.0, 4.0]]).unwrap();
    let sum = |axes: &[usize]| op::Reduce { reduction: op::Reduction::Sum, axes: axes.to_vec() };
    for axes in [&[2][..], &[7], &[0, usize::MAX]] {
        assert!(matches!(g.node("y", sum(axes), &[c]), Err(Error::Graph(_))), "{axes:?}");
    }
    g.node("y", sum(&[0, 1]), &[c]).unwrap();
}

#[test]
fn constant_subgraphs_are_folded() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2]).unwrap();
    let a = g.constant("a", &array![1.0f32, 2.0]).unwrap();
    let b = g.add("b", a, a).unwrap();
    let b = g.relu("c", b).unwrap();
    let y = g.mul("y", x, b).unwrap();
    let graph = g.build(&[y]).unwrap().simplify().unwrap();
    assert_eq!(graph.nodes().len(), 1);
    assert_eq!(graph.constants().count(), 1);
    assert_eq!(graph.run(&array![[1.0f32, 10.0]]).unwrap(), array![[2.0f32, 40.0]].into_dyn());
}

#[test]
fn unsound_networks_are_errors() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 4, 8, 8]).unwrap();
    assert!(matches!(g.input("x", &[1, 4]), Err(Error::Graph(GraphError::Name { .. }))));
    assert!(matches!(g.input("two", &[2, 4]), Err(Error::Graph(GraphError::Node { node, error }))
        if node == "two" && matches!(*error, Error::Shape(ShapeError::Layout { .. }))));
    assert!(matches!(g.constant("nan", &array![f32::NAN]), Err(Error::Value(ValueError::NonFinite { .. }))));
    let node_error =
        |e: &Result<TensorId, Error>| matches!(e, Err(Error::Graph(GraphError::Node { node, .. })) if node == "n");
    let weights = Array4::zeros((6, 2, 3, 3));
    for groups in [0, 1, 3, 4] {
        let error = g.conv("n", x, &weights, None, Window::new(), groups);
        assert!(node_error(&error), "{error:?}");
    }
    assert!(node_error(&g.node("n", op::Binary::Add, &[x])));
    assert!(node_error(&g.node("n", op::Concat { axis: 4 }, &[x, x])));
    assert!(node_error(&g.node("n", op::Softmax { axis: 4 }, &[x])));
    assert!(node_error(&g.node("n", op::Reshape { shape: vec![5] }, &[x])));
    assert!(node_error(&g.node("n", op::Resize { scales: [usize::MAX, 3] }, &[x])));
    assert!(node_error(&g.pad("n", x, [usize::MAX; 4])));
    let window = Window::new().with_strides([0, 1]);
    assert!(node_error(&g.node("n", op::MaxPool { kernel: [2, 2], window }, &[x])));
    let graph = g.build(&[x]).unwrap();
    assert!(matches!(graph.run(&ArrayD::zeros(IxDyn(&[1, 4, 8, 7]))), Err(Error::Shape(ShapeError::Mismatch { .. }))));
    assert!(matches!(graph.run(&ArrayD::zeros(IxDyn(&[]))), Err(Error::Shape(ShapeError::Mismatch { .. }))));
}

/// A second pass finds the factors that the first one gave the normalization, which has no clamp.
#[test]
fn clamps_stay_behind_normalizations() {
    let mut g = GraphBuilder::new();
    let mut x = g.input("x", &[1, 4]).unwrap();
    x = g.node("norm", op::LayerNorm { epsilon: 1e-5 }, &[x]).unwrap();
    for (name, function) in [("scale", op::Binary::Mul), ("bias", op::Binary::Add), ("factor", op::Binary::Mul)] {
        let c = g.constant(&format!("{name}.c"), &array![1.0, 2.0, 0.5, 3.0]).unwrap();
        x = g.node(name, function, &[x, c]).unwrap();
    }
    let y = g.relu("relu", x).unwrap();
    let graph = g.build(&[y]).unwrap();
    let simpler = graph.clone().simplify().unwrap();
    let x = array![[1.0f32, -2.0, 3.0, 0.5]];
    for again in [simpler.clone(), simpler.simplify().unwrap()] {
        assert!(close(&graph.run(&x).unwrap(), &again.run(&x).unwrap()));
    }
}

#[test]
fn folded_weights_get_fresh_names() {
    let ones = Array1::<f32>::ones(1);
    let pointwise = |w: f32| Array4::from_elem((1, 1, 1, 1), w);
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 1, 1, 1]).unwrap();
    let other = g.input("a.folded.bias", &[1, 1, 1, 1]).unwrap();
    let a = g.conv("a", x, &pointwise(0.5), None, Window::new(), 1).unwrap();
    let norm = g.batch_norm("norm", a, &(&ones * 2.0), &ones, &(&ones * 0.0), &ones, 0.0).unwrap();
    let b = g.conv("a.folded", x, &pointwise(100.0), None, Window::new(), 1).unwrap();
    let sum = g.add("sum", b, other).unwrap();
    let graph = g.build(&[norm, sum]).unwrap();
    let simple = graph.clone().simplify().unwrap();
    assert_eq!(simple.nodes().len(), 3);
    let x = ArrayD::from_elem(IxDyn(&[1, 1, 1, 1]), 2.0f32);
    let run = |graph: &Graph| {
        let outputs = graph.compile().unwrap().run_many(&[x.view(), x.view()], &mut Arena::new()).unwrap();
        outputs.iter().map(|y| y.sum()).collect::<Vec<f32>>()
    };
    assert_eq!(run(&graph), [3.0, 202.0]);
    assert_eq!(run(&simple), [3.0, 202.0]);
    // The names of folded constants are taken when a simplified graph is simplified again.
    assert_eq!(simple.clone().simplify().unwrap(), simple);
}

#[test]
fn normalization_that_is_not_finite_stays() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 1]).unwrap();
    let ones = Array1::ones(1);
    let y = g.linear("y", x, &array![[1.0]], None).unwrap();
    let y = g.batch_norm("norm", y, &ones, &ones, &ones, &(&ones * -1.0), 0.0).unwrap();
    let graph = g.build(&[y]).unwrap().simplify().unwrap();
    assert_eq!(graph.nodes().len(), 2);
    assert!(graph.constants().all(|(_, value)| value.iter().all(|x| x.is_finite())));
}

#[test]
fn handles_belong_to_their_builder() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2]).unwrap();
    let mut other = GraphBuilder::new();
    let foreign = other.input("x", &[1, 2]).unwrap();
    let is_foreign = |error: Error| assert!(error.to_string().contains("another graph builder"), "{error}");
    is_foreign(g.relu("y", foreign).unwrap_err());
    is_foreign(g.add("y", x, foreign).unwrap_err());
    is_foreign(g.linear("y", foreign, &array![[1.0, 2.0]], None).unwrap_err());
    is_foreign(g.flatten("y", foreign).unwrap_err());
    is_foreign(g.shape(foreign).unwrap_err());
    is_foreign(g.name(foreign).unwrap_err());
    is_foreign(g.clone().build(&[x, foreign]).unwrap_err());

    // A clone knows the handles made before it, and neither knows what the other adds.
    let mut clone = g.clone();
    let here = g.relu("here", x).unwrap();
    let there = clone.relu6("there", x).unwrap();
    assert_ne!(here, there);
    is_foreign(g.relu("y", there).unwrap_err());
    is_foreign(clone.relu("y", here).unwrap_err());
    assert_eq!((g.name(here).unwrap(), clone.name(there).unwrap()), ("here", "there"));

    // A layer that fails leaves nothing behind.
    assert!(g.linear("y", here, &array![[1.0, 2.0, 3.0]], None).is_err());
    assert!(g.linear("y", here, &array![[1.0, f32::NAN]], None).is_err());
    let y = g.linear("y", here, &array![[1.0, 2.0]], None).unwrap();
    let graph = g.build(&[y]).unwrap();
    assert_eq!(graph.constants().count(), 1);
}

#[test]
fn errors_are_in_the_words_of_the_call() {
    let mut g = GraphBuilder::new();
    let says = |error: Error, parts: &[&str]| {
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(!text.contains("Window {"), "{text}");
    };
    says(g.input("x", &[4, 3]).unwrap_err(), &["input", "\"x\"", "[4, 3]", "batch", "1 as the first axis"]);
    let x = g.input("x", &[1, 3, 8, 8]).unwrap();
    let weights = Array4::zeros((4, 3, 3, 3));
    let nhwc = g.input("nhwc", &[1, 8, 8, 3]).unwrap();
    says(
        g.conv("conv", nhwc, &weights, None, Window::new(), 1).unwrap_err(),
        &["\"conv\"", "weights", "[4, 8, 3, 3]", "[4, 3, 3, 3]"],
    );
    says(g.linear("fc", x, &array![[1.0, 2.0]], None).unwrap_err(), &["\"fc\"", "[batch, in]", "[1, 3, 8, 8]"]);
    says(g.node("sum", op::Binary::Add, &[x]).unwrap_err(), &["\"sum\"", "inputs: expected 2, found 1"]);
    says(g.softmax("softmax", x, 7).unwrap_err(), &["found axis 7", "4-D"]);
    says(g.add("sum", x, nhwc).unwrap_err(), &["broadcast", "[1, 3, 8, 8]", "[1, 8, 8, 3]"]);
    let nan = g.linear("fc", x, &array![[1.0, f32::NAN]], None).unwrap_err();
    says(nan, &["\"fc.weight\"", "NaN", "[0, 1]"]);
    let pool = g.max_pool("pool", x, [1, 1], Window::new().with_padding(2)).unwrap_err();
    says(pool, &["window", "padding only"]);
    let graph = g.build(&[x, nhwc]).unwrap();
    says(graph.run(&ArrayD::zeros(IxDyn(&[1, 3, 8, 8]))).unwrap_err(), &["inputs: expected 2, found 1", "run_many"]);
    let x = ArrayD::zeros(IxDyn(&[1, 3, 8, 8]));
    let both = [x.view(), x.view().permuted_axes(IxDyn(&[0, 2, 3, 1]))];
    assert!(graph.compile().unwrap().run_many(&both, &mut Arena::new()).is_ok());
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2]).unwrap();
    let two = g.build(&[x, x]).unwrap();
    says(two.run(&array![[1.0f32, 2.0]]).unwrap_err(), &["outputs: expected 1, found 2", "run_many"]);
}

/// Builds a chain of linear layers with residual sums.
fn chain(layers: usize) -> Graph {
    let mut g = GraphBuilder::new();
    let mut x = g.input("x", &[1, 1]).unwrap();
    let w = array![[0.0f32]];
    for i in 0..layers {
        let y = g.linear(&format!("fc{i}"), x, &w, None).unwrap();
        x = g.add(&format!("sum{i}"), x, y).unwrap();
    }
    let y = g.linear("y", x, &w, None).unwrap();
    g.build(&[y]).unwrap()
}

/// Takes seconds; passes that are quadratic in the number of layers take minutes.
#[test]
fn passes_of_many_layers() {
    let graph = chain(15_000);
    for node in graph.nodes() {
        assert!(graph.node(&node.output).is_some());
    }
    let x = array![[1.0f32]];
    let mut calibrator = Calibrator::new(&graph).unwrap().with_second_moments();
    calibrator.observe(&x).unwrap();
    let calibration = calibrator.finish();
    let equalized = graph.equalize(&calibration).unwrap();
    assert_eq!(equalized.nodes().len(), graph.nodes().len());

    let mut recipe = Recipe::dynamic_range(&graph).unwrap();
    let network = graph.quantize_with(&recipe, Some(&calibration), CoordinateDescent::new()).unwrap();
    assert_eq!(network.run(&x).unwrap().dim(), IxDyn(&[1, 1]));
    recipe.float_layers = graph.nodes().iter().map(|node| node.output.clone()).collect();
    graph.quantize(&recipe).unwrap();
    assert_eq!(graph.simplify().unwrap().nodes().len(), 30_001);
}
