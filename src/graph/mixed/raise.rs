//! Mixed precision by error: which tensors are raised to float.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result, ValueError};
use crate::graph::code_roots::code_roots;
use crate::graph::compile::Planner;
use crate::graph::network::Graph;
use crate::graph::plan::{Plan, Ports};
use crate::graph::qnetwork::QuantizedNetwork;
use crate::graph::recipe::{Precision, Recipe, weights, weights_of};
use crate::graph::samples::{Judge, Sample, add_errors, hold_out, split, unlimited};
use crate::metrics::ErrorSums;
use crate::ops::float_weights::Weights;
use crate::ops::kernel::{Kernel, Kind, Scratch, Values, ValuesMut};
use crate::ops::quantize::{FakeParams, FakeQuantize};

/// A recipe of mixed precision, and what it reaches. Made by [`Graph::mixed_precision_for_sqnr`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MixedPrecision {
    /// The recipe.
    pub recipe: Recipe,
    /// SQNR of the outputs on the samples that tensors were chosen by, in decibels.
    pub sqnr_db: f64,
    /// SQNR of the outputs on the held-out samples, in decibels.
    pub held_out_sqnr_db: f64,
    /// The number of held-out samples. If there is only one sample, it is both chosen by and held out.
    pub held_out: usize,
    /// The activations and weights that were raised, the one that added the most error first.
    pub raised: Vec<String>,
}

impl fmt::Display for MixedPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sqnr_db, held_out_sqnr_db, held_out, raised, .. } = self;
        write!(f, "{sqnr_db:.1} dB, on {held_out} held-out samples {held_out_sqnr_db:.1} dB; ")?;
        if raised.is_empty() {
            return write!(f, "nothing was raised to float");
        }
        write!(f, "raised to float: {}", raised.join(", "))
    }
}

/// The greatest number of samples that are held out.
const MAX_HELD_OUT: usize = 32;

/// About the number of runs of the network that the errors of single tensors are measured by.
const RUNS: usize = 512;

