//! Recognition of functions that exporters spell with several operators: SiLU, hard swish, GELU, layer normalization.
//!
//! Only this pass and that of `reshapes` look for operators by name.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use super::network::{Graph, Node, Parts};
use super::op::{Activation, Binary, LayerNorm, Reduce, Reduction};
use crate::error::Result;
use crate::ops::clamp::Clamp;
use crate::ops::registry::Op;

/// Replaces the last node of each function by one operator. The other nodes are not needed any more, unless something
/// else reads them.
pub(super) fn fuse(graph: Graph) -> Result<Graph> {
    let shapes = graph.shapes().clone();
    let parts = graph.into_parts();
    let producers = parts.producers();
    let mut fusion = Fusion { parts, producers, shapes };
    for i in 0..fusion.parts.nodes.len() {
        let node = &fusion.parts.nodes[i];
        let fused = if node.clamp == Clamp::NONE { fusion.function(node) } else { None };
        if let Some((op, inputs)) = fused.or_else(|| fusion.with_parameter(node)) {
            let node = &mut fusion.parts.nodes[i];
            (node.op, node.inputs) = (op, inputs);
        }
    }
    Graph::new(fusion.parts)
}

struct Fusion {
    parts: Parts,
    producers: BTreeMap<String, usize>,
    shapes: BTreeMap<String, Vec<usize>>,
}

/// An operator and its inputs.
type Fused = Option<(Op, Vec<String>)>;

impl Fusion {
    fn function(&self, node: &Node) -> Fused {
        let unary = |f: Activation, x: &String| Some((f.into(), alloc::vec![x.clone()]));
        if let Some((scaled, factor)) = self.with_constant(node, Binary::Mul) {
            let scaled = self.node(scaled)?;
            if is(factor, 1.0 / 6.0) {
                if let Some(x) = self.plus_three_clamped(scaled) {
                    return unary(Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, x);
                }
                return self.product(scaled).find_map(|(x, gate)| {
                    (self.plus_three_clamped(self.node(gate)?) == Some(x)).then(|| unary(Activation::HardSwish, x))?
                });
            }
            let gelu = |(x, gate): (&String, &String)| {
                (is(factor, 0.5) && self.one_plus_erf(gate) == Some(x)).then(|| unary(Activation::Gelu, x))?
            };
            return self.product(scaled).find_map(gelu);
        }
        if node.op == Binary::Div.into() {
            return self.layer_norm(node);
        }
        if let (Op::Softmax(_), [scores]) = (&node.op, &node.inputs[..]) {
            return self.masked(scores).map(|(x, mask)| (node.op.clone(), alloc::vec![x.clone(), mask.clone()]));
        }
        self.product(node).find_map(|(x, gate)| {
            if let Some((half, factor)) = self.node(x).and_then(|x| self.with_constant(x, Binary::Mul))
                && is(factor, 0.5)
                && self.one_plus_erf(gate) == Some(half)
            {
                return unary(Activation::Gelu, half);
            }
            let gate = self.node(gate)?;
            if let Some((erf, factor)) = self.with_constant(gate, Binary::Mul) {
                return (is(factor, 0.5) && self.one_plus_erf(erf) == Some(x)).then(|| unary(Activation::Gelu, x))?;
            }
            let Op::Activation(function) = gate.op else { return None };
            match function {
                _ if gate.inputs[0] != *x => None,
                Activation::Sigmoid => unary(Activation::Silu, x),
                Activation::HardSigmoid { alpha, beta } if is(alpha, 1.0 / 6.0) && is(beta, 0.5) => {
                    unary(Activation::HardSwish, x)
                }
                _ => None,
            }
        })
    }

    /// The operands of a sum that is a masked tensor: the mask is constant, or broadcasts to the tensor.
    fn masked(&self, name: &String) -> Option<(&String, &String)> {
        let sum = self.node(name).filter(|sum| sum.op == Binary::Add.into() && sum.clamp == Clamp::NONE)?;
        let [a, b] = &sum.inputs[..] else { return None };
        let mut pairs = [(a, b), (b, a)].into_iter();
        let is_masked = |(x, mask): &(&String, &String)| {
            let [shape, of_mask] = [x, mask].map(|name| &self.shapes[*name]);
            let broadcasts = of_mask.len() == shape.len() && of_mask != shape;
            *shape == self.shapes[name] && (broadcasts || self.parts.constants.contains_key(*mask))
        };
        pairs.find(is_masked)
    }

    fn node(&self, name: &String) -> Option<&Node> {
        self.producers.get(name).map(|&i| &self.parts.nodes[i])
    }

