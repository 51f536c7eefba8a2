//! Precision where it matters, under a budget.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::network::{Graph, Parts};
use super::plan::Arena;
use super::qnetwork::QuantizedNetwork;
use super::recipe::{Precision, Recipe, weights};
use crate::error::{Error, Result};

/// What a network may cost.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Budget {
    /// At most this many bytes, by [`QuantizedNetwork::size_in_bytes`].
    Bytes(usize),
    /// At least this ratio of signal to error of the outputs, in decibels.
    SqnrDb(f64),
}

impl Graph {
    /// Changes the precision of layers until the network keeps within a budget, as few and as harmless ones as
    /// possible. The outputs on `x`, a few images, tell what is harmless.
    ///
    /// - [`Budget::Bytes`]: weights of `Int8` become `Int4`, first those whose rounding alone adds the least error for
    ///   each byte that it saves.
    /// - [`Budget::SqnrDb`]: layers compute in floats, with weights in `f16` and an output that is not rounded to codes,
    ///   first those that alone improve the outputs most.
    ///
    /// A budget that the recipe keeps within already changes nothing.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// use ndarray_quant::graph::{Budget, GraphBuilder, Precision, Recipe};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 2])?;
    /// let x = g.linear("easy", &x, &array![[7.0, -3.0], [1.0, 7.0]], None)?; // exact in four bits
    /// let x = g.linear("hard", &x, &array![[0.9, 0.123]], None)?;
    /// let graph = g.build(&[&x])?;
    /// let recipe = Recipe::dynamic_range(&graph)?;
    /// let size = graph.quantize(&recipe)?.size_in_bytes();
    /// let x = Array2::from_shape_fn((8, 2), |(i, j)| (i + 5 * j) as f32);
    /// let smaller = graph.within_budget(&recipe, &x, Budget::Bytes(size - 1))?;
    /// assert_eq!(smaller.precision("easy.weight"), Precision::Int4);
    /// assert_eq!(smaller.precision("hard.weight"), Precision::Int8);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if no choice keeps within the budget, and those of [`Graph::quantize`] and
    /// [`QuantizedNetwork::run`].
    pub fn within_budget<D: Dimension>(&self, recipe: &Recipe, x: &ArrayRef<f32, D>, budget: Budget) -> Result<Recipe> {
        let x = [x.view().into_dyn()];
        let expected = self.compile()?.run_many(&x, &mut Arena::new().with_max_bytes(usize::MAX))?;
        let search = Search { graph: self, recipe, x: &x, expected: &expected };
        match budget {
            Budget::Bytes(limit) => search.smaller(limit),
            Budget::SqnrDb(target) => search.better(target),
        }
    }
}

struct Search<'a> {
    graph: &'a Graph,
    recipe: &'a Recipe,
    x: &'a [ArrayViewD<'a, f32>],
    expected: &'a [ArrayD<f32>],
}

impl Search<'_> {
    /// The names of weights, and of the outputs that their layers make.
    fn layers(&self) -> impl Iterator<Item = (&String, &String)> {
        let layers = weights(self.graph).filter(|(node, _)| !self.recipe.float_layers.contains(&node.name));
        layers.map(|(node, name)| (name, &node.output))
    }

    fn smaller(&self, limit: usize) -> Result<Recipe> {
        let mut recipe = self.recipe.clone();
        let mut size = self.graph.quantize(&recipe)?.size_in_bytes();
        if size <= limit {
            return Ok(recipe);
        }
        let mut choices = Vec::new();
        for (name, _) in self.layers().filter(|(name, _)| self.recipe.precision(name) == Precision::Int8) {
            let saved = self.graph.constant(name).map_or(0, |w| w.len() / 2);
            choices.push((self.error_of_rounding(name)? / saved.max(1) as f64, saved, name.clone()));
        }
        choices.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, saved, name) in choices {
            recipe.tensor_mut(&name)?.precision = Precision::Int4;
            size = size.saturating_sub(saved);
            if size <= limit {
                return Ok(recipe);
            }
        }
        let found = alloc::format!("{limit} bytes, where {size} are needed");
        Err(Error::Argument { what: "budget", expected: "one that four bits keep within", found })
    }

    /// The error of the outputs if these weights alone have four bits.
    fn error_of_rounding(&self, name: &str) -> Result<f64> {
        let mut alone = Recipe::default();
        let mut tensor = self.recipe.tensors[name].clone();
        tensor.precision = Precision::Int4;
        alone.tensors.insert(name.to_string(), tensor);
        let quantized = self.graph.quantize(&alone)?;
        let rounded = quantized.parts().stored.get(name).map(|stored| stored.dequantize());
        let mut parts: Parts = self.graph.clone().into_parts();
        parts.constants.extend(rounded.map(|rounded| (name.to_string(), rounded)));
        let mut arena = Arena::new().with_max_bytes(usize::MAX);
        let found = Graph::new(parts)?.compile()?.run_many(self.x, &mut arena)?;
        Ok(self.error(&found))
    }

    fn better(&self, target: f64) -> Result<Recipe> {
        let mut recipe = self.recipe.clone();
        let mut sqnr = self.sqnr(&self.graph.quantize(&recipe)?)?;
        if sqnr >= target {
            return Ok(recipe);
        }
        let mut choices = Vec::new();
        for (name, output) in self.layers() {
            let mut changed = self.recipe.clone();
            raise(&mut changed, name, output);
            choices.push((self.sqnr(&self.graph.quantize(&changed)?)?, name, output));
        }
        choices.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, name, output) in choices {
            raise(&mut recipe, name, output);
            sqnr = self.sqnr(&self.graph.quantize(&recipe)?)?;
            if sqnr >= target {
                return Ok(recipe);
            }
        }
        let found = alloc::format!("{target} dB, where {sqnr:.1} dB are possible");
        Err(Error::Argument { what: "budget", expected: "one that floats keep within", found })
    }

    fn sqnr(&self, network: &QuantizedNetwork) -> Result<f64> {
        let found = network.run_many(self.x, &mut Arena::new().with_max_bytes(usize::MAX))?;
        let signal: f64 = self.expected.iter().flatten().map(|&x| x as f64 * x as f64).sum();
        Ok(10.0 * num_traits::Float::log10(signal / self.error(&found)))
    }

    fn error(&self, found: &[ArrayD<f32>]) -> f64 {
        let pairs = self.expected.iter().flatten().zip(found.iter().flatten());
        pairs.map(|(&x, &y)| (x as f64 - y as f64) * (x as f64 - y as f64)).sum()
    }
}

/// Lets a layer compute in floats.
fn raise(recipe: &mut Recipe, weights: &str, output: &str) {
    for (name, precision) in [(weights, Precision::Float16), (output, Precision::Float32)] {
        if let Some(tensor) = recipe.tensors.get_mut(name) {
            tensor.precision = precision;
        }
    }
}
