//! Trains and quantizes the networks of the firmware, writes their models with inputs and expected codes, and checks the
//! program that the linker made.
//!
//! ```text
//! host write           writes the files into generated/, and prints the memory of each node
//! host check FIRMWARE  prints flash and RAM; fails if software floats or an allocator are linked
//! ```

#[path = "../../../../examples/common/cnn.rs"]
mod cnn;
#[path = "../../../../examples/common/data.rs"]
#[allow(dead_code, reason = "shared with examples")]
mod data;
mod elf;
#[path = "../../../../examples/common/net.rs"]
#[allow(dead_code, reason = "shared with examples")]
mod net;
#[path = "../../../../examples/common/program.rs"]
#[allow(dead_code, reason = "shared with examples")]
mod program;
#[path = "../../../../examples/common/progress.rs"]
#[allow(dead_code, reason = "shared with examples")]
mod progress;
mod steps;
#[path = "../../../../examples/common/train.rs"]
#[allow(dead_code, reason = "shared with examples")]
mod train;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ndarray::{Array4, ArrayD, ArrayRef, Axis, Ix4, s};
use ndarray_quant::graph::{Arena, CalibrationMethod, Graph, Precision, QuantizedNetwork};

use cnn::Cnn;
use data::Dataset;
use program::{Result, at};

/// Number of training images for calibration.
const CALIBRATION: usize = 128;

/// Every how many test images one is embedded: 100 of 2000.
const EVERY: usize = 20;

const HELP: &str = "usage: host write\n       host check FIRMWARE\n";

enum Command {
    Write,
    Check(PathBuf),
}

fn parse() -> Result<Option<Command>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_env();
    let command = match parser.next()? {
        None | Some(Long("help")) => return Ok(None),
        Some(Value(name)) if name == "write" => Command::Write,
        Some(Value(name)) if name == "check" => Command::Check(parser.value()?.into()),
        Some(other) => return Err(other.unexpected()),
    };
    match parser.next()? {
        None => Ok(Some(command)),
        Some(other) => Err(other.unexpected()),
    }
}

fn main() -> ExitCode {
    program::run(HELP, parse(), |command| match command {
        Command::Write => write(),
        Command::Check(firmware) => elf::check(firmware, written()?),
    })
}

/// Where the files for the firmware are.
fn generated() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../generated")
}

/// The bytes of all files for the firmware.
fn written() -> Result<u64> {
    let files = at(&generated(), fs::read_dir(generated()))?;
    files.map(|file| Ok(file?.metadata()?.len())).sum()
}

fn write() -> Result {
    let folder = generated();
    at(&folder, fs::create_dir_all(&folder))?;
    let (train, test) = Dataset::load()?;
    let network = Cnn::trained(&train);
    println!("{:.1} % of {} test images are classified as labelled\n", 100.0 * network.accuracy(&test), test.len());
    let calibrate = cnn::images(train.images.slice(s![..CALIBRATION, ..]));
    let images = cnn::images(test.images.slice(s![..;EVERY, ..]));
    save(&folder, "cnn", &full_integer(network.graph()?, &calibrate)?, &images)?;
    let labels: Vec<u8> = test.labels.iter().step_by(EVERY).map(|&label| label as u8).collect();
    let path = folder.join("cnn.labels");
    at(&path, fs::write(&path, labels))?;

    let (graph, samples) = steps::network()?;
    save(&folder, "steps", &full_integer(graph, &samples)?, &samples.slice(s![..4, .., .., ..]))
}

/// Quantizes a network whose output, too, is kept as codes.
fn full_integer(graph: Graph, calibrate: &Array4<f32>) -> Result<QuantizedNetwork> {
    let graph = graph.simplify()?;
    let calibration = graph.calibrate(calibrate.axis_chunks_iter(Axis(0), 8))?;
    let mut recipe = calibration.recipe(&graph, CalibrationMethod::MinMax)?;
    for output in graph.outputs() {
        recipe.tensor_mut(output)?.precision = Precision::Int8;
    }
    Ok(graph.quantize(&recipe)?)
}

/// Writes a model, the codes of images, and the codes that the network computes from them.
fn save(folder: &Path, name: &str, network: &QuantizedNetwork, images: &ArrayRef<f32, Ix4>) -> Result {
    let model = network.to_micro()?;
    println!("{name}:\n{model}\n");
    let input = network.graph().inputs().next().and_then(|input| network.activation(input));
    let params = input.ok_or("the input is not kept as codes")?;
    let codes = params.quantize(images)?.into_parts().0;
    let outputs = network.run_codes(&codes, &mut Arena::new())?;
    let files = [
        ("bin", model.as_bytes().to_vec()),
        ("inputs", channels_last(&codes.into_dyn())),
        ("outputs", channels_last(&outputs)),
    ];
    for (extension, bytes) in files {
        let path = folder.join(name).with_extension(extension);
        at(&path, fs::write(&path, bytes))?;
    }
    Ok(())
}

/// Codes in the order of models.
fn channels_last(codes: &ArrayD<u8>) -> Vec<u8> {
    match codes.ndim() {
        4 => codes.view().permuted_axes(&[0, 2, 3, 1][..]).iter().copied().collect(),
        _ => codes.iter().copied().collect(),
    }
}
