//! Factors and rotations of the inputs of linear layers.

use super::*;
use ndarray_quant::graph::{GivenParams, InputTransform, WeightRounding};
use ndarray_quant::metrics::sqnr_db;
use ndarray_quant::ptq::{Awq, Gptq, SmoothQuant};

/// Part of the block of a transformer: a normalization with a channel that is larger than the others, two layers that read it,
/// a sum, and a layer behind ReLU.
fn network(rng: &mut Pcg64Mcg) -> Graph {
    // Few weights are large.
    let weights = |shape: (usize, usize), rng: &mut Pcg64Mcg| random(shape, rng).mapv_into(|w| 0.5 * w * w * w);
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 3, 48]).unwrap();
    let outlier = |c: usize| if c == 16 { 60.0 } else { 1.0 + (c % 3) as f32 };
    let scale = g.constant("scale", &Array::from_shape_fn(48, outlier)).unwrap();
    let bias = g.constant("bias", &(random(48, rng) * 0.1)).unwrap();
    let norm = g.node("norm", op::LayerNorm { epsilon: 1e-5 }, &[x, scale, bias]).unwrap();
    let q = g.linear("q", norm, &weights((48, 48), rng), Some(&random(48, rng))).unwrap();
    let k = g.linear("k", norm, &weights((48, 48), rng), None).unwrap();
    let sum = g.add("sum", q, k).unwrap();
    let hidden = g.linear("hidden", sum, &weights((64, 48), rng), Some(&random(64, rng))).unwrap();
    let relu = g.relu("relu", hidden).unwrap();
    let y = g.linear("y", relu, &weights((40, 64), rng), None).unwrap();
    g.build(&[y]).unwrap().simplify().unwrap()
}

fn observe(graph: &Graph, x: &ArrayD<f32>) -> Calibration {
    let mut calibrator = Calibrator::new(graph).unwrap().with_second_moments();
    calibrator.observe(x).unwrap();
    calibrator.finish()
}

fn methods() -> [InputTransform; 4] {
    let half = SmoothQuant::new();
    [half.into(), half.with_alpha(0.8).unwrap().into(), Awq::new().into(), InputTransform::Hadamard { seed: 7 }]
}

fn names(graph: &Graph) -> Vec<(&str, &str)> {
    graph.nodes().iter().map(|node| (node.output.as_str(), node.op.name())).collect()
}

/// Factors go into the normalization and into the layer behind whose ReLU only a layer reads; a sum gets a product, and
/// everything a rotation.
#[test]
fn same_function() {
    let rng = &mut Pcg64Mcg::seed_from_u64(51);
    let graph = network(rng);
    let x = random(IxDyn(&[16, 3, 48]), rng);
    let calibration = observe(&graph, &x);
    let expected = graph.run(&x).unwrap();
    for group in [16, 32, 100] {
        let recipe = Recipe::weights_in_groups(&graph, Precision::Int4, group).unwrap();
        for method in methods() {
            let found = graph.transform_inputs(&recipe, Some(&calibration), method).unwrap();
            let db = sqnr_db(&expected, &found.run(&x).unwrap()).unwrap();
            assert!(db > 110.0, "{method:?}: {db} dB");
            let [linear, hadamard] = ["Linear", "Hadamard"];
            let nodes = match method {
                InputTransform::Hadamard { .. } => vec![
                    ("norm", "LayerNorm"),
                    ("norm.rotated", hadamard),
                    ("q", linear),
                    ("k", linear),
                    ("sum", "Add"),
                    ("sum.rotated", hadamard),
                    ("relu", linear),
                    ("relu.rotated", hadamard),
                    ("y", linear),
                ],
                _ => vec![
                    ("norm.scaled", "LayerNorm"),
                    ("q", linear),
                    ("k", linear),
                    ("sum", "Add"),
                    ("sum.scaled", "Mul"),
                    ("relu.scaled", linear),
                    ("y", linear),
                ],
            };
            assert_eq!(names(&found), nodes);
        }
    }
}

/// Outliers of channels cost less: SQNR of the outputs, full integer by SmoothQuant and a rotation, in groups of 4 bits by AWQ.
#[test]
fn quantized_networks_lose_less() {
    let rng = &mut Pcg64Mcg::seed_from_u64(52);
    let graph = network(rng);
    let [x, held] = [64, 32].map(|n| random(IxDyn(&[n, 3, 48]), rng));
    let calibration = observe(&graph, &x);
    let expected = graph.run(&held).unwrap();
    let full_integer = |graph: &Graph| {
        let calibration = observe(graph, &x);
        (calibration.recipe(graph, CalibrationMethod::MinMax).unwrap(), WeightRounding::Nearest)
    };
    let four_bits = |rounding: WeightRounding| {
        move |graph: &Graph| (Recipe::weights_in_groups(graph, Precision::Int4, 48).unwrap(), rounding)
    };
    let check = |method: InputTransform, recipe: &dyn Fn(&Graph) -> (Recipe, WeightRounding)| {
        let transformed = graph.transform_inputs(&recipe(&graph).0, Some(&calibration), method).unwrap();
        let [plain, found] = [&graph, &transformed].map(|graph| {
            let (recipe, rounding) = recipe(graph);
            let network = graph.quantize_with(&recipe, Some(&observe(graph, &x)), rounding).unwrap();
            sqnr_db(&expected, &network.run(&held).unwrap()).unwrap()
        });
        println!("{method:?}: {found} for {plain}");
        assert!(found > plain + 1.0, "{method:?}: {found} for {plain}");
    };
    check(SmoothQuant::new().into(), &full_integer);
    check(InputTransform::Hadamard { seed: 7 }, &full_integer);
    check(Awq::new().into(), &four_bits(WeightRounding::Nearest));
    check(Awq::new().into(), &four_bits(Gptq::new().into()));
}