/// Raises tensors until `target` is reached on the samples, held out or not.
pub(super) fn for_sqnr(graph: &Graph, recipe: &Recipe, batches: &[Sample<'_>], target: f64) -> Result<MixedPrecision> {
    let float = graph.compile()?;
    let (chosen_by, held_out) = hold_out(&split(&float, batches)?, MAX_HELD_OUT);
    if chosen_by.is_empty() {
        return Err(ValueError::EmptyCalibration.into());
    }
    let judges = [Judge::new(&float, &chosen_by)?, Judge::new(&float, &held_out)?];
    let measured = |units: &[Unit]| -> Result<MixedPrecision> {
        let mut recipe = recipe.clone();
        units.iter().for_each(|unit| unit.raise(graph, &mut recipe));
        let network = graph.quantize(&recipe)?;
        let [sqnr_db, held_out_sqnr_db] = [judges[0].sqnr_db(&network)?, judges[1].sqnr_db(&network)?];
        let raised = units.iter().map(|unit| unit.name.clone()).collect();
        Ok(MixedPrecision { recipe, sqnr_db, held_out_sqnr_db, held_out: held_out.len(), raised })
    };
    let is_reached = |found: &MixedPrecision| found.sqnr_db >= target && found.held_out_sqnr_db >= target;

    let found = measured(&[])?;
    if is_reached(&found) {
        return Ok(found);
    }
    let mut units = Unit::all(graph, recipe);
    let mut best = measured(&units)?;
    if !is_reached(&best) {
        let expected = "an SQNR that activations in Float32 and weights in Float16 reach";
        let found = alloc::format!(
            "{target} dB; they reach {:.1} dB, and {:.1} dB on {} held-out samples",
            best.sqnr_db,
            best.held_out_sqnr_db,
            best.held_out,
        );
        return Err(Error::Argument { what: "least SQNR", expected, found });
    }
    sort_by_noise(graph, recipe, &judges[0], &mut units)?;
    // Bisection: `enough` units reach the target.
    let (mut too_few, mut enough) = (0, units.len());
    while enough - too_few > 1 {
        let middle = usize::midpoint(too_few, enough);
        let found = measured(&units[..middle])?;
        if is_reached(&found) {
            (enough, best) = (middle, found);
        } else {
            too_few = middle;
        }
    }
    best.raised.truncate(enough);
    if enough == units.len() {
        best.raised = units.into_iter().map(|unit| unit.name).collect();
    }
    Ok(best)
}

/// The activations of a recipe that are codes, the one that adds the most error to the outputs first. Each with all tensors
/// that have its codes.
pub(crate) fn activations_by_noise(graph: &Graph, recipe: &Recipe, judge: &Judge<'_>) -> Result<Vec<Vec<String>>> {
    let mut units = Unit::all(graph, recipe);
    units.retain(|unit| !unit.weights);
    sort_by_noise(graph, recipe, judge, &mut units)?;
    Ok(units.into_iter().map(|unit| unit.tensors).collect())
}

/// A unit of the search: an activation with all tensors that have its codes, or weights.
struct Unit {
    name: String,
    tensors: Vec<String>,
    weights: bool,
}

impl Unit {
    /// The activations and weights that are codes.
    fn all(graph: &Graph, recipe: &Recipe) -> Vec<Self> {
        let mut units = Vec::<Self>::new();
        let mut unit_of = BTreeMap::<&str, usize>::new();
        for (name, root) in code_roots(graph, recipe) {
            let unit = *unit_of.entry(root).or_insert(units.len());
            if unit == units.len() {
                units.push(Self { name: name.into(), tensors: Vec::new(), weights: false });
            }
            units[unit].tensors.push(name.into());
        }
        let mut seen = BTreeSet::new();
        for (node, name) in weights(graph) {
            let stays_float = recipe.float_layers.contains(&node.output) || !recipe.precision(name).is_code();
            if !stays_float && seen.insert(name) {
                units.push(Self { name: name.clone(), tensors: alloc::vec![name.clone()], weights: true });
            }
        }
        units
    }

    /// Raises the tensors in a recipe, and the weights of layers that read them.
    fn raise(&self, graph: &Graph, recipe: &mut Recipe) {
        if self.weights {
            raise_weights(graph, &self.name, recipe);
            return;
        }
        for name in &self.tensors {
            if let Some(tensor) = recipe.tensors.get_mut(name) {
                tensor.precision = Precision::Float32;
            }
        }
        for (_, name) in weights(graph).filter(|(node, _)| self.tensors.contains(&node.inputs[0])) {
            raise_weights(graph, name, recipe);
        }
    }
}

/// Raises weights to half precision, or further if it does not hold them.
fn raise_weights(graph: &Graph, name: &str, recipe: &mut Recipe) {
    const MAX_F16: f32 = 65504.0;
    let fits = graph.constant(name).is_some_and(|w| w.iter().all(|w| w.abs() <= MAX_F16));
    if let Some(tensor) = recipe.tensors.get_mut(name).filter(|tensor| tensor.precision.is_code()) {
        tensor.precision = if fits { Precision::Float16 } else { Precision::Float32 };
    }
}

/// Sorts units by the error of the outputs if all else is exact, the largest first.
fn sort_by_noise(graph: &Graph, recipe: &Recipe, judge: &Judge<'_>, units: &mut Vec<Unit>) -> Result<()> {
    let network = graph.quantize(recipe)?;
    let switched = Switched::new(graph, &network, units)?;
    let count = (RUNS / units.len().max(1)).clamp(1, judge.samples.len());
    let mut arena = unlimited();
    let mut noise = Vec::with_capacity(units.len());
    for switch in &switched.switches {
        switch.store(true, Ordering::Relaxed);
        let mut sums = ErrorSums::default();
        for (sample, expected) in judge.samples.iter().zip(&judge.expected).take(count) {
            add_errors(&mut sums, expected, &switched.plan.run::<f32, f32>(sample, &mut arena)?);
        }
        switch.store(false, Ordering::Relaxed);
        noise.push(sums.noise);
    }
    let mut sorted: Vec<_> = core::mem::take(units).into_iter().zip(noise).collect();
    sorted.sort_by(|a, b| b.1.total_cmp(&a.1));
    units.extend(sorted.into_iter().map(|(unit, _)| unit));
    Ok(())
}

/// A network in floats. For each unit a switch rounds its tensors.
struct Switched {
    plan: Plan,
    switches: Vec<Arc<AtomicBool>>,
}

impl Switched {
    fn new(float: &Graph, network: &QuantizedNetwork, units: &[Unit]) -> Result<Self> {
        let parts = network.parts();
        let switches: Vec<Arc<AtomicBool>> = units.iter().map(|_| Arc::new(AtomicBool::new(false))).collect();
        let mut by_name = BTreeMap::new();
        for (unit, switch) in units.iter().zip(&switches) {
            by_name.extend(unit.tensors.iter().map(|name| (name.as_str(), switch)));
        }
        let mut planner = Planner::new(float);
        let floats = float.inputs().map(|name| planner.define(name, Kind::F32)).collect();
        let round = |planner: &mut Planner<'_>, name: &str| {
            if let (Some(&switch), Some(params)) = (by_name.get(name), network.activation(name)) {
                let on: Box<dyn Kernel> = Box::new(FakeQuantize { params: FakeParams::Static(Box::new(params)) });
                let exact = planner.f32_tensor(name);
                let rounded = planner.define(name, Kind::F32);
                let kernel = Switch { rounds: switch.clone(), on, off: None };
                planner.step(name, Some(Box::new(kernel)), alloc::vec![exact], rounded);
            }
        };
        float.inputs().for_each(|name| round(&mut planner, name));
        for node in float.nodes() {
            let exact = |name: &str| float.shared_constant(name).cloned().map(Weights::F32);
            let (mut kernel, inputs) = planner.float_kernel(node, exact);
            let switch = weights_of(node).and_then(|name| Some((name, *by_name.get(name.as_str())?)));
            if let (Some((name, switch)), Some(off)) = (switch, kernel.take_if(|_| switch.is_some())) {
                let rounded = |constant: &str| match parts.stored.get(constant).filter(|_| constant == name) {
                    Some(stored) => Some(Weights::F32(stored.dequantize())),
                    None => exact(constant),
                };
                let on = planner.float_kernel(node, rounded).0.expect("a layer has a kernel");
                kernel = Some(Box::new(Switch { rounds: switch.clone(), on, off: Some(off) }));
            }
            let output = planner.define(&node.output, Kind::F32);
            planner.step(&node.output, kernel, inputs, output);
            round(&mut planner, &node.output);
        }
        let outputs = float.outputs().iter();
        let outputs = outputs.map(|name| planner.output(name, |name| float.shared_constant(name).cloned())).collect();
        let ports = |floats| Ports { floats, codes: Vec::new() };
        Ok(Self { plan: planner.finish(ports(floats), ports(outputs)), switches })
    }
}

/// One of two kernels. Without the second one, it copies.
#[derive(Debug)]
struct Switch {
    rounds: Arc<AtomicBool>,
    on: Box<dyn Kernel>,
    off: Option<Box<dyn Kernel>>,
}

impl Kernel for Switch {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        match &self.off {
            _ if self.rounds.load(Ordering::Relaxed) => self.on.run(images, inputs, output, scratch),
            Some(off) => off.run(images, inputs, output, scratch),
            None => {
                output.into_slice::<f32>().copy_from_slice(inputs[0].as_slice());
                Ok(())
            }
        }
    }
}
