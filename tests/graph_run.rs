//! Runs of networks on unusual data: NaN, many inputs, constant outputs, tensors that are too large.

use ndarray::{Array, ArrayD, Axis, IxDyn, arr0, array};
use ndarray_quant::Error;
use ndarray_quant::error::{GraphError, ValueError};
use ndarray_quant::graph::{
    Activation, Arena, CalibrationMethod, Graph, GraphBuilder, Op, Precision, QuantizedNetwork, Recipe, TensorId,
    TensorRecipe, op,
};
use ndarray_quant::nn::Window;

/// A recipe that keeps every activation as codes of `-1..=1`.
fn full_integer(graph: &Graph) -> Recipe {
    let mut recipe = Recipe::dynamic_range(graph).unwrap();
    let activations = graph.inputs().chain(graph.nodes().iter().map(|node| node.output.as_str()));
    for name in activations {
        recipe.tensors.insert(name.into(), TensorRecipe::activation(-1.0, 1.0));
    }
    recipe
}

/// A convolution of images `[2, 3, 4]`.
fn conv() -> Graph {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2, 3, 4]).unwrap();
    let weights = Array::from_shape_fn((5, 2, 1, 1), |(o, i, ..)| (o as f32 - i as f32) / 4.0);
    let y = g.conv("y", x, &weights, None, Window::new(), 1).unwrap();
    g.build(&[y]).unwrap()
}

/// The index in the error of a NaN, and the name of the input or node around it.
fn nan_at(error: Error) -> (String, Vec<usize>) {
    match error {
        Error::Graph(GraphError::Node { node, error }) => match *error {
            Error::Value(ValueError::NonFinite { found, index, .. }) if found.is_nan() => (node, index),
            error => panic!("{error:?}"),
        },
        error => panic!("{error:?}"),
    }
}

#[test]
fn nan_is_an_error_with_its_index_in_the_input() {
    let graph = conv();
    let mut read_as_floats = full_integer(&graph);
    read_as_floats.tensor_mut("x").unwrap().precision = Precision::Float32;
    // Static parameters, each image by its own range.
    let networks = [full_integer(&graph), read_as_floats].map(|recipe| graph.quantize(&recipe).unwrap());
    let expected = ["x", "y"];
    // More images than run together.
    let images = 600;
    for (network, name) in networks.iter().zip(expected) {
        for index in [[0, 0, 0, 0], [7, 1, 2, 3], [257, 1, 0, 2], [599, 0, 2, 1]] {
            let mut x = Array::from_elem((images, 2, 3, 4), 0.25f32);
            x[index] = f32::NAN;
            // A later NaN is not the one that is reported.
            x[[599, 1, 2, 3]] = f32::NAN;
            let expected = (String::from(name), index.to_vec());
            assert_eq!(nan_at(network.run(&x).unwrap_err()), expected);
            // Without gaps in the order of buffers, and with gaps.
            let nhwc =
                x.view().permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned().permuted_axes([0, 3, 1, 2]);
            assert_eq!(nan_at(network.run(&nhwc).unwrap_err()), expected);
            let mut wide = Array::from_elem((images, 2, 3, 8), f32::NAN);
            let mut strided = wide.slice_mut(ndarray::s![.., .., .., ..;2]);
            strided.assign(&x);
            assert_eq!(nan_at(network.run(&strided).unwrap_err()), expected);
        }
    }
}

#[test]
fn nan_is_found_behind_the_first_block() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 100_000]).unwrap();
    let y = g.relu("y", x).unwrap();
    let graph = g.build(&[y]).unwrap();
    let network = graph.quantize(&full_integer(&graph)).unwrap();
    for at in [32_767, 32_768, 99_999] {
        let mut x = Array::zeros((2, 100_000));
        x[[1, at]] = f32::NAN;
        assert_eq!(nan_at(network.run(&x).unwrap_err()), ("x".into(), vec![1, at]));
    }
}

