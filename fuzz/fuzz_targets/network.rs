//! What must hold of every graph that a reader or a builder accepts.

use ndarray::{ArrayD, IxDyn};
use ndarray_quant::graph::{Arena, Graph, Recipe};

/// Multiply–accumulates and elements that a run may take: a valid network may be expensive.
const COST: usize = 1 << 20;

/// Returns whether a run is cheap: at worst, each node reads all of its inputs for each element of its output.
fn cheap(graph: &Graph) -> bool {
    let elements = |name: &str| graph.shape(name).map(|shape| shape.iter().product::<usize>());
    let of = |name: &String| elements(name).or_else(|| graph.constant(name).map(|x| x.len())).unwrap_or(1);
    let cost = graph.nodes().iter().map(|node| {
        let inputs: usize = node.inputs.iter().map(of).fold(1, usize::saturating_add);
        inputs.saturating_mul(of(&node.output).max(1))
    });
    let read = graph.inputs().map(|name| elements(name).unwrap_or(1));
    cost.chain(read).fold(0, usize::saturating_add) <= COST
}

fn inputs(graph: &Graph, batch: usize) -> Vec<ArrayD<f32>> {
    let input = |name| {
        let mut shape = graph.shape(name).unwrap_or_default().to_vec();
        if let Some(first) = shape.first_mut().filter(|len| **len == 1) {
            *first = batch;
        }
        let len = shape.iter().product::<usize>();
        let values = (0..len).map(|i| ((i * 37) % 101) as f32 / 25.0 - 2.0).collect();
        ArrayD::from_shape_vec(IxDyn(&shape), values).expect("a shape of the graph")
    };
    graph.inputs().map(input).collect()
}

/// Runs a graph as it is, simplified, and quantized. Only panics, aborts and time count: networks of infinities are valid.
pub(crate) fn check(graph: Graph) {
    if !cheap(&graph) {
        return;
    }
    let run = |graph: &Graph| -> ndarray_quant::Result<()> {
        let network = graph.compile()?;
        for batch in [1, 2] {
            let inputs = inputs(graph, batch);
            let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
            let _ = network.run_many(&views, &mut Arena::new());
        }
        Ok(())
    };
    let _ = run(&graph);
    let Ok(graph) = graph.simplify() else { return };
    let _ = run(&graph);
    check_quantized(&graph, &Recipe::float16(&graph));
    if let Ok(recipe) = Recipe::dynamic_range(&graph) {
        check_quantized(&graph, &recipe);
    }
    if let ([x], Ok(calibration)) = (&inputs(&graph, 2)[..], graph.calibrate(inputs(&graph, 2)))
        && let Ok(recipe) = calibration.recipe(&graph, Default::default())
    {
        check_quantized(&graph, &recipe);
        let _ = graph.quantize(&recipe).and_then(|network| network.report(&graph, x)).map(|report| report.to_string());
    }
}

/// Quantizes and runs a graph, and writes and reads the quantized network.
pub(crate) fn check_quantized(graph: &Graph, recipe: &Recipe) {
    let Ok(network) = graph.quantize(recipe) else { return };
    if !cheap(graph) {
        return;
    }
    for batch in [1, 2] {
        let inputs = inputs(graph, batch);
        let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
        let _ = network.run_many(&views, &mut Arena::new());
    }
    let _ = network.modes();
    if let Ok(bytes) = network.to_onnx() {
        let _ = ndarray_quant::graph::QuantizedNetwork::from_onnx_bytes(&bytes);
    }
    if let Ok(bytes) = network.to_safetensors() {
        let again = ndarray_quant::graph::QuantizedNetwork::from_safetensors(&bytes).expect("a file that was written");
        assert_eq!(again.to_safetensors().expect("a network that was read"), bytes);
    }
}
