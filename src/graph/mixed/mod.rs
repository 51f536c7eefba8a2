//! Mixed precision: chooses the precision of each layer under a budget.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::network::{Graph, Parts};
use super::plan::Arena;
use super::qnetwork::QuantizedNetwork;
use super::recipe::{Precision, Recipe, read_as_non_weights, weights};
use crate::error::{Error, Result};
use crate::metrics::ErrorSums;

impl Graph {
    /// Mixed precision by size: changes weights from `Int8` to `Int4` until all weights take at most `max_bytes`, as
    /// [`QuantizedNetwork::weights_size_in_bytes`] counts them, and returns the new recipe. Layers change in the order of
    /// the error that they add per byte saved, measured on the outputs for the samples `x`.
    ///
    /// A recipe that meets the limit is returned as it is. Each layer costs one run of the network.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// use ndarray_quant::graph::{GraphBuilder, Precision, Recipe};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 2])?;
    /// let x = g.linear("easy", x, &array![[7.0, -3.0], [1.0, 7.0]], None)?; // exact in 4 bits
    /// let y = g.linear("hard", x, &array![[0.9, 0.123]], None)?;
    /// let graph = g.build(&[y])?;
    /// let recipe = Recipe::dynamic_range(&graph)?;
    /// let size = graph.quantize(&recipe)?.weights_size_in_bytes();
    /// let x = Array2::from_shape_fn((8, 2), |(i, j)| (i + 5 * j) as f32);
    /// let smaller = graph.mixed_precision_within_bytes(&recipe, &x, size - 1)?;
    /// assert_eq!(smaller.precision("easy.weight"), Precision::Int4);
    /// assert_eq!(smaller.precision("hard.weight"), Precision::Int8);
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if 4-bit weights are still larger than `max_bytes`, otherwise the same as
    /// [`Graph::quantize`] and [`QuantizedNetwork::run`].
    pub fn mixed_precision_within_bytes<D: Dimension>(
        &self,
        recipe: &Recipe,
        x: &ArrayRef<f32, D>,
        max_bytes: usize,
    ) -> Result<Recipe> {
        let x = [x.view().into_dyn()];
        Search::new(self, recipe, &x)?.reduce_size(max_bytes)
    }

    /// Mixed precision by error: lets layers compute in float, with `Float16` weights and an output that is not rounded to
    /// codes, until the outputs for the samples `x` have a signal-to-quantization-noise ratio of at least `min_sqnr_db`,
    /// in decibels, and returns the new recipe. The layers that improve the outputs most change first.
    ///
    /// A recipe that meets the ratio is returned as it is. Each layer costs up to two quantizations and two runs.
    ///
    /// # Errors
    /// [`Error::Argument`] if float layers do not reach `min_sqnr_db`, otherwise the same as [`Graph::quantize`] and
    /// [`QuantizedNetwork::run`].
    pub fn mixed_precision_for_sqnr<D: Dimension>(
        &self,
        recipe: &Recipe,
        x: &ArrayRef<f32, D>,
        min_sqnr_db: f64,
    ) -> Result<Recipe> {
        let x = [x.view().into_dyn()];
        Search::new(self, recipe, &x)?.reduce_error(min_sqnr_db)
    }
}

struct Search<'a> {
    graph: &'a Graph,
    recipe: &'a Recipe,
    x: &'a [ArrayViewD<'a, f32>],
    expected: Vec<ArrayD<f32>>,
}

impl<'a> Search<'a> {
    fn new(graph: &'a Graph, recipe: &'a Recipe, x: &'a [ArrayViewD<'a, f32>]) -> Result<Self> {
        let expected = graph.compile()?.run_many(x, &mut Arena::new().with_max_bytes(usize::MAX))?;
        Ok(Self { graph, recipe, x, expected })
    }

    /// The layers that do not stay in float: the names of their weights and of their outputs.
    fn layers(&self) -> impl Iterator<Item = (&String, &String)> {
        let layers = weights(self.graph).filter(|(node, _)| !self.recipe.float_layers.contains(&node.output));
        layers.map(|(node, name)| (name, &node.output))
    }

    fn reduce_size(&self, limit: usize) -> Result<Recipe> {
        let mut recipe = self.recipe.clone();
        let mut size = self.graph.quantize(&recipe)?.weights_size_in_bytes();
        if size <= limit {
            return Ok(recipe);
        }
        // Weights that something other than a layer reads too stay in f32; weights of several layers count once.
        let fixed = read_as_non_weights(self.graph);
        let mut counted = BTreeSet::new();
        let mut choices = Vec::new();
        for (name, _) in self.layers() {
            let fixed = self.recipe.precision(name) != Precision::Int8 || fixed.contains(name.as_str());
            if fixed || !counted.insert(name) {
                continue;
            }
            let saved = self.graph.constant(name).map_or(0, |w| w.len() / 2);
            choices.push((self.noise_of_int4(name)? / saved.max(1) as f64, saved, name));
        }
        choices.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, saved, name) in choices {
            recipe.tensor_mut(name)?.precision = Precision::Int4;
            size = size.saturating_sub(saved);
            if size <= limit {
                return Ok(recipe);
            }
        }
        let found = alloc::format!("{limit} bytes; with all weights in 4 bits, {size} bytes are needed");
        Err(Error::Argument { what: "greatest size", expected: "a size that 4-bit weights can reach", found })
    }

    /// The squared error of the outputs if only these weights have 4 bits.
    fn noise_of_int4(&self, name: &str) -> Result<f64> {
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
        Ok(self.errors(&found).noise)
    }

    fn reduce_error(&self, target: f64) -> Result<Recipe> {
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
        let found = alloc::format!("{target} dB; with all layers in float, {sqnr:.1} dB are reached");
        Err(Error::Argument { what: "least SQNR", expected: "an SQNR that float layers can reach", found })
    }

    fn sqnr(&self, network: &QuantizedNetwork) -> Result<f64> {
        let found = network.run_many(self.x, &mut Arena::new().with_max_bytes(usize::MAX))?;
        Ok(self.errors(&found).sqnr_db())
    }

    /// The error sums of all outputs.
    fn errors(&self, found: &[ArrayD<f32>]) -> ErrorSums {
        let mut sums = ErrorSums::default();
        let values = |&x: &f32| f64::from(x);
        sums.add(self.expected.iter().flatten().map(values), found.iter().flatten().map(values));
        sums
    }
}

/// Lets a layer compute in float.
fn raise(recipe: &mut Recipe, weights: &str, output: &str) {
    for (name, precision) in [(weights, Precision::Float16), (output, Precision::Float32)] {
        if let Some(tensor) = recipe.tensors.get_mut(name) {
            tensor.precision = precision;
        }
    }
}
