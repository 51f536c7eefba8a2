//! Tensors that share their codes, because a node only moves values.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::network::Graph;
use super::recipe::Recipe;

/// Returns each activation that is codes with the first one that has its codes, in the order of the graph. That is the
/// activation itself, unless a node computes it by moving the codes of its first input.
pub(crate) fn code_roots<'g>(graph: &'g Graph, recipe: &Recipe) -> Vec<(&'g str, &'g str)> {
    let mut roots = BTreeMap::<&str, &str>::new();
    let inputs = graph.inputs().map(|name| (name, None));
    let outputs = graph.nodes().iter().map(|node| (node.output.as_str(), Some(node)));
    let codes = inputs.chain(outputs).filter(|(name, _)| recipe.precision(name).is_code());
    codes
        .map(|(name, node)| {
            let moved = node.filter(|node| node.operator().keeps_range()).map(|node| node.inputs[0].as_str());
            let root = moved.and_then(|input| roots.get(input).copied()).unwrap_or(name);
            roots.insert(name, root);
            (name, root)
        })
        .collect()
}
