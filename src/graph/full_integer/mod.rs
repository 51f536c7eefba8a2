//! The whole trip to a full-integer network, with defaults that are accepted only if they help.

mod behind;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use ndarray::{ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::calibrate::{Calibration, CalibrationMethod, Calibrator};
use super::compile::FloatNetwork;
use super::mixed::add_errors;
use super::network::Graph;
use super::plan::Arena;
use super::qnetwork::QuantizedNetwork;
use super::quantize::Quantization;
use super::recipe::Recipe;
use super::samples::{Sample, hold_out, split};
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, ValueError};
use crate::metrics::ErrorSums;

/// Quantizes a float network to integers, from calibration data alone: the whole trip in a line.
///
/// ```
/// use ndarray::{Array, Array2, Axis};
/// use ndarray_quant::graph::{FullInteger, GraphBuilder};
///
/// let mut g = GraphBuilder::new();
/// let x = g.input("x", &[1, 4])?;
/// let w = Array::from_shape_fn((3, 4), |(o, i)| (o as f32 - i as f32) * 0.25);
/// let x = g.linear("hidden", x, &w, None)?;
/// let x = g.relu("relu", x)?;
/// let y = g.linear("scores", x, &w.slice(ndarray::s![..2, ..3]), None)?;
/// let graph = g.build(&[y])?; // or Graph::from_onnx(path)?
///
/// let batches: Vec<Array2<f32>> =
///     (0..4).map(|b| Array::from_shape_fn((8, 4), |(n, i)| ((b * 32 + n * 4 + i) as f32).sin())).collect();
/// let network = graph.quantize(&FullInteger::calibrated(&batches))?;
/// # assert!(network.run(&batches[0])?.iter().zip(&graph.run(&batches[0])?).all(|(a, b)| (a - b).abs() < 0.05));
///
/// // The same, with what was tried.
/// let found = FullInteger::calibrated(&batches).search(&graph)?;
/// println!("{found}");
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
///
/// # What it does
/// A quarter of the samples is held out: at least one if there are two, at most [`MAX_HELD_OUT`](Self::MAX_HELD_OUT). The
/// others are observed. Each of these steps is kept if the outputs on the held-out samples gain 0.1 dB of SQNR:
///
/// 1. [`simplify`](Graph::simplify), always.
/// 2. Ranges of activations. Plain minima and maxima are compared with every [`CalibrationMethod`], and with a choice of
///    the range of each tensor by the error behind the nodes that read it.
/// 3. [Equalization](Graph::equalize), after which the ranges are chosen again.
/// 4. [Coordinate descent](Graph::quantize_with_coordinate_descent) on the rounding of weights, with bias correction.
///
/// So on the held-out samples the network is never worse than plain quantization.
#[derive(Debug, Clone)]
pub struct FullInteger<'a> {
    batches: Vec<Sample<'a>>,
}

/// The network that [`FullInteger::search`] found, and what was tried. It prints as a table.
#[derive(Debug)]
#[non_exhaustive]
pub struct FullIntegerSearch {
    /// The quantized network.
    pub network: QuantizedNetwork,
    /// The float network that was quantized: simplified, and equalized if that helped. [`QuantizedNetwork::report`] takes
    /// it.
    pub float: Graph,
    /// The steps that were tried, in order.
    pub steps: Vec<FullIntegerStep>,
    /// SQNR of the outputs on the held-out samples, in decibels.
    pub held_out_sqnr_db: f64,
    /// The number of samples that were observed.
    pub observed: usize,
    /// The number of samples that were held out. If there is only one sample, it is observed and held out.
    pub held_out: usize,
}

/// A step of [`FullInteger::search`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FullIntegerStep {
    /// What was tried.
    pub name: String,
    /// SQNR of the outputs on the held-out samples, in decibels.
    pub held_out_sqnr_db: f64,
    /// Whether it was kept.
    pub kept: bool,
}

/// A step is kept if it gains this many decibels, so that chance decides little.
const MIN_GAIN_DB: f64 = 0.1;

/// The observed samples that errors behind nodes are measured on.
const PROBED: usize = 4;

impl<'a> FullInteger<'a> {
    /// The greatest number of samples that are held out.
    pub const MAX_HELD_OUT: usize = 32;

    /// Quantization by these batches, owned arrays or views, of a network of one input. Some tens of samples are typical.
    pub fn calibrated<D, B>(batches: &'a [B]) -> Self
    where
        D: Dimension + 'a,
        B: Deref<Target = ArrayRef<f32, D>>,
    {
        Self { batches: batches.iter().map(|batch| alloc::vec![batch.view().into_dyn()]).collect() }
    }

    /// Same as [`calibrated`](Self::calibrated), for a network of any number of inputs. A batch has all of them.
    pub fn calibrated_many(batches: Vec<Vec<ArrayViewD<'a, f32>>>) -> Self {
        Self { batches }
    }

    /// Quantizes the network and returns what was tried beside the network.
    ///
    /// # Errors
    /// [`Error::Value`] without samples, otherwise the same as [`Calibrator::observe`] and [`Graph::quantize`].
    pub fn search(&self, graph: &Graph) -> Result<FullIntegerSearch> {
        let graph = graph.clone().simplify()?;
        let float = graph.compile()?;
        let samples = split(&float, &self.batches)?;
        let (observed, held_out) = hold_out(&samples, Self::MAX_HELD_OUT);
        if observed.is_empty() {
            return Err(ValueError::EmptyCalibration.into());
        }
        let judge = Judge::new(&float, &held_out)?;
        let mut search = Search { observed, judge, best: None, steps: Vec::new() };

        let calibration = search.calibrate(&graph)?;
        let ranges = search.ranges("", &graph, &float, &calibration, None)?;
        let equalized = graph.equalize(&calibration)?;
        let mut best = (graph, calibration, ranges);
        if equalized != best.0 {
            let calibration = search.calibrate(&equalized)?;
            let float = equalized.compile()?;
            let before = search.best_db();
            let ranges = search.ranges("equalized: ", &equalized, &float, &calibration, Some(&best.2.0))?;
            if search.best_db() > before {
                best = (equalized, calibration, ranges);
            }
        }
        let (graph, calibration, (name, recipe)) = best;
        let network = graph.quantize_with_coordinate_descent(&recipe, &calibration)?;
        search.try_out(alloc::format!("{name}, coordinate descent"), network)?;

        let Search { best, steps, observed, judge } = search;
        let (held_out_sqnr_db, network) = best.expect("plain quantization is always tried");
        let (observed, held_out) = (observed.len(), judge.held_out.len());
        Ok(FullIntegerSearch { network, float: graph, steps, held_out_sqnr_db, observed, held_out })
    }
}

impl Quantization for FullInteger<'_> {
    fn quantize(&self, graph: &Graph) -> Result<QuantizedNetwork> {
        Ok(self.search(graph)?.network)
    }
}

