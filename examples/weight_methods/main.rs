//! Weights of 4, 3 and 2 bits in groups, by each method of `ptq` beside rounding to nearest.
//!
//! ```text
//! cargo run --release --example weight_methods
//! ```
//!
//! A small convolutional network is trained first. Its layers are products of matrices (convolutions by im2col), so each
//! method takes all of them. The methods see training images; all figures are of test images.
//!
//! | file | content |
//! |---|---|
//! | `methods` | how each method is called |
//! | `report` | the figures as a table and as JSON |
//! | `options`, `common/program`, `common/progress` | the command line, errors, exit codes and progress |
//! | `common/cnn`, `common/data`, `common/net`, `common/train` | the network, its training and the images |

#[path = "../common/cnn.rs"]
mod cnn;
#[path = "../common/data.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod data;
mod methods;
#[path = "../common/net.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod net;
mod options;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/progress.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod progress;
mod report;
#[path = "../common/train.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod train;

use std::process::ExitCode;

use ndarray::{Array2, Axis, s};
use ndarray_quant::graph::{
    Calibration, Calibrator, Graph, InputTransform, Precision, QuantizedNetwork, Recipe, WeightRounding,
};
use ndarray_quant::ptq::{AdaRound, Awq, CoordinateDescent, Gptq, Hqq, InputStatistics, SmoothQuant};
use ndarray_quant::{I4, Scheme, metrics};

use cnn::Cnn;
use data::Dataset;
use methods::{METHODS, Observed};
use options::Options;
use program::Result;
use progress::Progress;
use report::Row;

/// Number of training images that the methods see.
const OBSERVED: usize = 512;

/// Bits of a weight, and weights of a group. The layers have 9, 144 and 512 weights per output.
const SETTINGS: [(u32, usize); 4] = [(4, 128), (4, 32), (3, 128), (2, 128)];

fn main() -> ExitCode {
    program::run(options::HELP, options::parse(), run)
}

fn run(options: &Options) -> Result {
    let (train, test) = Dataset::load()?;
    let network = Cnn::trained(&train);
    let accuracy = 100.0 * network.accuracy(&test);
    println!("float network: {accuracy:.2} % of {} test images are classified as labelled\n", test.len());

    let observed = observe(&network, train.images.slice(s![..OBSERVED, ..]))?;
    let (held, scores) = network.forward(test.images.view());
    let mut rows: Vec<Row> = Vec::new();
    let mut progress = Progress::new("rounding", SETTINGS.len() * METHODS.len());
    for (bits, group) in SETTINGS {
        let scheme = Scheme::<I4>::asymmetric().with_bits(bits)?.per_group(Axis(1), group);
        for (name, method) in METHODS {
            let mut quantized = Cnn { layers: network.layers.clone() };
            let mut layers_db = Vec::new();
            for ((layer, observed), x) in quantized.layers.iter_mut().zip(&observed).zip(&held) {
                let found = method(&layer.weight, &scheme, observed)?;
                layers_db.push(metrics::sqnr_db(&x.dot(&layer.weight.t()), &x.dot(&found.t()))?);
                layer.weight = found;
            }
            let outputs_db = metrics::sqnr_db(&scores, &quantized.forward(test.images.view()).1)?;
            rows.push(Row { method: name, bits, group, layers_db, outputs_db, accuracy: quantized.accuracy(&test) });
            progress.advance(1, name);
        }
    }
    progress.clear();
    print!("{}", report::table(&rows));
    in_a_network(&network.graph()?.simplify()?, &train, &test)?;
    program::save_json(options.json.as_deref(), &rows, |row| row.to_json(&rows))
}

/// The statistics of the input of each layer.
fn observe(network: &Cnn, images: ndarray::ArrayView2<f32>) -> Result<Vec<Observed>> {
    let (inputs, _) = network.forward(images);
    let statistics = |x: &Array2<f32>| {
        let mut statistics = InputStatistics::new(x.ncols());
        statistics.observe(x)?;
        Ok(Observed { hessian: statistics.second_moments(), statistics, inputs: x.clone() })
    };
    inputs.iter().map(statistics).collect()
}

/// The same through a recipe: the linear layer has groups, convolutions have one scale per output channel.
fn in_a_network(graph: &Graph, train: &Dataset, test: &Dataset) -> Result {
    let observed = cnn::images(train.images.slice(s![..OBSERVED, ..]));
    let observe = |graph: &Graph| -> Result<Calibration> {
        let mut calibrator = Calibrator::new(graph)?.with_second_moments();
        calibrator.observe(&observed)?;
        Ok(calibrator.finish())
    };
    let recipe = |graph: &Graph| -> Result<Recipe> {
        let mut recipe = Recipe::weights_in_groups(graph, Precision::Int4, 128)?;
        recipe.weight_only_layers.insert("scores".into());
        recipe.tensors.values_mut().for_each(|tensor| tensor.precision = Precision::Int4);
        Ok(recipe)
    };
    let methods: [(&str, WeightRounding); 5] = [
        ("nearest", WeightRounding::Nearest),
        ("HQQ", Hqq::new().into()),
        ("coordinate descent", CoordinateDescent::new().into()),
        ("AdaRound", AdaRound::new().into()),
        ("GPTQ", Gptq::new().activation_order().into()),
    ];
    let images = cnn::images(test.images.view());
    let float = graph.run(&images)?;
    println!(
        "\nThe same in a network: W4 g128, convolutions per channel, biases corrected by Graph::quantize_with. The input"
    );
    println!("of the linear layer as it is, and changed by Graph::transform_inputs\n");
    println!("{:<19}  {:>11}  {:>11}  {:>11}  {:>11}", "method", "as it is", "SmoothQuant", "AWQ", "Hadamard");
    let (recipe_of_input, calibration) = (recipe(graph)?, observe(graph)?);
    let transforms = [SmoothQuant::new().into(), Awq::new().into(), InputTransform::Hadamard { seed: 1 }];
    let mut graphs = vec![(graph.clone(), recipe_of_input.clone(), calibration.clone())];
    for transform in transforms {
        let graph = graph.transform_inputs(&recipe_of_input, Some(&calibration), transform)?;
        let (recipe, calibration) = (recipe(&graph)?, observe(&graph)?);
        graphs.push((graph, recipe, calibration));
    }
    let row = |name: &str, quantize: &dyn Fn(&Graph, &Recipe, &Calibration) -> ndarray_quant::Result<_>| -> Result {
        print!("{name:<19}");
        for (graph, recipe, calibration) in &graphs {
            let network: QuantizedNetwork = quantize(graph, recipe, calibration)?;
            print!("  {:>8.1} dB", metrics::sqnr_db(&float, &network.run(&images)?)?);
        }
        println!();
        Ok(())
    };
    row("nearest, plain", &|graph, recipe, _| graph.quantize(recipe))?;
    for (name, method) in methods {
        row(name, &|graph, recipe, calibration| graph.quantize_with(recipe, Some(calibration), method))?;
    }
    Ok(())
}
