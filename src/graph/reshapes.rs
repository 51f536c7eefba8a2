//! Reshapes move behind functions of elements and normalizations of channels, so that these meet the layers before them, and
//! successive reshapes become one. Convolutions along one axis are between reshapes.

use alloc::collections::BTreeMap;
use alloc::string::String;

use super::network::{FreshNames, Graph, Node};
use super::op::Softmax;
use crate::error::Result;
use crate::ops::registry::Op;

pub(super) fn move_reshapes(graph: Graph) -> Result<Graph> {
    let mut shapes = graph.shapes().clone();
    let mut parts = graph.into_parts();
    let mut names = FreshNames::new(&parts);
    let mut reads = parts.reads();
    let mut producers = parts.producers();
    // Other names of tensors that two reshapes lead back to.
    let mut same = BTreeMap::<String, String>::new();
    for i in 0..parts.nodes.len() {
        for input in &mut parts.nodes[i].inputs {
            if let Some(name) = same.get(input) {
                input.clone_from(name);
            }
        }
        let node = parts.nodes[i].clone();
        let Some(&before) = node.inputs.first().and_then(|x| producers.get(x)) else { continue };
        let reshape = parts.nodes[before].clone();
        if !matches!(reshape.op, Op::Reshape(_)) {
            continue;
        }
        let (x, reshaped) = (&reshape.inputs[0], &reshape.output);
        if matches!(node.op, Op::Reshape(_)) {
            parts.nodes[i].inputs[0].clone_from(x);
            if shapes[x] == shapes[&node.output] && !parts.outputs.contains(&node.output) {
                same.insert(node.output.clone(), x.clone());
            }
            continue;
        }
        let commutes = match node.op {
            Op::Activation(_) => true,
            Op::BatchNorm(_) => shapes[x].get(..2) == shapes[reshaped].get(..2),
            Op::Softmax(Softmax { axis }) => {
                axis + 1 == shapes[reshaped].len()
                    && node.inputs.len() == 1
                    && shapes[x].last() == shapes[reshaped].last()
            }
            _ => false,
        };
        if commutes && reads.get(reshaped) == Some(&1) {
            let name = names.take(alloc::format!("{}.before_reshape", node.output));
            shapes.insert(name.clone(), shapes[x].clone());
            let inputs = core::iter::once(x.clone()).chain(node.inputs[1..].iter().cloned()).collect();
            let op = match node.op {
                Op::Softmax(_) => Softmax { axis: shapes[x].len() - 1 }.into(),
                op => op,
            };
            parts.nodes[before] = Node { op, inputs, clamp: node.clamp, output: name.clone() };
            let op = crate::ops::reshape::Reshape { shape: shapes[&node.output].clone() }.into();
            parts.nodes[i] = Node { op, inputs: alloc::vec![name.clone()], clamp: reshape.clamp, output: node.output };
            producers.insert(name.clone(), before);
            reads.insert(name, 1);
        }
    }
    Graph::new(parts)
}
