//! The whole trip to a full-integer network, with defaults that are accepted only if they help.

mod behind;
mod refine;

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use ndarray::{ArrayRef, ArrayViewD, Dimension};

use super::calibrate::{Calibration, CalibrationMethod, Calibrator};
use super::compile::FloatNetwork;
use super::network::Graph;
use super::qnetwork::QuantizedNetwork;
use super::quantize::Quantization;
use super::recipe::Recipe;
use super::samples::{Judge, Quality, Sample, hold_out, split};
use super::weight_rounding::WeightRounding;
#[cfg(doc)]
use crate::error::Error;
use crate::error::{Result, ValueError};
use crate::ptq::CoordinateDescent;

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
/// A quarter of the samples is held out: at least one if there are two, at most [`MAX_HELD_OUT`](Self::MAX_HELD_OUT).
/// Histograms are of all samples; choices and the rounding of weights are by the others. The network is
/// [simplified](Graph::simplify), and plain quantization by minima and maxima is the start. Each of these steps is kept if the
/// outputs gain 0.1 dB of SQNR, and the mean of the SQNR of each sample gains more than twice its standard error. Steps that
/// choose one of a few networks are judged on all samples, because chance decides less the more there are; a choice for each
/// tensor, refined ranges and the rounding of weights, which fit the samples that they are made by, on the held-out ones. Where
/// `Softmax` or another function that saturates computes an output, its input is compared, because a few samples near a decision
/// would decide otherwise.
///
/// 1. Correction of biases by the mean error that rounding the weights causes.
/// 2. Ranges of activations by each [`CalibrationMethod`], and by a choice for each tensor: the range with the least error
///    behind the nodes that read it.
/// 3. [Equalization](Graph::equalize), after which the ranges are chosen again.
/// 4. Wider and narrower ranges of the activations that add the most error, by the error of the outputs.
/// 5. [Coordinate descent](CoordinateDescent) on the rounding of weights.
///
/// So on the samples that judge, as they are compared, the network is never worse than plain quantization. Samples that differ
/// from all of them may be.
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
    /// The same of plain quantization, by minima and maxima.
    pub plain_sqnr_db: f64,
    /// The number of samples that choices were made by.
    pub observed: usize,
    /// The number of samples that were held out. If there is only one sample, it is both.
    pub held_out: usize,
}

/// A step of [`FullInteger::search`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FullIntegerStep {
    /// The name.
    pub name: String,
    /// SQNR on the held-out samples, in decibels. Where a function that saturates computes an output, such as `Softmax`, it
    /// is of its input.
    pub held_out_sqnr_db: f64,
    /// `true` if it was kept.
    pub kept: bool,
}

/// A step is kept if it gains this many decibels, so that chance decides little.
const MIN_GAIN_DB: f64 = 0.1;

/// The observed samples that ranges are chosen on.
const PROBED: usize = 8;

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
        let plain = Chosen::plain(graph, &observed, &held_out)?;
        let all = if samples.len() < 2 { held_out.clone() } else { [&*held_out, &*observed].concat() };
        let judge = Judge::new(&plain.judged.compile()?, &all)?;
        let mut search =
            Search { observed, held_out: held_out.len(), judge, corrects: false, best: None, steps: Vec::new() };

        let mut chosen = plain.clone();
        search.try_out("MinMax", &chosen, WeightRounding::Nearest, JudgedBy::All)?;
        search.corrects = true;
        search.corrects = search.try_out("bias correction", &chosen, WeightRounding::Nearest, JudgedBy::All)?;
        search.choose_ranges("", &float, &mut chosen, &METHODS[1..])?;
        let equalized = chosen.graph.equalize(&chosen.ranges)?;
        if equalized != chosen.graph {
            let float = equalized.compile()?;
            let mut other = Chosen::plain(equalized, &search.observed, &held_out)?;
            if search.choose_ranges("equalized, ", &float, &mut other, &METHODS[..1])? {
                chosen = other;
            }
        }
        // On samples that do not judge.
        let refined_by = Judge::new(&chosen.judged.compile()?, &search.probed())?;
        let refined = refine::refine(&chosen, search.corrects, &refined_by)?;
        search.try_ranges("refined", refined, &mut chosen, JudgedBy::HeldOut)?;
        let descent = WeightRounding::from(CoordinateDescent::new());
        let descends = search.try_out("coordinate descent", &chosen, descent, JudgedBy::HeldOut)?;
        let rounding = if descends { descent } else { WeightRounding::Nearest };

        let judge = Judge::new(&float, &held_out)?;
        let network = chosen.quantize(&chosen.graph, rounding, search.corrects || descends)?;
        let held_out_sqnr_db = judge.sqnr_db(&network)?;
        let plain_sqnr_db = judge.sqnr_db(&plain.quantize(&plain.graph, WeightRounding::Nearest, false)?)?;
        let Search { steps, observed, .. } = search;
        Ok(FullIntegerSearch {
            network,
            float: chosen.graph,
            steps,
            plain_sqnr_db,
            held_out_sqnr_db,
            observed: observed.len(),
            held_out: held_out.len(),
        })
    }
}

/// The graph whose outputs are the inputs of functions that saturate, where these compute the outputs.
fn before_saturation(graph: &Graph) -> Result<Graph> {
    let mut parts = graph.clone().into_parts();
    for output in &mut parts.outputs {
        let mut at = graph.node(output);
        while let Some(node) = at.filter(|node| node.operator().keeps_range()) {
            at = graph.node(&node.inputs[0]);
        }
        if let Some(node) = at.filter(|node| node.operator().saturates()) {
            output.clone_from(&node.inputs[0]);
        }
    }
    Graph::new(parts)
}

