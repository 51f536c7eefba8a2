//! Chooses the range of each activation by the error behind the nodes that read it.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::METHODS;
use crate::error::Result;
use crate::graph::calibrate::Calibration;
use crate::graph::code_roots::code_roots;
use crate::graph::collect::map_of;
use crate::graph::compile::FloatNetwork;
use crate::graph::network::Graph;
use crate::graph::plan::Probe;
use crate::graph::recipe::{Recipe, TensorRecipe};
use crate::graph::samples::{Sample, unlimited};
use crate::metrics::ErrorSums;
use crate::ops::kernel::{Kernel, Values, ValuesMut, resized};
use crate::ops::quantize::{FakeParams, FakeQuantize};

/// Factors of one bound, compared in the second round. What follows may ignore values beyond a bound, as hard swish
/// does below -3.
const FACTORS: [f32; 5] = [1.25, 0.8, 0.6, 0.4, 0.2];

/// A range is preferred to a wider one only if its error is less than this fraction of the other's.
const PREFERRED: f64 = 0.95;

/// Sets the ranges of activations of a recipe to those with the least error behind.
///
/// A tensor is rounded while all else is exact, and the relative squared errors of the outputs of its readers are added.
/// Tensors that share a range, because a node only moves values, have one choice.
pub(super) fn choose_ranges(
    graph: &Graph,
    float: &FloatNetwork,
    calibration: &Calibration,
    samples: &[Sample<'_>],
    recipe: &mut Recipe,
) -> Result<()> {
    let roots = map_of(code_roots(graph, recipe));
    let mut candidates = BTreeMap::<&str, Candidates>::new();
    for &root in roots.values() {
        if !candidates.contains_key(root) {
            let ranges = METHODS.iter().map(|method| method.range(calibration.observed(root)?));
            candidates.insert(root, Candidates::new(ranges.collect::<Result<_>>()?));
        }
    }
    for round in 0..2 {
        if round > 0 {
            for (root, candidates) in &mut candidates {
                let bounds = calibration.observed(root)?.bounds();
                candidates.refine(bounds.min(), bounds.max());
            }
        }
        let mut arena = unlimited();
        let mut scratch = (Vec::new(), Vec::new());
        for sample in samples {
            float.plan.run_probed(sample, &mut arena, &mut |probe| {
                let Some(node) = graph.node(&probe.step.node) else { return Ok(()) };
                if node.operator().keeps_range() {
                    return Ok(());
                }
                for i in 0..probe.inputs.len() {
                    let name = float.plan.tensors[probe.step.inputs[i]].name.as_str();
                    let candidates = roots.get(name).and_then(|root| candidates.get_mut(root));
                    if let Some(candidates) = candidates.filter(|c| c.ranges.len() > 1) {
                        candidates.measure((probe.step.output, i), i, probe, &mut scratch)?;
                    }
                }
                Ok(())
            })?;
        }
    }
    for (name, root) in &roots {
        if let (Some(candidates), Some(tensor)) = (candidates.get(root), recipe.tensors.get_mut(*name)) {
            tensor.ranges = alloc::vec![candidates.best()];
        }
    }
    Ok(())
}

/// The ranges to choose from for one tensor.
struct Candidates {
    /// The widest first.
    ranges: Vec<(f32, f32)>,
    /// By reader and input: the squares of the exact output, and the squared error with each range.
    errors: BTreeMap<(usize, usize), (f64, Vec<f64>)>,
}

impl Candidates {
    fn new(mut ranges: Vec<(f32, f32)>) -> Self {
        ranges.sort_by(|a, b| (b.1 - b.0).total_cmp(&(a.1 - a.0)));
        ranges.dedup();
        Self { ranges, errors: BTreeMap::new() }
    }

    /// Starts another round, with ranges around the best one. Values are within `min..=max`.
    fn refine(&mut self, min: f32, max: f32) {
        let (low, high) = self.best();
        let lows = FACTORS.iter().map(|&x| ((low * x).max(min), high));
        let highs = FACTORS.iter().map(|&x| (low, (high * x).min(max)));
        let ordered = lows.chain(highs).filter(|(low, high)| low <= high);
        *self = Self::new(ordered.chain([(low, high)]).collect());
    }

    /// Adds the errors of one input of a step.
    fn measure(
        &mut self,
        reader: (usize, usize),
        input: usize,
        probe: &mut Probe<'_>,
        (rounded, output): &mut (Vec<f32>, Vec<f32>),
    ) -> Result<()> {
        let (exact, expected) = (probe.inputs[input], probe.output.as_slice::<f32>());
        let rounded = resized(rounded, exact.as_slice::<f32>().len());
        let output = resized(output, expected.len());
        let len = self.ranges.len();
        let (signal, errors) = self.errors.entry(reader).or_insert_with(|| (0.0, alloc::vec![0.0; len]));
        let mut signals = 0.0;
        for (&(low, high), error) in self.ranges.iter().zip(errors) {
            let params = TensorRecipe::activation(low, high).activation_params()?;
            let fake = FakeQuantize { params: FakeParams::Static(Box::new(params)) };
            fake.run(1, &[exact], ValuesMut::F32(rounded), probe.scratch)?;
            let mut inputs: Vec<Values<'_>> = probe.inputs.to_vec();
            inputs[input] = Values::F32(rounded);
            probe.kernel.run(1, &inputs, ValuesMut::F32(output), probe.scratch)?;
            let mut sums = ErrorSums::default();
            sums.add_f32(expected, output);
            *error += sums.noise;
            signals = sums.signal;
        }
        *signal += signals;
        Ok(())
    }

    /// The range of the least error; the widest without errors.
    fn best(&self) -> (f32, f32) {
        let error = |i: usize| {
            let readers = self.errors.values().filter(|(signal, _)| *signal > 0.0);
            readers.map(|(signal, errors)| errors[i] / signal).sum::<f64>()
        };
        let mut best = (error(0), 0);
        for i in 1..self.ranges.len() {
            let error = error(i);
            if error < PREFERRED * best.0 {
                best = (error, i);
            }
        }
        self.ranges[best.1]
    }
}
