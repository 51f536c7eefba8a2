//! Linear layers with weights in groups along the depth.

use super::*;
use ndarray_quant::graph::{Mode, WeightRounding};
use ndarray_quant::nn::LinearNBits;
use ndarray_quant::ptq::{AdaRound, Gptq, Hqq};
use ndarray_quant::{Element, Granularity, I2, I4, Scheme};

/// Two linear layers on sequences and one on their flattened output, with a ragged last group.
fn network(rng: &mut Pcg64Mcg) -> Graph {
    let mut g = GraphBuilder::new();
    let x = g.input("x", &[1, 3, 72]).unwrap();
    let a = g.linear("a", x, &(random((40, 72), rng) * 0.2), Some(&random(40, rng))).unwrap();
    let a = g.relu("relu", a).unwrap();
    let b = g.linear("b", a, &(random((24, 40), rng) * 0.3), None).unwrap();
    let flat = g.reshape("flat", b, &[1, 72]).unwrap();
    let y = g.linear("y", flat, &(random((5, 72), rng) * 0.2), Some(&random(5, rng))).unwrap();
    g.build(&[y]).unwrap().simplify().unwrap()
}

fn one_layer<T: Element<Code = i8>>(precision: Precision, size: usize, symmetric: bool, rng: &mut Pcg64Mcg) {
    let (w, bias, x) = (random((20, 72), rng), random(20, rng), random((6, 72), rng));
    let mut g = GraphBuilder::new();
    let input = g.input("x", &[1, 72]).unwrap();
    let y = g.linear("y", input, &w, Some(&bias)).unwrap();
    let graph = g.build(&[y]).unwrap();
    let mut recipe = Recipe::weights_in_groups(&graph, precision, size).unwrap();
    recipe.tensor_mut("y.weight").unwrap().symmetric = symmetric;
    let scheme = if symmetric { Scheme::<T>::symmetric() } else { Scheme::<T>::asymmetric() };
    let layer = LinearNBits::new(&scheme.per_group(Axis(1), size).quantize(&w).unwrap(), Some(&bias)).unwrap();

    let dynamic = graph.quantize(&recipe).unwrap();
    assert_eq!(dynamic.run(&x).unwrap(), layer.forward_dynamic(&x).unwrap().into_dyn());
    assert_eq!(dynamic.modes()[0].to_string(), r#"Linear "y": dynamic range, because its input "x" is Float32"#);
    recipe.weight_only_layers.insert("y".into());
    let weight_only = graph.quantize(&recipe).unwrap();
    assert_eq!(weight_only.run(&x).unwrap(), layer.forward(&x).unwrap().into_dyn());
    assert_eq!(weight_only.modes()[0].mode, Mode::WeightOnly);
}

#[test]
fn networks_compute_what_the_layer_computes() {
    let rng = &mut Pcg64Mcg::seed_from_u64(31);
    for (size, symmetric) in [(16, true), (16, false), (32, true), (72, false), (100, true), (1, true), (7, false)] {
        one_layer::<I2>(Precision::Int2, size, symmetric, rng);
        one_layer::<I4>(Precision::Int4, size, symmetric, rng);
        one_layer::<i8>(Precision::Int8, size, symmetric, rng);
    }
}

/// All ways to compute with groups: close to the float network, saved and loaded, and as the simulation of the report says.
#[test]
fn whole_networks() {
    let rng = &mut Pcg64Mcg::seed_from_u64(32);
    let graph = network(rng);
    let x = random(IxDyn(&[16, 3, 72]), rng);
    let expected = graph.run(&x).unwrap();
    for (precision, decibels) in [(Precision::Int8, 38.0), (Precision::Int4, 14.0)] {
        for weight_only in [false, true] {
            let mut recipe = Recipe::weights_in_groups(&graph, precision, 16).unwrap();
            recipe.tensor_mut("b.weight").unwrap().symmetric = false;
            if weight_only {
                let linear = graph.nodes().iter().filter(|node| node.op == op::Linear.into());
                recipe.weight_only_layers.extend(linear.map(|node| node.output.clone()));
            }
            let network = graph.quantize(&recipe).unwrap();
            let found = network.run(&x).unwrap();
            assert!(sqnr(&expected, &found) > decibels, "{precision}: {} dB", sqnr(&expected, &found));
            let report = network.report(&graph, &x).unwrap();
            let last = report.layers.last().unwrap().accumulated.sqnr_db;
            assert!((last - sqnr(&expected, &found)).abs() < 0.2, "{report}{}", sqnr(&expected, &found));
            #[cfg(feature = "safetensors")]
            {
                let loaded = QuantizedNetwork::from_safetensors(&network.to_safetensors().unwrap()).unwrap();
                assert_eq!((loaded.run(&x).unwrap(), loaded.recipe()), (found.clone(), network.recipe()));
            }
            #[cfg(feature = "onnx")]
            {
                let again = QuantizedNetwork::from_onnx_bytes(&network.to_onnx().unwrap()).unwrap();
                let x = x.slice_axis(Axis(0), (0..1).into()).to_owned();
                assert_eq!(again.run(&x).unwrap(), network.run(&x).unwrap());
            }
        }
    }
}

/// A network on codes has layers with weights in groups between others.
#[test]
fn beside_layers_on_codes() {
    let rng = &mut Pcg64Mcg::seed_from_u64(33);
    let graph = network(rng);
    let x = random(IxDyn(&[16, 3, 72]), rng);
    let mut recipe = calibrated(&graph, &x);
    let groups = Recipe::weights_in_groups(&graph, Precision::Int4, 32).unwrap();
    *recipe.tensor_mut("b.weight").unwrap() = groups.tensors["b.weight"].clone();
    let network = graph.quantize(&recipe).unwrap();
    let modes: Vec<Mode> = network.modes().iter().map(|node| node.mode).collect();
    assert_eq!(modes[..2], [Mode::Integer, Mode::DynamicRange], "{:?}", network.modes());
    assert!(network.modes()[1].to_string().ends_with("because its weights are in groups"));
    assert!(sqnr(&graph.run(&x).unwrap(), &network.run(&x).unwrap()) > 14.0);
}

#[test]
fn unsound_groups_are_errors() {
    let rng = &mut Pcg64Mcg::seed_from_u64(34);
    let image = super::network(rng);
    let graph = network(rng);
    assert!(matches!(Recipe::weights_in_groups(&graph, Precision::Float16, 32), Err(Error::Argument { .. })));
    assert!(matches!(Recipe::weights_in_groups(&graph, Precision::Int4, 0), Err(Error::Params(_))));
    // Convolutions stay per channel.
    let mut recipe = Recipe::weights_in_groups(&image, Precision::Int4, 16).unwrap();
    assert_eq!(recipe.tensors["stem.weight"].granularity, Granularity::per_axis(Axis(0)));
    assert_eq!(recipe.tensors["scores.weight"].granularity, Granularity::per_group(Axis(1), 16));
    image.quantize(&recipe).unwrap();
    let node = |e: Error| matches!(e, Error::Graph(GraphError::Node { .. }));
    recipe.weight_only_layers.insert("swish".into());
    assert!(node(image.quantize(&recipe).unwrap_err()));
    recipe.weight_only_layers = ["nothing".to_string()].into();
    assert!(node(image.quantize(&recipe).unwrap_err()));
    let mut recipe = Recipe::weights_in_groups(&graph, Precision::Int4, 16).unwrap();
    recipe.tensor_mut("a.weight").unwrap().ranges.pop();
    assert!(node(graph.quantize(&recipe).unwrap_err()));
    recipe.tensor_mut("a.weight").unwrap().granularity = Granularity::per_group(Axis(0), 16);
    assert!(node(graph.quantize(&recipe).unwrap_err()));
}

/// Each method chooses the codes of weights in groups as it does for the layer alone, with the bias that takes up the mean
/// error; all gain on correlated inputs, in networks with convolutions too.
#[test]
fn methods_of_rounding() {
    let rng = &mut Pcg64Mcg::seed_from_u64(33);
    let (depth, size) = (60, 16);
    let w = random((24, depth), rng);
    let mix = random((12, depth), rng);
    let x = random((300, 12), rng).dot(&mix) + 0.3 * &random((300, depth), rng) + 0.2;
    let mut g = GraphBuilder::new();
    let input = g.input("x", &[1, depth]).unwrap();
    let y = g.linear("y", input, &w, None).unwrap();
    let graph = g.build(&[y]).unwrap();
    let mut calibrator = Calibrator::new(&graph).unwrap().with_second_moments();
    calibrator.observe(&x).unwrap();
    let calibration = calibrator.finish();
    let mut recipe = Recipe::weights_in_groups(&graph, Precision::Int4, size).unwrap();
    recipe.weight_only_layers.insert("y".into());
    let float = graph.run(&x).unwrap();
    let quality = |network: &QuantizedNetwork| sqnr(&float, &network.run(&x).unwrap());
    let nearest = quality(&graph.quantize(&recipe).unwrap());
    let methods: [WeightRounding; 4] = [
        CoordinateDescent::new().into(),
        Gptq::new().into(),
        Gptq::new().activation_order().into(),
        AdaRound::new().into(),
    ];
    for method in methods {
        let network = graph.quantize_with(&recipe, Some(&calibration), method).unwrap();
        assert!(quality(&network) > nearest + 3.1, "{method:?}: {} {nearest}", quality(&network));
        let error = graph.quantize_with(&recipe, None, method).unwrap_err();
        assert!(matches!(error, Error::Argument { what: "calibration", .. }), "{error}");
    }

    // HQQ takes its own grid, which the recipe of the result names.
    for symmetric in [true, false] {
        recipe.tensor_mut("y.weight").unwrap().symmetric = symmetric;
        let scheme = if symmetric { Scheme::<I4>::symmetric() } else { Scheme::asymmetric() };
        let q = Hqq::new().quantize(&w, &scheme.per_group(Axis(1), size)).unwrap();
        let network = graph.quantize_with(&recipe, None, Hqq::new()).unwrap();
        let layer = LinearNBits::new(&q, None).unwrap();
        assert_eq!(network.run(&x).unwrap(), layer.forward(&x).unwrap().into_dyn());
        let ranges = &network.recipe().tensors["y.weight"].ranges;
        let zero_point = |i: usize| q.params().zero_point().map_or(0, |z| z.as_slice().unwrap()[i]);
        for (i, (range, scale)) in ranges.iter().zip(q.params().scales()).enumerate() {
            let value = |code: i8| f32::from(code - zero_point(i)) * scale;
            assert_eq!(*range, (value(-8), value(7)));
        }
    }
}

/// Methods on convolutions: groups of channels, and a depthwise one.
#[test]
fn methods_of_rounding_on_convolutions() {
    let rng = &mut Pcg64Mcg::seed_from_u64(34);
    let graph = super::network(rng);
    let seen = super::images(64, rng);
    let calibration = super::observed(&graph, &seen, 16);
    let mut recipe = super::calibrated(&graph, &seen);
    let weights = recipe.tensors.iter_mut().filter(|(name, _)| name.ends_with("weight"));
    weights.for_each(|(_, w)| w.precision = Precision::Int4);
    let x = super::images(32, rng);
    let float = graph.run(&x).unwrap();
    let quality = |network: &QuantizedNetwork| sqnr(&float, &network.run(&x).unwrap());
    let corrected = graph.quantize_with(&recipe, Some(&calibration), WeightRounding::Nearest).unwrap();
    let nearest = quality(&graph.quantize(&recipe).unwrap());
    assert!(quality(&corrected) > nearest - 0.5);
    let methods: [WeightRounding; 3] =
        [CoordinateDescent::new().into(), Gptq::new().into(), AdaRound::new().with_iterations(300).into()];
    for method in methods {
        let network = graph.quantize_with(&recipe, Some(&calibration), method).unwrap();
        assert!(quality(&network) > nearest + 0.3, "{method:?}: {} {nearest}", quality(&network));
    }
}