impl Quantization for FullInteger<'_> {
    fn quantize(&self, graph: &Graph) -> Result<QuantizedNetwork> {
        Ok(self.search(graph)?.network)
    }
}

/// A graph with its calibration, and the ranges chosen up to now.
#[derive(Clone)]
struct Chosen {
    graph: Graph,
    /// See [`before_saturation`].
    judged: Graph,
    /// Of all samples, without second moments.
    ranges: Calibration,
    /// Of the samples that are not held out.
    moments: Calibration,
    recipe: Recipe,
}

impl Chosen {
    fn plain(graph: Graph, observed: &[Sample<'_>], held_out: &[Sample<'_>]) -> Result<Self> {
        let mut calibrator = Calibrator::new(&graph)?.with_second_moments();
        observed.iter().try_for_each(|sample| calibrator.observe_many(sample))?;
        let moments = calibrator.finish();
        let mut calibrator = Calibrator::new(&graph)?;
        held_out.iter().try_for_each(|sample| calibrator.observe_many(sample))?;
        let mut ranges = moments.without_moments();
        ranges.merge(calibrator.calibration())?;
        let recipe = ranges.recipe(&graph, CalibrationMethod::MinMax)?;
        Ok(Self { judged: before_saturation(&graph)?, graph, ranges, moments, recipe })
    }

    /// Quantizes one of the two graphs.
    fn quantize(&self, graph: &Graph, rounding: WeightRounding, corrects: bool) -> Result<QuantizedNetwork> {
        graph.quantize_with(&self.recipe, corrects.then_some(&self.moments), rounding)
    }
}

/// The samples that a step is judged by.
enum JudgedBy {
    /// For a choice between a few networks: the more samples, the less chance decides.
    All,
    /// For many choices, which fit the samples that they are made by.
    HeldOut,
}

struct Search<'s> {
    observed: Vec<Sample<'s>>,
    /// The number of samples that are held out.
    held_out: usize,
    /// Of all samples. Those held out come first.
    judge: Judge<'s>,
    /// Biases are corrected.
    corrects: bool,
    best: Option<Quality>,
    steps: Vec<FullIntegerStep>,
}

impl<'s> Search<'s> {
    /// Some of the observed samples.
    fn probed(&self) -> Vec<Sample<'s>> {
        self.observed.iter().step_by(self.observed.len().div_ceil(PROBED)).cloned().collect()
    }

    /// Returns whether a network is better than all before it.
    fn try_out(&mut self, name: &str, chosen: &Chosen, rounding: WeightRounding, by: JudgedBy) -> Result<bool> {
        let corrects = self.corrects || rounding.needs_moments();
        let quality = self.judge.quality(&chosen.quantize(&chosen.judged, rounding, corrects)?)?;
        let samples = match by {
            JudgedBy::All => 0..self.judge.samples.len(),
            JudgedBy::HeldOut => 0..self.held_out,
        };
        let held_out_sqnr_db = quality.sqnr_db(..self.held_out);
        let kept = self.best.as_ref().is_none_or(|best| quality.exceeds(best, samples, MIN_GAIN_DB));
        if kept {
            self.best = Some(quality);
        }
        self.steps.push(FullIntegerStep { name: name.into(), held_out_sqnr_db, kept });
        Ok(kept)
    }

    /// Tries a recipe, and chooses it if it is better. Returns whether it is.
    fn try_ranges(&mut self, name: &str, recipe: Recipe, chosen: &mut Chosen, by: JudgedBy) -> Result<bool> {
        let before = core::mem::replace(&mut chosen.recipe, recipe);
        let kept = self.try_out(name, chosen, WeightRounding::Nearest, by)?;
        if !kept {
            chosen.recipe = before;
        }
        Ok(kept)
    }

    /// Tries the ranges of the methods, and of the choice by tensor. Returns whether one of them is better.
    fn choose_ranges(
        &mut self,
        prefix: &str,
        float: &FloatNetwork,
        chosen: &mut Chosen,
        methods: &[CalibrationMethod],
    ) -> Result<bool> {
        let mut kept = false;
        for &method in methods {
            let recipe = chosen.ranges.recipe(&chosen.graph, method)?;
            kept |= self.try_ranges(&alloc::format!("{prefix}{method}"), recipe, chosen, JudgedBy::All)?;
        }
        let mut recipe = chosen.ranges.recipe(&chosen.graph, CalibrationMethod::MinMax)?;
        behind::choose_ranges(&chosen.graph, float, &chosen.ranges, &self.probed(), &mut recipe)?;
        kept |= self.try_ranges(
            &alloc::format!("{prefix}by the error behind each tensor"),
            recipe,
            chosen,
            JudgedBy::HeldOut,
        )?;
        Ok(kept)
    }
}

/// The methods whose ranges are tried.
const METHODS: [CalibrationMethod; 6] = [
    CalibrationMethod::MinMax,
    CalibrationMethod::Percentile(99.999),
    CalibrationMethod::Percentile(99.99),
    CalibrationMethod::Percentile(99.9),
    CalibrationMethod::Mse,
    CalibrationMethod::Entropy,
];

impl fmt::Display for FullIntegerSearch {
    /// A table with one step per line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { observed, held_out, held_out_sqnr_db, plain_sqnr_db, .. } = self;
        writeln!(
            f,
            "{observed} samples observed, {held_out} held out: {held_out_sqnr_db:.2} dB, plain {plain_sqnr_db:.2} dB"
        )?;
        for FullIntegerStep { name, held_out_sqnr_db, kept } in &self.steps {
            writeln!(f, "{held_out_sqnr_db:8.2} dB  {}  {name}", if *kept { "kept   " } else { "dropped" })?;
        }
        Ok(())
    }
}
