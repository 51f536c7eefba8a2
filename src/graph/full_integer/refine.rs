//! Refines the ranges of the activations that add the most error, by the error of the network's outputs.

use alloc::string::String;
use alloc::vec::Vec;

use super::Chosen;
use crate::error::Result;
use crate::graph::mixed::activations_by_noise;
use crate::graph::recipe::Recipe;
use crate::graph::samples::Judge;
use crate::graph::weight_rounding::WeightRounding;

/// The activations that are refined.
const REFINED: usize = 24;

/// The networks that are compared.
const TRIALS: usize = 96;

/// Factors of the lower and of the upper bound. The first that helps is tried again.
const STEPS: [(f32, f32); 4] = [(1.0, 0.8), (0.8, 1.0), (0.8, 0.8), (1.3, 1.3)];

/// A change is kept if it gains this many decibels.
const MIN_GAIN_DB: f64 = 0.02;

/// Returns the recipe with changed ranges, one activation after the other, while the outputs of the network gain SQNR on
/// the samples of the judge.
pub(super) fn refine(chosen: &Chosen, corrects: bool, judge: &Judge<'_>) -> Result<Recipe> {
    let Chosen { judged: graph, ranges, moments, recipe, .. } = chosen;
    let by = corrects.then_some(moments);
    let sqnr_db = |recipe: &Recipe| judge.sqnr_db(&graph.quantize_with(recipe, by, WeightRounding::Nearest)?);
    let mut recipe = recipe.clone();
    let mut best = sqnr_db(&recipe)?;
    let mut trials = 0;
    for tensors in activations_by_noise(graph, &recipe, judge)?.into_iter().take(REFINED) {
        let bounds = ranges.observed(&tensors[0])?.bounds();
        for (low, high) in STEPS {
            while trials < TRIALS {
                let Some(&(min, max)) = recipe.tensors[&tensors[0]].ranges.first() else { break };
                let range = ((min * low).max(bounds.min()), (max * high).min(bounds.max()));
                if range.0 > range.1 || range == (min, max) {
                    break;
                }
                let mut changed = recipe.clone();
                set_range(&mut changed, &tensors, range);
                let found = sqnr_db(&changed)?;
                trials += 1;
                if found <= best + MIN_GAIN_DB {
                    break;
                }
                (best, recipe) = (found, changed);
            }
        }
    }
    Ok(recipe)
}

/// Gives tensors that share their codes another range.
fn set_range(recipe: &mut Recipe, tensors: &[String], range: (f32, f32)) {
    for name in tensors {
        if let Some(tensor) = recipe.tensors.get_mut(name) {
            tensor.ranges = Vec::from([range]);
        }
    }
}