#[test]
fn nan_in_the_middle_of_a_network_is_an_error() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2]).unwrap();
    let sum = g.add("sum", x, x).unwrap();
    let y = g.relu("y", sum).unwrap();
    let graph = g.build(&[y]).unwrap();
    let mut recipe = full_integer(&graph);
    recipe.tensor_mut("x").unwrap().precision = Precision::Float32;
    let network = graph.quantize(&recipe).unwrap();
    let x = array![[0.0f32, 0.5], [f32::NAN, 0.0]];
    assert_eq!(nan_at(network.run(&x).unwrap_err()), ("sum".into(), vec![1, 0]));
    let y = network.with_nan_as_zero(true).run(&x).unwrap();
    assert_eq!(y[[1, 0]], 0.0);
}

#[test]
fn nan_becomes_the_code_of_zero_by_choice() {
    let graph = conv();
    let network = || graph.quantize(&full_integer(&graph)).unwrap();
    let mut x = Array::from_shape_fn((3, 2, 3, 4), |(n, c, h, w)| ((n + c * h) as f32 - w as f32) / 8.0);
    x[[1, 0, 2, 1]] = 0.0;
    let expected = network().run(&x).unwrap();
    x[[1, 0, 2, 1]] = f32::NAN;
    let lenient: QuantizedNetwork = network().with_nan_as_zero(true);
    assert_eq!(lenient.run(&x).unwrap(), expected);
    assert!(lenient.with_nan_as_zero(false).run(&x).is_err());
    // Infinities saturate either way.
    let mut saturated = x.mapv(|x| if x.is_nan() { 2.0 } else { x });
    let expected = network().run(&saturated).unwrap();
    saturated[[1, 0, 2, 1]] = f32::INFINITY;
    assert_eq!(network().run(&saturated).unwrap(), expected);
    // Float networks propagate NaN.
    assert!(graph.run(&x).unwrap().iter().any(|y| y.is_nan()));
}

/// Takes seconds; runs that are quadratic in the number of inputs take hours.
#[test]
fn runs_of_many_inputs() {
    const INPUTS: usize = 50_000;
    let mut g = GraphBuilder::new();
    let x: Vec<TensorId> = (0..INPUTS).map(|i| g.input(&format!("x{i}"), &[1, 1]).unwrap()).collect();
    let y = g.concat("y", &x, 1).unwrap();
    let graph = g.build(&[y]).unwrap();
    let x = array![[0.5f32]].into_dyn();
    let x = vec![x.view(); INPUTS];
    let mut arena = Arena::new();
    let float = graph.compile().unwrap().run_many(&x, &mut arena).unwrap();
    let quantized = graph.quantize(&full_integer(&graph)).unwrap().run_many(&x, &mut arena).unwrap();
    for y in [&float[0], &quantized[0]] {
        assert_eq!(y.dim(), IxDyn(&[1, INPUTS]));
    }
}

