//! Reads a network from an ONNX file, quantizes it in three modes, and reports size, speed and per-layer error.
//!
//! ```text
//! cargo run --release --features onnx --example quantize_onnx -- MODEL.onnx --calibrate IMAGES.npy --check IMAGES.npy
//! cargo run --release --features onnx --example quantize_onnx
//! ```
//!
//! The second form needs no files: it trains a small convolutional network first.
//!
//! | file | content |
//! |---|---|
//! | `options`, `common/program`, `common/progress` | the command line, errors, exit codes and progress |
//! | `images` | `u8` images as a network reads them |
//! | `common/cnn` | the small network and its training |
//! | `measure` | quality, size and time of each network, as a table and as JSON |

#[path = "../common/cnn.rs"]
mod cnn;
#[path = "../common/data.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod data;
mod images;
mod measure;
#[path = "../common/net.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod net;
mod options;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/progress.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod progress;
#[path = "../common/threads.rs"]
mod threads;
#[path = "../common/train.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod train;

use std::fs;
use std::process::ExitCode;

use ndarray::{Array4, Axis, s};
use ndarray_quant::graph::{Calibration, CalibrationMethod, Calibrator, Graph, Recipe};
use ndarray_quant::io::onnx::OnnxReader;
use ndarray_quant::ptq::CoordinateDescent;

use cnn::Cnn;
use data::Dataset;
use measure::Mode;
use options::{Options, Source};
use program::Result;
use progress::Progress;
use threads::with_threads;

/// Number of training images that calibrate the network that is trained here.
const CALIBRATION: usize = 128;

/// Batch size of calibration.
const BATCH: usize = 8;

/// Number of images for the per-layer error.
const REPORTED: usize = 8;

fn main() -> ExitCode {
    program::run(options::HELP, options::parse(), |options| with_threads(options.threads, || run(options)))
}

/// A network, and images to calibrate and to check it with.
struct Task {
    graph: Graph,
    calibrate: Array4<f32>,
    check: Array4<f32>,
}

/// A network that is trained here, with images to calibrate it with and others to check it.
fn trained() -> Result<Task> {
    let (train, test) = Dataset::load()?;
    let network = Cnn::trained(&train);
    let accuracy = 100.0 * network.accuracy(&test);
    eprintln!("trained; {accuracy:.1} % of {} test images are classified as labelled", test.len());
    let calibrate = cnn::images(train.images.slice(s![..CALIBRATION, ..]));
    Ok(Task { graph: network.graph()?, calibrate, check: cnn::images(test.images.view()) })
}

fn run(options: &Options) -> Result {
    let Task { graph, calibrate, check } = match &options.source {
        Source::File { model, calibrate, check } => {
            let read = |path| images::read(path, &options.mean, &options.scale);
            let reader = OnnxReader::new();
            let reader =
                options.inputs.iter().fold(reader, |reader, (name, shape)| reader.with_input_shape(name, shape));
            Task { graph: reader.read_file(model)?, calibrate: read(calibrate)?, check: read(check)? }
        }
        Source::Trained => trained()?,
    };
    let graph = graph.simplify()?;

    let mut progress = Progress::new("calibrating", 2 * calibrate.len_of(Axis(0)));
    let mut observe = |mut calibrator: Calibrator| -> Result<Calibration> {
        for batch in calibrate.axis_chunks_iter(Axis(0), BATCH) {
            calibrator.observe(&batch)?;
            progress.advance(batch.len_of(Axis(0)), "");
        }
        Ok(calibrator.finish())
    };
    // Equalize the ranges of channels first, so that one scale per tensor loses less.
    let graph = graph.equalize(&observe(Calibrator::new(&graph)?)?)?;
    let calibration = observe(Calibrator::new(&graph)?.with_second_moments())?;
    progress.clear();
    let recipe = calibration.recipe(&graph, CalibrationMethod::MinMax)?;

    let float = graph.compile()?;
    let float16 = graph.quantize(&Recipe::float16(&graph))?;
    let dynamic_range =
        graph.quantize_with(&Recipe::dynamic_range(&graph)?, Some(&calibration), CoordinateDescent::new())?;
    let full_integer = graph.quantize_with(&recipe, Some(&calibration), CoordinateDescent::new())?;

    let few = check.slice(s![..REPORTED.min(check.len_of(Axis(0))), .., .., ..]);
    let report = full_integer.report(&graph, &few)?;
    println!("Full integer, layer by layer:\n\n{report}");
    program::at(&options.svg, fs::write(&options.svg, report.to_svg()))?;
    println!("Picture: {}\n", options.svg.display());

    let modes = [
        Mode::float(&float, graph.size_in_bytes()),
        Mode::quantized("float16", &float16),
        Mode::quantized("dynamic_range", &dynamic_range),
        Mode::quantized("full_integer", &full_integer),
    ];
    let rows = measure::measure(&modes, &check)?;
    print!("{}", measure::table(&rows));
    program::save_json(options.json.as_deref(), &rows, |row| row.to_json(&rows[0]))
}