    /// The operands of a product without a clamp, in both orders.
    fn product<'a>(&self, node: &'a Node) -> impl Iterator<Item = (&'a String, &'a String)> {
        let is_product = node.op == Binary::Mul.into() && node.clamp == Clamp::NONE;
        let operands = is_product.then(|| (&node.inputs[0], &node.inputs[1]));
        operands.into_iter().flat_map(|(a, b)| [(a, b), (b, a)])
    }

    /// The other operand and the value, if one operand is a constant of one element.
    fn with_constant<'a>(&self, node: &'a Node, function: Binary) -> Option<(&'a String, f32)> {
        let [a, b] = &node.inputs[..] else { return None };
        if node.op != function.into() || node.clamp != Clamp::NONE {
            return None;
        }
        [(a, b), (b, a)].into_iter().find_map(|(x, constant)| {
            let value = self.parts.constants.get(constant).filter(|value| value.len() == 1)?;
            let keeps_shape = self.shapes[x] == self.shapes[&node.output];
            value.first().filter(|_| keeps_shape).map(|&value| (x, value))
        })
    }

    /// `x` of `min(max(x + 3, 0), 6)`.
    fn plus_three_clamped<'a>(&self, node: &'a Node) -> Option<&'a String> {
        let unclamped = Node { clamp: Clamp::NONE, ..node.clone() };
        let (x, three) = self.with_constant(&unclamped, Binary::Add).filter(|_| node.clamp == Clamp::RELU6)?;
        node.inputs.iter().find(|name| *name == x).filter(|_| three == 3.0)
    }

    /// `x` of `1 + erf(x / sqrt(2))`.
    fn one_plus_erf(&self, name: &String) -> Option<&String> {
        let (erf, one) = self.with_constant(self.node(name)?, Binary::Add)?;
        let erf = self.node(erf).filter(|erf| one == 1.0 && erf.op == Activation::Erf.into())?;
        let (x, factor) = self.with_constant(self.node(&erf.inputs[0])?, Binary::Mul)?;
        is(factor, core::f32::consts::FRAC_1_SQRT_2).then_some(x)
    }

    /// `d / sqrt(mean(d²) + epsilon)` with `d = x - mean(x)`, along the last axis.
    fn layer_norm(&self, node: &Node) -> Fused {
        let [deviation, root] = &node.inputs[..] else { return None };
        let is_root =
            |op: &Op| *op == Activation::Sqrt.into() || matches!(op, Op::Activation(Activation::Pow { exponent: 0.5 }));
        let root = self.node(root).filter(|root| is_root(&root.op))?;
        let (variance, epsilon) = self.with_constant(self.node(&root.inputs[0])?, Binary::Add)?;
        let squares = self.node(self.mean(variance)?)?;
        let squared = match squares.op {
            Op::Activation(Activation::Pow { exponent: 2.0 }) => squares.inputs[0] == *deviation,
            _ => self.product(squares).any(|(a, b)| a == deviation && b == deviation),
        };
        let difference = self.node(deviation).filter(|node| squared && node.op == Binary::Sub.into())?;
        let [x, mean] = &difference.inputs[..] else { return None };
        (self.mean(mean)? == x && difference.clamp == Clamp::NONE)
            .then(|| (LayerNorm { epsilon }.into(), alloc::vec![x.clone()]))
    }

    /// The input of a mean along the last axis.
    fn mean(&self, name: &String) -> Option<&String> {
        let node = self.node(name)?;
        let Op::Reduce(Reduce { reduction: Reduction::Mean, axes }) = &node.op else { return None };
        (axes[..] == [self.shapes[&node.inputs[0]].len() - 1]).then_some(&node.inputs[0])
    }

    /// A layer normalization that a constant row is multiplied with, or then added to.
    fn with_parameter(&self, node: &Node) -> Fused {
        let Op::Binary(function @ (Binary::Mul | Binary::Add)) = node.op else { return None };
        if node.clamp != Clamp::NONE {
            return None;
        }
        let [a, b] = &node.inputs[..] else { return None };
        [(a, b), (b, a)].into_iter().find_map(|(x, parameter)| {
            let norm = self.node(x).filter(|norm| matches!(norm.op, Op::LayerNorm(_)))?;
            let row = self.parts.constants.get(parameter)?.shape();
            // The first parameter is the factor, the second one the summand.
            let next = norm.inputs.len() == if function == Binary::Mul { 1 } else { 2 };
            let fits = row.len() == 1 && row == &self.shapes[x][self.shapes[x].len() - 1..];
            let inputs = norm.inputs.iter().chain([parameter]).cloned().collect();
            (next && fits).then(|| (norm.op.clone(), inputs))
        })
    }
}

/// Compares constants that exporters round differently.
fn is(found: f32, expected: f32) -> bool {
    (found - expected).abs() <= 1e-6 * expected.abs()
}
