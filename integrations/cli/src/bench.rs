//! `ndarray-quant bench`.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use ndarray_quant::graph::Arena;
use serde::Serialize;

use crate::args::{DataArgs, ImageArgs, Shapes};
use crate::model::{self, Format, Network};
use crate::output::{self, count, say};
use crate::samples::{Samples, views};

/// Time networks, as onnxruntime_perf_test does.
///
/// Several networks take turns, so that other load on the machine affects all of them. `speed` is relative to the first one,
/// by the median. Without data the inputs are zeros.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ndarray-quant bench model.onnx model.safetensors
  ndarray-quant bench model.safetensors --threads 1 --seconds 10 --batch 4 --json times.json")]
pub(crate) struct Bench {
    /// Networks in ONNX files, float or quantized, and quantized ones in safetensors files.
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<PathBuf>,
    #[command(flatten)]
    shapes: Shapes,
    /// Runs of each network [default: as many as fit into --seconds].
    #[arg(short, long, value_name = "N", conflicts_with = "seconds")]
    repeat: Option<usize>,
    /// Time for all runs.
    #[arg(short = 't', long, value_name = "S", default_value_t = 3.0)]
    seconds: f64,
    /// Runs before the first that is timed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: usize,
    /// Samples per run.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    batch: usize,
    /// Write the times in milliseconds as JSON; - stands for standard output, instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    images: ImageArgs,
}

struct Timed {
    network: Network,
    inputs: Vec<ndarray::ArrayD<f32>>,
    arena: Arena,
    load: Duration,
    times: Vec<Duration>,
}

/// Times in milliseconds.
#[derive(Serialize)]
struct Row {
    model: String,
    bytes: usize,
    load: f64,
    runs: usize,
    mean: f64,
    min: f64,
    p50: f64,
    p90: f64,
    p95: f64,
    p99: f64,
    max: f64,
    samples_per_second: f64,
    speed: f64,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(self.batch > 0, "--batch: expected at least 1");
        let mut timed = self.models.iter().map(|path| self.load(path)).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let (least, limit) = match self.repeat {
            Some(repeat) => (repeat.max(1), Duration::ZERO),
            None => (1, Duration::try_from_secs_f64(self.seconds).context("--seconds")?),
        };
        let progress = indicatif::ProgressBar::new_spinner().with_message("timing");
        let mut round = 0;
        while round < self.warmup + least || (self.repeat.is_none() && start.elapsed() < limit) {
            for (timed, path) in timed.iter_mut().zip(&self.models) {
                let start = Instant::now();
                let run = timed.network.run(&views(&timed.inputs), &mut timed.arena);
                let time = start.elapsed();
                run.with_context(|| path.display().to_string())?;
                if round >= self.warmup {
                    timed.times.push(time);
                }
            }
            progress.tick();
            round += 1;
        }
        progress.finish_and_clear();
        let mut rows: Vec<Row> = Vec::new();
        for (timed, path) in timed.iter_mut().zip(&self.models) {
            let first = rows.first().map(|row| row.p50);
            rows.push(timed.row(path, self.batch, first));
        }
        if let Some(path) = &self.json {
            output::json(path, &rows)?;
        }
        if self.json.as_ref().is_none_or(|path| path.as_os_str() != "-") {
            self.print(&rows);
        }
        Ok(())
    }

    fn load(&self, path: &Path) -> Result<Timed> {
        let start = Instant::now();
        // The shapes in safetensors files are fixed.
        let fixed = Format::of(path) == Some(Format::Safetensors);
        let shapes = if fixed { &[][..] } else { &self.shapes.shapes };
        let network = Network::read(path, shapes)?;
        let load = start.elapsed();
        let graph = network.graph();
        let samples = match self.data.data.is_empty() && self.data.random_data.is_none() {
            true => Samples::zeros(graph, self.batch),
            false => Samples::read(graph, &self.data, &self.images, "--data")?,
        };
        ensure!(samples.len() >= self.batch, "--batch {}: found {} samples", self.batch, samples.len());
        let inputs = samples.batch(0..self.batch)?;
        Ok(Timed { network, inputs, arena: model::arena(), load, times: Vec::new() })
    }

    fn print(&self, rows: &[Row]) {
        let (batch, threads) = (count(self.batch, "sample"), count(rayon::current_num_threads(), "thread"));
        say!("{} of {batch}, on {threads}; times in milliseconds\n", count(rows[0].runs, "run"));
        let header = ["model", "size", "load", "mean", "min", "P50", "P90", "P95", "P99", "max", "samples/s", "speed"];
        let mut table = output::table(&header, 1..header.len());
        for row in rows {
            let times = [row.load, row.mean, row.min, row.p50, row.p90, row.p95, row.p99, row.max];
            let mut cells = vec![row.model.clone(), output::size(row.bytes)];
            cells.extend(times.map(|ms| format!("{ms:.3}")));
            cells.extend([format!("{:.1}", row.samples_per_second), format!("{:.2}×", row.speed)]);
            table.add_row(cells);
        }
        output::print(&table);
    }
}

impl Timed {
    /// Sums up the times. `first` is the median of the first network.
    fn row(&mut self, path: &Path, batch: usize, first: Option<f64>) -> Row {
        self.times.sort();
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        // The smallest time that at least this fraction of the runs does not exceed.
        let percentile = |p: f64| ms(self.times[((p * self.times.len() as f64).ceil() as usize).max(1) - 1]);
        let mean = ms(self.times.iter().sum()) / self.times.len() as f64;
        let p50 = percentile(0.5);
        Row {
            model: path
                .file_name()
                .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned()),
            bytes: self.network.size_in_bytes(),
            load: ms(self.load),
            runs: self.times.len(),
            mean,
            min: percentile(0.0),
            p50,
            p90: percentile(0.9),
            p95: percentile(0.95),
            p99: percentile(0.99),
            max: percentile(1.0),
            samples_per_second: 1e3 * batch as f64 / mean,
            speed: first.unwrap_or(p50) / p50,
        }
    }
}
