//! Quantizes networks and prints the tables of `docs/networks.md`: quality and size, or time.
//!
//! ```text
//! cargo run --release --features onnx,safetensors,gemm --example networks -- FOLDER [NAME…]
//! cargo run --release --features onnx,safetensors,gemm --example networks -- --time FOLDER [NAME…]
//! ```
//!
//! `integrations/networks/prepare.py` makes the folder. For each network it holds
//!
//! | file | content |
//! |---|---|
//! | `NAME.onnx` | the network |
//! | `NAME.txt` | the names of its inputs, one a line |
//! | `NAME.calibrate.I.npy` | samples of input I that ranges are taken from, `[samples, ..]`; without them only dynamic range is measured |
//! | `NAME.check.I.npy` | samples that the networks are compared on |
//! | `NAME.expected.npy` | outputs of ONNX Runtime in float for these, all in a row |
//! | `NAME.full.safetensors`, `NAME.dynamic.safetensors` | the quantized networks, which the first command writes |

#[path = "../common/program.rs"]
#[allow(dead_code, reason = "shared with other examples")]
mod program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lexopt::{Arg, Parser};
use ndarray::{Array1, ArrayD, ArrayViewD, Axis, Slice};
use ndarray_quant::graph::{Arena, FullInteger, Graph, QuantizedNetwork, Recipe};
use ndarray_quant::io::onnx::OnnxReader;
use ndarray_quant::metrics::{cosine, sqnr_db};

use program::{Result, at};

const HELP: &str = "\
Quantizes networks and prints a table of their size and quality.

Usage: cargo run --release --features onnx,safetensors,gemm --example networks -- [OPTIONS] FOLDER [NAME]...

The folder is made by integrations/networks/prepare.py. Without names, all of its networks are measured.

Options:
      --time  print a table of times instead, of the networks that were quantized before
  -h, --help  print this
";

/// Time for which each network runs; the fastest run counts.
const MEASURED: Duration = Duration::from_millis(1500);

struct Options {
    time: bool,
    folder: PathBuf,
    names: Vec<String>,
}

fn main() -> ExitCode {
    program::run(HELP, parse(), run)
}

