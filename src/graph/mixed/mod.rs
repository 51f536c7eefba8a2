//! Mixed precision: chooses the precision of each tensor under a budget.

mod raise;

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayRef, ArrayViewD, Dimension};

use crate::error::{Error, Result};
use crate::graph::network::{Graph, Parts};
#[cfg(doc)]
use crate::graph::qnetwork::QuantizedNetwork;
use crate::graph::recipe::{Precision, Recipe, read_as_non_weights, weights};
use crate::graph::samples::{add_errors, unlimited};
use crate::metrics::ErrorSums;
pub use raise::MixedPrecision;
pub(crate) use raise::activations_by_noise;

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

    /// Mixed precision by error: raises tensors to float until the outputs have a signal-to-quantization-noise ratio of at
    /// least `min_sqnr_db`, in decibels, on the samples `x`, and on a quarter of them that is held out from all choices.
    ///
    /// Any activation is raised from `Int8` to `Float32`, together with the weights of the layers that read it, and any
    /// weights to `Float16`. Each is rounded while all else is exact, on some of the samples, and those that add the most
    /// error to the outputs are raised first. A recipe that meets the ratio is returned as it is.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// use ndarray_quant::graph::{CalibrationMethod, GraphBuilder, Precision};
    /// let mut g = GraphBuilder::new();
    /// let x = g.input("x", &[1, 2])?;
    /// let x = g.linear("a", x, &array![[1.0, -0.5], [0.25, 1.0]], None)?;
    /// let x = g.relu("relu", x)?;
    /// let y = g.linear("y", x, &array![[0.9, 0.123]], None)?;
    /// let graph = g.build(&[y])?.simplify()?;
    /// let x = Array2::from_shape_fn((16, 2), |(i, j)| ((i * 2 + j) as f32).sin());
    /// let recipe = graph.calibrate([x.view()])?.recipe(&graph, CalibrationMethod::MinMax)?;
    ///
    /// let found = graph.mixed_precision_for_sqnr(&recipe, &x, 60.0)?;
    /// assert!(found.sqnr_db >= 60.0 && found.held_out_sqnr_db >= 60.0);
    /// println!("{found}");
    /// let network = graph.quantize(&found.recipe)?;
    /// # assert!(!found.raised.is_empty());
    /// # Ok::<(), ndarray_quant::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if the ratio is not met with all activations in `Float32` and all weights in `Float16`; it says
    /// what is reached. [`Error::Value`] without samples, otherwise the same as [`Graph::quantize`] and
    /// [`QuantizedNetwork::run`].
    pub fn mixed_precision_for_sqnr<D: Dimension>(
        &self,
        recipe: &Recipe,
        x: &ArrayRef<f32, D>,
        min_sqnr_db: f64,
    ) -> Result<MixedPrecision> {
        raise::for_sqnr(self, recipe, &[alloc::vec![x.view().into_dyn()]], min_sqnr_db)
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
        let expected = graph.compile()?.run_many(x, &mut unlimited())?;
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
        let mut arena = unlimited();
        let found = Graph::new(parts)?.compile()?.run_many(self.x, &mut arena)?;
        let mut sums = ErrorSums::default();
        add_errors(&mut sums, &self.expected, &found);
        Ok(sums.noise)
    }
}
