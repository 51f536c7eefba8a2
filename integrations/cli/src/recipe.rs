//! From arguments to a quantized network.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use ndarray_quant::graph::{
    Calibration, CalibrationMethod, Calibrator, FullInteger, Graph, InputTransform, MixedPrecision, Precision,
    QuantizedNetwork, Recipe, WeightRounding,
};
use ndarray_quant::ptq::{AdaRound, Awq, CoordinateDescent, Gptq, Hqq, SmoothQuant};

use crate::args::{self, DataArgs, DataPath, ImageArgs, Mode};
use crate::output::{self, at};
use crate::samples::{Samples, views};

/// The choice of an activation's range from the calibration data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// Try all methods, equalization and rounding of weights, and keep what is best on samples held out.
    Auto,
    /// The smallest and the largest value.
    Minmax,
    /// The central part of all values; see --percentile.
    Percentile,
    /// The least KL divergence between the values and their quantized form.
    Entropy,
    /// The least squared error.
    Mse,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WeightType {
    Int8,
    Int4,
    /// In groups: see --group-size.
    Int2,
}

impl WeightType {
    fn precision(self) -> Precision {
        match self {
            WeightType::Int8 => Precision::Int8,
            WeightType::Int4 => Precision::Int4,
            WeightType::Int2 => Precision::Int2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rounding {
    /// To the nearest code.
    Nearest,
    /// To the codes with the least error of the layer's output on the calibration data, with bias correction.
    CoordinateDescent,
    /// The same by GPTQ.
    Gptq,
    /// The same by AdaRound.
    Adaround,
    /// To the nearest code, of groups with scales and zero points by HQQ. Needs --group-size.
    Hqq,
}

impl Rounding {
    fn method(self) -> WeightRounding {
        match self {
            Rounding::Nearest => WeightRounding::Nearest,
            Rounding::CoordinateDescent => CoordinateDescent::new().into(),
            Rounding::Gptq => Gptq::new().into(),
            Rounding::Adaround => AdaRound::new().into(),
            Rounding::Hqq => Hqq::new().into(),
        }
    }

    fn uses_data(self) -> bool {
        !matches!(self, Rounding::Nearest | Rounding::Hqq)
    }
}

/// What changes the inputs of linear layers first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transform {
    /// Factors that move outliers of inputs into the weights. For the mode static.
    Smoothquant,
    /// Factors that give the weights of large inputs finer steps. For weights of 4 bits and fewer.
    Awq,
    /// A rotation that spreads outliers of single channels over all of them. Runs with the network.
    Hadamard,
}

impl Transform {
    fn method(self) -> InputTransform {
        match self {
            Transform::Smoothquant => SmoothQuant::new().into(),
            Transform::Awq => Awq::new().into(),
            Transform::Hadamard => InputTransform::Hadamard { seed: 1 },
        }
    }

    fn uses_data(self) -> bool {
        self != Transform::Hadamard
    }
}

/// The quantization of a network.
#[derive(Debug, Args)]
#[command(next_help_heading = "Quantization")]
pub(crate) struct QuantizationArgs {
    /// The kind of quantization.
    #[arg(long, value_enum, default_value_t = Mode::Static)]
    mode: Mode,
    /// Samples of real inputs, from which ranges are taken: a .npy file, a .npz file with an array for each input, an image,
    /// or a folder of these. NAME=PATH is the data of one input. Repeat it for several.
    #[arg(long, value_name = "[NAME=]PATH", value_parser = DataPath::parse)]
    calibration_data: Vec<DataPath>,
    /// Calibrate on N random samples instead, uniform in 0..1. For trying things out: the ranges do not fit real inputs.
    #[arg(long, value_name = "N", conflicts_with = "calibration_data")]
    random_calibration_data: Option<usize>,
    /// Calibrate on the first N samples only.
    #[arg(long, value_name = "N")]
    calibration_samples: Option<usize>,
    /// The choice of ranges from the calibration data in the mode static [default: auto].
    #[arg(long, value_enum, value_name = "METHOD")]
    calibrate_method: Option<Method>,
    /// The percentage of values that --calibrate-method percentile keeps [default: 99.99].
    #[arg(long, value_name = "P")]
    percentile: Option<f64>,
    /// Equalize the ranges of channels first, so that one scale per tensor loses less. Needs calibration data, and a
    /// --calibrate-method other than auto, which tries it.
    #[arg(long)]
    equalize: bool,
    /// Change the inputs of linear layers and their weights first, so that these lose less. Needs a --calibrate-method other
    /// than auto in the mode static.
    #[arg(long, value_enum, value_name = "METHOD")]
    input_transform: Option<Transform>,
    /// Rounding of weights.
    #[arg(long, value_enum, value_name = "ROUNDING", default_value_t = Rounding::Nearest)]
    weight_rounding: Rounding,
    /// The type of weights in the modes static and dynamic.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = WeightType::Int8)]
    weight_type: WeightType,
    /// One scale for each group of SIZE weights of linear layers along their depth, such as 32, in the mode dynamic.
    #[arg(long, value_name = "SIZE")]
    group_size: Option<usize>,
    /// Nodes that compute in float32, by the names of their outputs.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    nodes_to_exclude: Vec<String>,
    /// Raise tensors to float until the outputs have this SQNR on the calibration data, and on a quarter of it held out.
    #[arg(long, value_name = "DB")]
    min_sqnr: Option<f64>,
    /// Change weights to 4 bits until they take at most SIZE, such as 2.5MB.
    #[arg(long, value_name = "SIZE", value_parser = args::bytes)]
    max_size: Option<usize>,
    /// Take precisions and ranges from a JSON file instead; see --save-recipe of `quantize`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mode", "calibrate_method", "weight_type", "group_size", "input_transform"])]
    recipe: Option<PathBuf>,
}

/// Samples per batch of calibration.
const BATCH: usize = 8;

/// A quantized network, and what it was made of.
pub(crate) struct Quantization {
    /// The float network that was quantized: equalized, if that was asked for or helped.
    pub(crate) float: Graph,
    pub(crate) network: QuantizedNetwork,
    /// Steps that were tried and chosen, for the user.
    pub(crate) notes: Vec<String>,
}

impl QuantizationArgs {
    /// Quantizes a network.
    pub(crate) fn quantize(&self, path: &Path, graph: Graph, images: &ImageArgs) -> Result<Quantization> {
        self.check()?;
        let samples = self.samples(&graph, images)?;
        if self.chooses_ranges() && self.method() == Method::Auto {
            ensure!(!self.equalize, "--equalize: --calibrate-method auto tries it; name another method");
            let named = self.input_transform.is_none();
            ensure!(named, "--input-transform: expected with another --calibrate-method than auto, or --mode dynamic");
            return self.search(path, &graph, samples.as_ref().with_context(|| needs_data("--mode static"))?);
        }
        let mut graph = graph;
        let calibrate =
            |graph: &Graph| samples.as_ref().map(|samples| self.calibrate(path, graph, samples)).transpose();
        let mut calibration = calibrate(&graph)?;
        if self.equalize {
            let observed = calibration.as_ref().with_context(|| needs_data("--equalize"))?;
            graph = at(path, graph.equalize(observed))?;
            calibration = calibrate(&graph)?;
        }
        if let Some(transform) = self.input_transform {
            let recipe = self.recipe(path, &graph, calibration.as_ref())?;
            let observed = match transform.uses_data() {
                true => Some(calibration.as_ref().with_context(|| needs_data("--input-transform"))?),
                false => None,
            };
            graph = at(path, graph.transform_inputs(&recipe, observed, transform.method()))?;
            calibration = calibrate(&graph)?;
        }
        let recipe = match &self.recipe {
            Some(file) => self.adjust(&graph, read_recipe(file)?),
            None => self.recipe(path, &graph, calibration.as_ref())?,
        };
        self.edit(path, graph, recipe, samples.as_ref(), calibration.as_ref(), Vec::new())
    }

    fn method(&self) -> Method {
        self.calibrate_method.unwrap_or(Method::Auto)
    }

    /// Returns whether ranges are chosen from calibration data.
    fn chooses_ranges(&self) -> bool {
        self.recipe.is_none() && self.mode == Mode::Static
    }

    /// Returns whether second moments are observed.
    fn uses_moments(&self) -> bool {
        self.weight_rounding.uses_data() || self.input_transform.is_some_and(Transform::uses_data)
    }

    /// Returns an error for arguments that would have no effect.
    fn check(&self) -> Result<()> {
        let percentile = self.percentile.is_none() || self.method() == Method::Percentile;
        ensure!(percentile, "--percentile: expected with --calibrate-method percentile");
        let method = self.calibrate_method.is_none() || self.chooses_ranges();
        ensure!(method, "--calibrate-method: expected with --mode static");
        let groups = self.group_size.is_none() || (self.recipe.is_none() && self.mode == Mode::Dynamic);
        ensure!(groups, "--group-size: expected with --mode dynamic");
        let hqq = self.weight_rounding == Rounding::Hqq && self.recipe.is_none();
        ensure!(!hqq || self.group_size.is_some(), "--weight-rounding hqq: expected with --group-size");
        let groups = self.group_size.is_some() || self.mode != Mode::Float16;
        ensure!(groups || self.input_transform.is_none(), "--input-transform: expected with --mode static or dynamic");
        let uses_data = self.chooses_ranges() || self.equalize || self.uses_moments();
        let uses_data = uses_data || self.min_sqnr.is_some() || self.max_size.is_some();
        let given = !self.calibration_data.is_empty() || self.random_calibration_data.is_some();
        ensure!(uses_data || !given, "calibration data: nothing that was asked for needs any");
        Ok(())
    }

    /// Lets the library choose.
    fn search(&self, path: &Path, graph: &Graph, samples: &Samples) -> Result<Quantization> {
        let spinner = ProgressBar::new_spinner().with_message("choosing ranges");
        spinner.enable_steady_tick(Duration::from_millis(100));
        let batches = samples.batches(BATCH).collect::<Result<Vec<_>>>()?;
        let found = FullInteger::calibrated_many(batches.iter().map(|batch| views(batch)).collect()).search(graph);
        spinner.finish_and_clear();
        let found = at(path, found)?;
        let notes = vec![found.to_string()];
        if !self.edits() {
            return Ok(Quantization { float: found.float, network: found.network, notes });
        }
        let recipe = self.adjust(&found.float, found.network.recipe().clone());
        let calibration = match self.weight_rounding.uses_data() {
            true => Some(self.calibrate(path, &found.float, samples)?),
            false => None,
        };
        self.edit(path, found.float, recipe, Some(samples), calibration.as_ref(), notes)
    }

    /// Returns whether arguments change a recipe after it is chosen.
    fn edits(&self) -> bool {
        self.weight_type != WeightType::Int8
            || !self.nodes_to_exclude.is_empty()
            || self.min_sqnr.is_some()
            || self.max_size.is_some()
            || self.weight_rounding != Rounding::Nearest
    }

    /// Changes a recipe as the arguments say, and quantizes by it.
    fn edit(
        &self,
        path: &Path,
        float: Graph,
        mut recipe: Recipe,
        samples: Option<&Samples>,
        calibration: Option<&Calibration>,
        mut notes: Vec<String>,
    ) -> Result<Quantization> {
        let x = |option| single(samples.with_context(|| needs_data(option))?, option);
        if let Some(db) = self.min_sqnr {
            let found = at(path, float.mixed_precision_for_sqnr(&recipe, &x("--min-sqnr")?, db))?;
            notes.push(describe(&found));
            recipe = found.recipe;
        }
        if let Some(bytes) = self.max_size {
            recipe = at(path, float.mixed_precision_within_bytes(&recipe, &x("--max-size")?, bytes))?;
        }
        let calibration = match self.weight_rounding.uses_data() {
            true => Some(calibration.with_context(|| needs_data("--weight-rounding"))?),
            false => None,
        };
        let network = float.quantize_with(&recipe, calibration, self.weight_rounding.method());
        Ok(Quantization { network: at(path, network)?, float, notes })
    }

    /// Observes the samples.
    fn calibrate(&self, path: &Path, graph: &Graph, samples: &Samples) -> Result<Calibration> {
        let mut calibrator = at(path, Calibrator::new(graph))?;
        if self.uses_moments() {
            calibrator = calibrator.with_second_moments();
        }
        let progress = output::progress("calibrating", samples.len());
        for (i, batch) in samples.batches(BATCH).enumerate() {
            let observed = calibrator.observe_many(&views(&batch?));
            observed.with_context(|| format!("calibration, samples from {} on", i * BATCH))?;
            progress.inc(BATCH.min(samples.len() - i * BATCH) as u64);
        }
        progress.finish_and_clear();
        Ok(calibrator.finish())
    }

    fn samples(&self, graph: &Graph, images: &ImageArgs) -> Result<Option<Samples>> {
        if self.calibration_data.is_empty() && self.random_calibration_data.is_none() {
            return Ok(None);
        }
        let args = DataArgs {
            data: self.calibration_data.clone(),
            random_data: self.random_calibration_data,
            samples: self.calibration_samples,
        };
        Samples::read(graph, &args, images, "--calibration-data").map(Some)
    }

    fn recipe(&self, path: &Path, graph: &Graph, calibration: Option<&Calibration>) -> Result<Recipe> {
        let recipe = match self.mode {
            Mode::Float16 => Recipe::float16(graph),
            Mode::Dynamic => match self.group_size {
                Some(size) => at(path, Recipe::weights_in_groups(graph, self.weight_type.precision(), size))?,
                None => at(path, Recipe::dynamic_range(graph))?,
            },
            Mode::Static => {
                let method = match self.method() {
                    Method::Auto | Method::Minmax => CalibrationMethod::MinMax,
                    Method::Entropy => CalibrationMethod::Entropy,
                    Method::Mse => CalibrationMethod::Mse,
                    Method::Percentile => CalibrationMethod::Percentile(self.percentile.unwrap_or(99.99)),
                };
                at(path, calibration.with_context(|| needs_data("--mode static"))?.recipe(graph, method))?
            }
        };
        Ok(self.adjust(graph, recipe))
    }

    /// Changes the type of weights and the nodes in float as the arguments say.
    fn adjust(&self, graph: &Graph, mut recipe: Recipe) -> Recipe {
        if self.weight_type != WeightType::Int8 {
            let weights = recipe.tensors.iter_mut().filter(|(name, _)| graph.constant(name).is_some());
            let weights = weights.filter(|(_, t)| t.precision == Precision::Int8);
            weights.for_each(|(_, t)| t.precision = self.weight_type.precision());
        }
        recipe.float_layers.extend(self.nodes_to_exclude.iter().cloned());
        recipe
    }
}

/// The result of --min-sqnr.
fn describe(found: &MixedPrecision) -> String {
    format!("mixed precision: {found}\n")
}

fn needs_data(option: &str) -> String {
    format!("{option} needs samples of real inputs: give --calibration-data (or --mode dynamic, which needs none)")
}

fn read_recipe(path: &Path) -> Result<Recipe> {
    let at = || path.display().to_string();
    serde_json::from_str(&fs::read_to_string(path).with_context(at)?).with_context(at)
}

/// All samples of a network of one input.
fn single(samples: &Samples, option: &str) -> Result<ndarray::ArrayD<f32>> {
    match <[_; 1]>::try_from(samples.batch(0..samples.len())?) {
        Ok([x]) => Ok(x),
        Err(inputs) => bail!("{option} needs a network of one input, and this one has {}", inputs.len()),
    }
}
