//! Functions of one tensor in ONNX files.

use crate::error::Result;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{CONSUMED, OnnxOperator, UNARY, float};
use crate::ops::clamp::Clamp;

use super::function::Activation;

/// The spelling of [`Activation`].
pub(crate) const UNARIES: &[OnnxOperator] = &[
    OnnxOperator::new(
        "Clip",
        &[(1, 1, 1), (11, 1, 3)],
        &[float("min").until(10), float("max").until(10), CONSUMED],
        clip,
    ),
    OnnxOperator::new("HardSigmoid", UNARY, &[float("alpha"), float("beta"), CONSUMED], |importer, node| {
        let (alpha, beta) = (node.float("alpha", 0.2), node.float("beta", 0.5));
        importer.push_all(node, Activation::HardSigmoid { alpha, beta })
    }),
    OnnxOperator::new("HardSwish", UNARY, &[], |importer, node| importer.push_all(node, Activation::HardSwish))
        .since(14),
    OnnxOperator::new("LeakyRelu", UNARY, &[float("alpha"), CONSUMED], |importer, node| {
        importer.push_all(node, Activation::LeakyRelu { alpha: node.float("alpha", 0.01) })
    }),
    OnnxOperator::new("Relu", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::relu())),
    OnnxOperator::new("Sigmoid", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Sigmoid)),
    OnnxOperator::new("Tanh", UNARY, &[CONSUMED], |importer, node| importer.push_all(node, Activation::Tanh)),
];

fn clip(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let bound = |i: usize, name: &'static str, unbounded: f32| -> Result<Option<f32>> {
        let bound = match importer.float_constant(node, i)? {
            Some(value) => importer.scalar(node, name, &value)?,
            None => node.float(name, unbounded),
        };
        match bound {
            _ if bound == unbounded => Ok(None),
            _ if bound.is_finite() => Ok(Some(bound)),
            _ => Err(node.unsupported(alloc::format!("{name} = {bound}"))),
        }
    };
    let clamp = Clamp { low: bound(1, "min", f32::NEG_INFINITY)?, high: bound(2, "max", f32::INFINITY)? };
    let inputs = alloc::vec![node.required(0)?.into()];
    importer.push(node, Activation::Clip(clamp), inputs)
}