/// Layers that stay in float, whose scales are given, or that the recipe does not quantize, keep their inputs. Weights that
/// other nodes read keep their values for these.
#[test]
fn other_layers_stay() {
    let rng = &mut Pcg64Mcg::seed_from_u64(53);
    let graph = network(rng);
    let mut recipe = Recipe::weights_in_groups(&graph, Precision::Int8, 16).unwrap();
    recipe.float_layers.insert("k".into());
    recipe.tensor_mut("hidden.weight").unwrap().precision = Precision::Float16;
    let params = GivenParams { scales: vec![0.1; 40 * 4], zero_points: vec![0; 160], signed: false };
    recipe.tensor_mut("y.weight").unwrap().given = Some(params);
    let found = graph.transform_inputs(&recipe, None, InputTransform::Hadamard { seed: 7 }).unwrap();
    let inputs = |name: &str| found.node(name).unwrap().inputs[0].clone();
    assert_eq!(["q", "k", "relu", "y"].map(inputs), ["norm.rotated", "norm", "sum", "relu"]);

    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 8]).unwrap();
    let w = g.constant("w", &random((8, 8), rng)).unwrap();
    let a = g.node("a", op::Linear, &[x, w]).unwrap();
    let b = g.node("b", op::Linear, &[a, w]).unwrap();
    let graph = g.build(&[b]).unwrap();
    let x = random((5, 8), rng);
    let mut recipe = Recipe::dynamic_range(&graph).unwrap();
    recipe.float_layers.insert("a".into());
    let found = graph.transform_inputs(&recipe, None, InputTransform::Hadamard { seed: 7 }).unwrap();
    assert_eq!(found.node("b").unwrap().inputs, ["a.rotated", "w.b"]);
    assert!(sqnr_db(&graph.run(&x).unwrap(), &found.run(&x).unwrap()).unwrap() > 110.0);
}

#[test]
fn invalid_calibrations() {
    let rng = &mut Pcg64Mcg::seed_from_u64(54);
    let graph = network(rng);
    let recipe = Recipe::weights_in_groups(&graph, Precision::Int4, 16).unwrap();
    let argument =
        |found: Result<Graph, Error>| matches!(found.unwrap_err(), Error::Argument { what: "calibration", .. });
    let x = random(IxDyn(&[2, 3, 48]), rng);
    let plain = graph.calibrate([x.view()]).unwrap();
    for method in [Awq::new().into(), InputTransform::from(SmoothQuant::new())] {
        assert!(argument(graph.transform_inputs(&recipe, None, method)));
        assert!(argument(graph.transform_inputs(&recipe, Some(&plain), method)));
        let empty = Calibrator::new(&graph).unwrap().with_second_moments().finish();
        assert!(matches!(graph.transform_inputs(&recipe, Some(&empty), method), Err(Error::Value(_))));
    }
    let mut g = GraphBuilder::new();
    let input = g.input("x", &[1, 3, 48]).unwrap();
    let y = g.linear("other", input, &random((4, 48), rng), None).unwrap();
    let other = observe(&g.build(&[y]).unwrap(), &x);
    assert!(graph.transform_inputs(&recipe, Some(&other), Awq::new()).is_err());
}

/// Rotations are saved by their seed, and written to ONNX as a product.
#[test]
#[cfg(all(feature = "onnx", feature = "safetensors"))]
fn saved_networks() {
    let rng = &mut Pcg64Mcg::seed_from_u64(55);
    let graph = network(rng);
    let x = random(IxDyn(&[4, 3, 48]), rng);
    let recipe = Recipe::weights_in_groups(&graph, Precision::Int8, 16).unwrap();
    let rotated = graph.transform_inputs(&recipe, None, InputTransform::Hadamard { seed: u64::MAX }).unwrap();
    let network = rotated.quantize(&Recipe::weights_in_groups(&rotated, Precision::Int8, 16).unwrap()).unwrap();
    let y = network.run(&x).unwrap();
    let bytes = network.to_safetensors().unwrap();
    assert_eq!(QuantizedNetwork::from_safetensors(&bytes).unwrap().run(&x).unwrap(), y);
    let read = QuantizedNetwork::from_onnx_bytes(&network.to_onnx().unwrap()).unwrap();
    assert!(sqnr_db(&y, &read.run(&x).unwrap()).unwrap() > 40.0);
}