/// The held-out samples with their exact outputs.
struct Judge<'s> {
    held_out: Vec<Sample<'s>>,
    expected: Vec<Vec<ArrayD<f32>>>,
}

impl<'s> Judge<'s> {
    fn new(float: &FloatNetwork, held_out: &[Sample<'s>]) -> Result<Self> {
        let mut arena = unlimited();
        let expected = held_out.iter().map(|sample| float.run_many(sample, &mut arena));
        Ok(Self { held_out: held_out.to_vec(), expected: expected.collect::<Result<_>>()? })
    }

    fn sqnr_db(&self, network: &QuantizedNetwork) -> Result<f64> {
        let (mut sums, mut arena) = (ErrorSums::default(), unlimited());
        for (sample, expected) in self.held_out.iter().zip(&self.expected) {
            let found = network.run_many(sample, &mut arena)?;
            add_errors(&mut sums, expected, &found);
        }
        Ok(sums.sqnr_db())
    }
}

fn unlimited() -> Arena {
    Arena::new().with_max_bytes(usize::MAX)
}

struct Search<'s> {
    observed: Vec<Sample<'s>>,
    judge: Judge<'s>,
    best: Option<(f64, QuantizedNetwork)>,
    steps: Vec<FullIntegerStep>,
}

impl Search<'_> {
    fn best_db(&self) -> f64 {
        self.best.as_ref().map_or(f64::NEG_INFINITY, |best| best.0)
    }

    /// Observes the samples that are not held out.
    fn calibrate(&self, graph: &Graph) -> Result<Calibration> {
        let mut calibrator = Calibrator::new(graph)?.with_second_moments();
        self.observed.iter().try_for_each(|sample| calibrator.observe_many(sample))?;
        Ok(calibrator.finish())
    }

    /// Keeps a network if it is better. Returns whether it is.
    fn try_out(&mut self, name: String, network: QuantizedNetwork) -> Result<bool> {
        let held_out_sqnr_db = self.judge.sqnr_db(&network)?;
        // NaN, of outputs that are all zero, is no gain.
        let kept = self.best.is_none() || held_out_sqnr_db > self.best_db() + MIN_GAIN_DB;
        if kept {
            self.best = Some((held_out_sqnr_db, network));
        }
        self.steps.push(FullIntegerStep { name, held_out_sqnr_db, kept });
        Ok(kept)
    }

    /// Tries the ranges of all methods and the choice by tensor. Returns the best, or those of `only`'s name.
    fn ranges(
        &mut self,
        prefix: &str,
        graph: &Graph,
        float: &FloatNetwork,
        calibration: &Calibration,
        only: Option<&str>,
    ) -> Result<(String, Recipe)> {
        let mut best = None;
        for (name, method) in METHODS {
            let skipped = only.is_some() && name != "MinMax";
            if !skipped {
                let recipe = calibration.recipe(graph, method)?;
                if self.try_out(alloc::format!("{prefix}{name}"), graph.quantize(&recipe)?)? || best.is_none() {
                    best = Some((alloc::format!("{prefix}{name}"), recipe));
                }
            }
        }
        let mut recipe = calibration.recipe(graph, CalibrationMethod::MinMax)?;
        let step = self.observed.len().div_ceil(PROBED);
        let probed: Vec<_> = self.observed.iter().step_by(step).cloned().collect();
        behind::choose_ranges(graph, float, calibration, &probed, &mut recipe)?;
        let name = alloc::format!("{prefix}by the error behind each tensor");
        if self.try_out(name.clone(), graph.quantize(&recipe)?)? || best.is_none() {
            best = Some((name, recipe));
        }
        Ok(best.expect("one was tried"))
    }
}

/// The methods that ranges are tried from.
const METHODS: [(&str, CalibrationMethod); 5] = [
    ("MinMax", CalibrationMethod::MinMax),
    ("Percentile 99.99", CalibrationMethod::Percentile(99.99)),
    ("Percentile 99.9", CalibrationMethod::Percentile(99.9)),
    ("Mse", CalibrationMethod::Mse),
    ("Entropy", CalibrationMethod::Entropy),
];

impl fmt::Display for FullIntegerSearch {
    /// A table with one step per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} samples observed, {} held out", self.observed, self.held_out)?;
        for FullIntegerStep { name, held_out_sqnr_db, kept } in &self.steps {
            writeln!(f, "{held_out_sqnr_db:8.2} dB  {}  {name}", if *kept { "kept   " } else { "dropped" })?;
        }
        Ok(())
    }
}
