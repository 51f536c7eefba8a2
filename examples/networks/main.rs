//! Quantizes networks and prints the table of `docs/networks.md`: size, cosine, SQNR and time of each.
//!
//! ```text
//! cargo run --release --features onnx,gemm --example networks -- FOLDER [NAME…]
//! ```
//!
//! `integrations/networks/prepare.py` makes the folder. For each network it holds
//!
//! | file | content |
//! |---|---|
//! | `NAME.onnx` | the network |
//! | `NAME.txt` | the names of its inputs, one a line |
//! | `NAME.calibrate.I.npy` | samples of input I that ranges are taken from, `[samples, ..]` |
//! | `NAME.check.I.npy` | samples that the networks are compared on |
//! | `NAME.peer` | the cells of ONNX Runtime, as the script measured them |

#[path = "../common/program.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser};
use ndarray::{ArrayD, ArrayViewD, Axis, Slice};
use ndarray_quant::graph::{Arena, CalibrationMethod, Calibrator, QuantizedNetwork, Recipe};
use ndarray_quant::io::onnx::OnnxReader;
use ndarray_quant::metrics::{cosine, sqnr_db};

use program::{Result, at};

const HELP: &str = "\
Quantizes networks and prints a table of their size, quality and time.

Usage: cargo run --release --features onnx,gemm --example networks -- FOLDER [NAME]...

The folder is made by integrations/networks/prepare.py. Without names, all of its networks are measured.

Options:
  -h, --help  print this
";

/// Time for which each network runs; the fastest run counts.
const MEASURED: Duration = Duration::from_millis(1500);

struct Options {
    folder: PathBuf,
    names: Vec<String>,
}

fn main() -> ExitCode {
    program::run(HELP, parse(), run)
}

fn parse() -> Result<Option<Options>, lexopt::Error> {
    let (mut folder, mut names) = (None, Vec::new());
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(value) if folder.is_none() => folder = Some(PathBuf::from(value)),
            Arg::Value(value) => names.push(value.to_string_lossy().into_owned()),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(folder.map(|folder| Options { folder, names }))
}

fn run(options: &Options) -> Result {
    let mut names = options.names.clone();
    if names.is_empty() {
        for entry in at(&options.folder, fs::read_dir(&options.folder))? {
            let path = entry?.path();
            let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
            names.extend(name.filter(|_| path.extension().is_some_and(|extension| extension == "txt")));
        }
        names.sort();
    }
    println!(
        "| network | nodes | KB | | full integer: cosine, SQNR | dynamic range | ms: float | full | dynamic | ONNX Runtime: cosine, SQNR, ms float, ms int8 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for name in &names {
        match row(&options.folder, name) {
            Ok(row) => println!("{row}"),
            Err(error) => println!("| {name} | {error} |"),
        }
    }
    Ok(())
}

/// The samples of all inputs of a network.
struct Samples(Vec<ArrayD<f32>>);

impl Samples {
    fn read(folder: &Path, name: &str, part: &str, count: usize) -> Result<Self> {
        let of_input = |i: usize| {
            let path = folder.join(format!("{name}.{part}.{i}.npy"));
            at(&path, ndarray_npy::read_npy(&path))
        };
        Ok(Self((0..count).map(of_input).collect::<Result<_>>()?))
    }

    fn views(&self) -> Vec<ArrayViewD<'_, f32>> {
        self.0.iter().map(|input| input.view()).collect()
    }

    /// The first sample.
    fn first(&self) -> Vec<ArrayViewD<'_, f32>> {
        self.0.iter().map(|input| input.slice_axis(Axis(0), Slice::from(..1))).collect()
    }
}

fn row(folder: &Path, name: &str) -> Result<String> {
    let path = folder.join(format!("{name}.txt"));
    let inputs: Vec<String> = at(&path, fs::read_to_string(&path))?.lines().map(String::from).collect();
    let calibrate = Samples::read(folder, name, "calibrate", inputs.len())?;
    let check = Samples::read(folder, name, "check", inputs.len())?;
    let mut reader = OnnxReader::new();
    for (input, samples) in inputs.iter().zip(check.first()) {
        reader = reader.with_input_shape(input, samples.shape());
    }
    let graph = reader.read_file(folder.join(format!("{name}.onnx")))?.simplify()?;
    let mut arena = Arena::new().with_max_bytes(8 << 30);
    let network = graph.compile()?;
    let expected = network.run_many(&check.views(), &mut arena)?;
    let float = fastest(|| network.run_many(&check.first(), &mut arena).map(drop))?;

    let mut calibrator = Calibrator::new(&graph)?;
    calibrator.observe_many(&calibrate.views())?;
    let recipe = calibrator.finish().recipe(&graph, CalibrationMethod::MinMax)?;
    let [full, dynamic] = [recipe, Recipe::dynamic_range(&graph)?].map(|recipe| {
        let quantized = graph.quantize(&recipe)?;
        let quality = quality(&quantized, &check, &expected, &mut arena)?;
        let time = fastest(|| quantized.run_many(&check.first(), &mut arena).map(drop))?;
        Ok::<_, ndarray_quant::Error>((quantized.weights_size_in_bytes(), quality, time))
    });
    let ((full_bytes, full_quality, full), (_, dynamic_quality, dynamic)) = (full?, dynamic?);
    let peer = fs::read_to_string(folder.join(format!("{name}.peer"))).unwrap_or_default();
    let (nodes, bytes) = (graph.nodes().len(), graph.size_in_bytes());
    Ok(format!(
        "| {name} | {nodes} | {} | {} | {full_quality} | {dynamic_quality} | {float:.2} | {full:.2} | {dynamic:.2} | {} |",
        bytes / 1000,
        full_bytes / 1000,
        peer.trim()
    ))
}

/// Cosine and SQNR of all outputs together.
fn quality(
    quantized: &QuantizedNetwork,
    check: &Samples,
    expected: &[ArrayD<f32>],
    arena: &mut Arena,
) -> Result<String, ndarray_quant::Error> {
    let found = quantized.run_many(&check.views(), arena)?;
    let joined = |outputs: &[ArrayD<f32>]| outputs.iter().flatten().copied().collect::<ndarray::Array1<f32>>();
    let (expected, found) = (joined(expected), joined(&found));
    Ok(format!("{:.4}, {:.1} dB", cosine(&expected, &found)?, sqnr_db(&expected, &found)?))
}

/// The time of the fastest run, in milliseconds.
fn fastest(mut run: impl FnMut() -> Result<(), ndarray_quant::Error>) -> Result<f64, ndarray_quant::Error> {
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed() < MEASURED {
        let start = Instant::now();
        run()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(best)
}