#[test]
fn constant_outputs_are_whole() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 2]).unwrap();
    let y = g.linear("y", x, &array![[1.0, -0.5], [0.25, 1.0]], None).unwrap();
    let scalar = g.constant("scalar", &arr0(2.5)).unwrap();
    let empty = g.constant("empty", &ndarray::Array2::zeros((0, 3))).unwrap();
    let empty_row = g.constant("empty_row", &ndarray::Array2::zeros((1, 0))).unwrap();
    let vector = g.constant("vector", &array![1.0, 2.0, 3.0]).unwrap();
    let image =
        g.constant("image", &Array::from_shape_fn((2, 3, 2, 2), |(n, c, h, w)| (n * 12 + c * 4 + h * 2 + w) as f32));
    let row = g.constant("row", &array![[1.0, 0.5]]).unwrap();
    let both = g.concat("both", &[y, row], 1).unwrap();
    let w = g.constant("w", &array![[1.0, -0.5], [0.25, 1.0]]).unwrap();
    let y = g.node("z", op::Linear, &[y, w]).unwrap();
    let outputs = [y, both, scalar, empty, empty_row, vector, image.unwrap(), row, w];
    let graph = g.build(&outputs).unwrap();
    let names = graph.outputs();
    let x = Array::from_shape_fn((5, 2), |(n, i)| (n as f32 - i as f32) / 5.0).into_dyn();
    let calibrated = graph.calibrate([x.view()]).unwrap().recipe(&graph, CalibrationMethod::MinMax).unwrap();
    let recipes = [full_integer(&graph), calibrated, Recipe::dynamic_range(&graph).unwrap(), Recipe::float16(&graph)];
    let check = |outputs: Vec<ArrayD<f32>>| {
        assert_eq!(outputs.len(), names.len());
        assert_eq!((outputs[0].shape(), outputs[1].shape()), (&[5, 2][..], &[5, 4][..]));
        assert_eq!(outputs[1].index_axis(Axis(0), 4).len(), 4);
        for (name, output) in names.iter().zip(&outputs).skip(2).take(6) {
            assert_eq!(output, &graph.constant(name).unwrap().to_owned(), "{name}");
        }
        assert_eq!(outputs[8].shape(), [2, 2]);
    };
    check(graph.compile().unwrap().run_many(&[x.view()], &mut Arena::new()).unwrap());
    for recipe in recipes {
        if let Ok(network) = graph.quantize(&recipe) {
            check(network.run_many(&[x.view()], &mut Arena::new()).unwrap());
            network.report(&graph, &x).unwrap();
        }
    }
}

#[test]
fn runs_are_limited_in_memory() {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 1, 1, 1]).unwrap();
    let y = g.pad("y", x, [0, 0, (1 << 14) - 1, (1 << 14) - 1]).unwrap();
    let graph = g.build(&[y]).unwrap();
    let x = Array::zeros((1, 1, 1, 1));
    let is_limit = |error: Error| {
        let text = error.to_string();
        let Error::Graph(GraphError::Memory { limit, found, .. }) = error else { panic!("{error:?}") };
        assert!(found > limit, "{found} {limit}");
        assert!(text.contains("with_max_bytes"), "{text}");
    };
    is_limit(graph.run(&x).unwrap_err());
    is_limit(graph.quantize(&full_integer(&graph)).unwrap().run(&x).unwrap_err());

    // The limit is the caller's.
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 4]).unwrap();
    let y = g.relu("y", x).unwrap();
    let network = g.build(&[y]).unwrap().compile().unwrap();
    let x = Array::zeros((10, 4));
    let bytes = 4 * (4 + 4 + 4) * 10; // input, output, and the caller's output
    assert!(network.run_with(&x, &mut Arena::new().with_max_bytes(bytes)).is_ok());
    is_limit(network.run_with(&x, &mut Arena::new().with_max_bytes(bytes - 1)).unwrap_err());

    // A batch of empty images, longer than any output could be.
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 0]).unwrap();
    let y = g.linear("y", x, &ndarray::Array2::zeros((3, 0)), None).unwrap();
    let network = g.build(&[x, y]).unwrap().compile().unwrap();
    let x = Array::zeros((1 << 60, 0));
    is_limit(network.run_many(&[x.view().into_dyn()], &mut Arena::new()).unwrap_err());
}

/// Runs a network in floats and quantized in every way, on batches of 0, 1 and 3. Errors are sound, panics are not.
fn run_every_way(graph: &Graph) {
    let recipes = [full_integer(graph), Recipe::dynamic_range(graph).unwrap(), Recipe::float16(graph)];
    let float = graph.compile().unwrap();
    let quantized: Vec<QuantizedNetwork> = recipes.iter().filter_map(|recipe| graph.quantize(recipe).ok()).collect();
    for images in [0, 1, 3] {
        let mut shape = graph.shape(graph.inputs().next().unwrap()).unwrap().to_vec();
        shape[0] = images;
        let x = Array::from_elem(IxDyn(&shape), 0.5f32);
        let expected = graph.shape(&graph.outputs()[0]).unwrap();
        let check = |y: ArrayD<f32>| assert_eq!((y.len_of(Axis(0)), &y.shape()[1..]), (images, &expected[1..]));
        let _ = float.run(&x).map(check);
        for network in &quantized {
            let _ = network.run(&x).map(check);
            let _ = network.run_codes(&x.mapv(|_| 7u8), &mut Arena::new());
            let _ = network.report(graph, &x);
        }
        let _ = graph.clone().simplify().map(|graph| graph.run(&x));
    }
}