fn parse() -> Result<Option<Options>, lexopt::Error> {
    let (mut time, mut folder, mut names) = (false, None, Vec::new());
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(value) if folder.is_none() => folder = Some(PathBuf::from(value)),
            Arg::Value(value) => names.push(value.to_string_lossy().into_owned()),
            Arg::Long("time") => time = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(folder.map(|folder| Options { time, folder, names }))
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
    let (row, header): (fn(&Path, &str) -> Result<String>, _) = if options.time {
        (time, "| network | ms: float | full integer | dynamic range |\n|---|---|---|---|")
    } else {
        (
            quantize,
            "| network | operators | difference | KB: float | full integer | cosine, SQNR | dynamic range | cosine, SQNR |\n|---|---|---|---|---|---|---|---|",
        )
    };
    println!("{header}");
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

    /// One sample.
    fn sample(&self, i: usize) -> Vec<ArrayViewD<'_, f32>> {
        self.0.iter().map(|input| input.slice_axis(Axis(0), Slice::from(i..i + 1))).collect()
    }

    /// All outputs of a network that runs on one sample after another.
    fn outputs(
        &self,
        mut run: impl FnMut(&[ArrayViewD<'_, f32>], &mut Arena) -> ndarray_quant::Result<Vec<ArrayD<f32>>>,
    ) -> Result<Array1<f32>> {
        let (mut arena, mut outputs) = (arena(), Vec::new());
        for i in 0..self.0[0].len_of(Axis(0)) {
            outputs.extend(run(&self.sample(i), &mut arena)?.iter().flatten());
        }
        Ok(outputs.into())
    }
}

/// The names of the inputs of a network.
fn inputs(folder: &Path, name: &str) -> Result<Vec<String>> {
    let path = folder.join(format!("{name}.txt"));
    Ok(at(&path, fs::read_to_string(&path))?.lines().map(String::from).collect())
}

/// Reads a network with the shapes of these samples, one at a time.
fn read(folder: &Path, name: &str, inputs: &[String], samples: &Samples) -> Result<Graph> {
    let mut reader = OnnxReader::new();
    for (input, sample) in inputs.iter().zip(samples.sample(0)) {
        reader = reader.with_input_shape(input, sample.shape());
    }
    Ok(reader.read_file(folder.join(format!("{name}.onnx")))?.simplify()?)
}

/// Where a quantized network is saved.
fn saved(folder: &Path, name: &str, form: &str) -> PathBuf {
    folder.join(format!("{name}.{form}.safetensors"))
}

fn arena() -> Arena {
    Arena::new().with_max_bytes(8 << 30)
}

/// Quantizes a network and saves it. Returns the row of size and quality.
fn quantize(folder: &Path, name: &str) -> Result<String> {
    let inputs = inputs(folder, name)?;
    let check = Samples::read(folder, name, "check", inputs.len())?;
    let graph = read(folder, name, &inputs, &check)?;
    let network = graph.compile()?;
    let expected = check.outputs(|sample, arena| network.run_many(sample, arena))?;
    let path = folder.join(format!("{name}.expected.npy"));
    let difference = largest_difference(&at(&path, ndarray_npy::read_npy(&path))?, &expected)?;
    let compare = |quantized: QuantizedNetwork, form| -> Result<String> {
        quantized.save(saved(folder, name, form))?;
        let found = check.outputs(|sample, arena| quantized.run_many(sample, arena))?;
        let (cosine, sqnr_db) = (cosine(&expected, &found)?, sqnr_db(&expected, &found)?);
        Ok(format!("{} | {cosine:.4}, {sqnr_db:.1} dB", quantized.weights_size_in_bytes() / 1000))
    };
    let full = if folder.join(format!("{name}.calibrate.0.npy")).exists() {
        let calibrate = Samples::read(folder, name, "calibrate", inputs.len())?;
        let found = FullInteger::calibrated_many(vec![calibrate.views()]).search(&graph)?;
        eprintln!("{name}: {found}");
        compare(found.network, "full")?
    } else {
        "| ".into()
    };
    let dynamic = compare(graph.quantize(&Recipe::dynamic_range(&graph)?)?, "dynamic")?;
    Ok(format!(
        "| {name} | {} | {difference:.1e} | {} | {full} | {dynamic} |",
        graph.nodes().len(),
        graph.size_in_bytes() / 1000
    ))
}

/// The largest difference of two arrays relative to the largest value of the first.
fn largest_difference(expected: &Array1<f32>, found: &Array1<f32>) -> Result<f32> {
    if expected.len() != found.len() {
        return Err(format!("{} outputs, of ONNX Runtime {}", found.len(), expected.len()).into());
    }
    let largest = expected.fold(0.0, |max: f32, x| max.max(x.abs()));
    let differences = expected.iter().zip(found).map(|(x, y)| (x - y).abs());
    Ok(differences.fold(0.0, f32::max) / largest)
}

/// The row of times.
fn time(folder: &Path, name: &str) -> Result<String> {
    let inputs = inputs(folder, name)?;
    let check = Samples::read(folder, name, "check", inputs.len())?;
    let network = read(folder, name, &inputs, &check)?.compile()?;
    let mut arena = arena();
    let mut times = vec![fastest(|| network.run_many(&check.sample(0), &mut arena).map(drop))?];
    for form in ["full", "dynamic"] {
        let path = saved(folder, name, form);
        if !path.exists() {
            times.push(f64::NAN);
            continue;
        }
        let network = QuantizedNetwork::load(path)?;
        times.push(fastest(|| network.run_many(&check.sample(0), &mut arena).map(drop))?);
    }
    Ok(format!("| {name} | {:.2} | {:.2} | {:.2} |", times[0], times[1], times[2]))
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
