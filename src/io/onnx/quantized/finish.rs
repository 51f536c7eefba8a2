//! The recipe of the whole graph: parameters of tensors between those that have some in the file, and the nodes that the
//! file computes in float.

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::{FileQuantization, same_params};
use crate::error::Result;
use crate::graph::{Graph, Node, Recipe, TensorRecipe};

impl FileQuantization {
    /// Completes the recipe for a graph, whose clamps it fuses.
    pub(in crate::io::onnx) fn finish(mut self, graph: Graph) -> Result<(Graph, Recipe)> {
        let graph = graph.simplify_around(|name| self.recipe.tensors.contains_key(name))?;
        for node in graph.nodes() {
            self.forward(node, &graph);
        }
        let reads = graph.reads();
        for node in graph.nodes().iter().rev() {
            self.backward(node, &graph, &reads);
        }
        for node in graph.nodes() {
            self.layer(node, &graph);
        }
        let Self { mut recipe, .. } = self;
        recipe.tensors.retain(|name, _| graph.shape(name).is_some());
        Ok((graph, recipe))
    }

    fn of(&self, name: &str) -> Option<&TensorRecipe> {
        self.recipe.tensors.get(name)
    }

    /// The output of a node that only moves codes has the parameters of the input.
    fn forward(&mut self, node: &Node, graph: &Graph) {
        let joins = node.operator().keeps_range() || node.operator().name() == "Concat";
        let constant = node.inputs.iter().any(|name| graph.is_constant(name));
        let Some(params) = self.of(&node.inputs[0]).filter(|_| joins && !constant).cloned() else { return };
        let same = |name: &String| self.of(name).is_some_and(|found| same_params(found, &params));
        if self.of(&node.output).is_none() && node.inputs.iter().all(same) {
            self.recipe.tensors.insert(node.output.clone(), params);
        }
    }

    /// The input of a node that only moves values, and that nothing else reads, may be quantized before or after it.
    fn backward(&mut self, node: &Node, graph: &Graph, reads: &BTreeMap<String, usize>) {
        let [x] = &node.inputs[..] else { return };
        let computed = !graph.is_constant(x) && reads.get(x) == Some(&1);
        let moves = node.operator().keeps_range() && computed && self.of(x).is_none();
        if let Some(params) = self.of(&node.output).filter(|_| moves).cloned() {
            self.recipe.tensors.insert(x.clone(), params);
        }
    }

    /// Adds the weights of a layer, or lets it compute in float as the file does: if the input has no parameters, or an
    /// operand has none. The weights of a linear layer are codes then too.
    fn layer(&mut self, node: &Node, graph: &Graph) {
        if node.operator().layer().is_some() {
            let Some(weights) = self.weights.get(&node.inputs[1]) else { return };
            let dynamic = self.dynamic.contains(&node.inputs[1]);
            let quantized = dynamic || (self.of(&node.inputs[0]).is_some() && !weights.is_in_groups());
            if quantized || graph.shape(&node.inputs[1]).is_some_and(|shape| shape.len() == 2) {
                self.recipe.tensors.insert(node.inputs[1].clone(), weights.clone());
                if !quantized {
                    self.recipe.weight_only_layers.insert(node.output.clone());
                }
            } else {
                self.recipe.float_layers.insert(node.output.clone());
            }
        } else if node.operator().quantizes_constants() {
            let float = |name: &&String| graph.is_constant(name) && self.of(name).is_none();
            if node.inputs.iter().any(|name| float(&name)) {
                self.recipe.float_layers.insert(node.output.clone());
            }
        }
    }
}