#[test]
fn empty_tensors_do_not_panic() {
    let window = Window::new();
    let ops = [
        Activation::relu().into(),
        Activation::Sigmoid.into(),
        op::MaxPool { kernel: [1, 1], window }.into(),
        op::MaxPool { kernel: [0, 0], window }.into(),
        op::AveragePool { kernel: [1, 1], window, count_include_pad: true }.into(),
        op::AveragePool { kernel: [0, 1], window, count_include_pad: false }.into(),
        op::GlobalAveragePool.into(),
        op::Pad { pads: [0, 0, 0, 0] }.into(),
        op::Pad { pads: [1, 0, 2, 3] }.into(),
        op::Resize { scales: [0, 2] }.into(),
        op::Resize { scales: [2, 2] }.into(),
        op::Transpose { perm: vec![0, 3, 1, 2] }.into(),
        op::Slice { axis: 2, start: 0, count: 0, step: 1 }.into(),
        op::Gather { axis: 3, indices: vec![] }.into(),
        op::Expand { shape: vec![1, 2, 3, 2] }.into(),
        op::DepthToSpace { block: [1, 2], groups: 1 }.into(),
        op::SpaceToDepth { block: [1, 2] }.into(),
        op::Reduce { reduction: op::Reduction::Max, axes: vec![1, 3] }.into(),
        op::LayerNorm { epsilon: 1e-5 }.into(),
        op::Softmax { axis: 1 }.into(),
        op::Softmax { axis: 3 }.into(),
        op::Concat { axis: 1 }.into(),
        op::Concat { axis: 2 }.into(),
        op::Reshape { shape: vec![1, 0] }.into(),
        op::Reshape { shape: vec![1, 0, 4] }.into(),
        op::Reshape { shape: vec![1, 2, 0, 3] }.into(),
    ];
    for shape in [[1, 0, 3, 2], [1, 2, 0, 3], [1, 2, 3, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 2, 1, 3]] {
        let mut g = GraphBuilder::new();
        let x = g.input("x", &shape).unwrap();
        for (i, op) in ops.iter().enumerate() {
            let two = matches!(op, Op::Concat(_));
            let inputs = if two { vec![x, x] } else { vec![x] };
            if let Ok(y) = g.node(&format!("y{i}"), op.clone(), &inputs) {
                run_every_way(&g.clone().build(&[y]).unwrap());
            }
        }
        for name in ["sum", "product"] {
            let add = name == "sum";
            for constant in [vec![1], vec![1, 1, 1], vec![shape[1], 1, 1], vec![shape[3]], vec![]] {
                let mut g = g.clone();
                let Ok(c) = g.constant("c", &ArrayD::from_elem(constant, 0.25f32)) else { continue };
                let y = if add { g.add(name, x, c) } else { g.mul(name, c, x) };
                let _ = y.map(|y| run_every_way(&g.build(&[y]).unwrap()));
            }
        }
        for (out, kernel) in [(0, 1), (2, 1), (2, 0), (0, 0), (2, 2)] {
            for groups in [0, 1, 2] {
                let mut g = g.clone();
                let weights = Array::from_elem((out, shape[1] / groups.max(1), kernel, kernel), 0.5f32);
                let y = g.conv("y", x, &weights, None, window, groups);
                let _ = y.map(|y| run_every_way(&g.build(&[y]).unwrap()));
            }
        }
    }
    for (depth, out) in [(0, 0), (0, 3), (3, 0), (3, 2)] {
        let mut g = GraphBuilder::new();
        let x = g.input("x", &[1, depth]).unwrap();
        if let Ok(y) = g.linear("y", x, &Array::from_elem((out, depth), 0.5f32), None) {
            run_every_way(&g.build(&[y]).unwrap());
        }
    }
}
