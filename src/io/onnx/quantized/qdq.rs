//! `QuantizeLinear` and `DequantizeLinear`.

use alloc::string::{String, ToString};

use ndarray::arr0;

use super::super::import::Importer;
use super::super::node::OnnxNode;
use super::super::operator::{Kind, OnnxOperator, ignore, int, only};
use super::super::tensor::ConstantTensor;
use super::Reader;
use super::params::{CodeParams, CodeType};
use crate::error::Result;
use crate::graph::Op;
use crate::ops::binary::op::Binary;
use crate::ops::clamp::Clamp;
use crate::ops::reshape::Reshape;
use crate::ops::unary::function::Activation;

pub(super) const OPERATORS: &[OnnxOperator] = &[
    OnnxOperator::new(
        "QuantizeLinear",
        &[(10, 2, 3)],
        &[
            int("axis").since(13),
            only("block_size", 0).since(21),
            int("output_dtype").since(21),
            // Of codes that are floats, and of the division.
            ignore("saturate", Kind::Int).since(19),
            only("precision", 0).since(23),
        ],
        quantize_linear,
    )
    .since(10)
    .in_microsoft_too(),
    OnnxOperator::new(
        "DequantizeLinear",
        &[(10, 2, 3)],
        &[int("axis").since(13), int("block_size").since(21), only("output_dtype", 0).since(23)],
        dequantize_linear,
    )
    .since(10)
    .in_microsoft_too(),
];

/// The codes of a tensor are another name of it, if nothing reads its floats. Otherwise they are a tensor of their own.
fn quantize_linear(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let (name, output) = (node.required(0)?, node.output()?);
    let shape = importer.shape(node, 0)?;
    let default = match node.int("output_dtype", 0) {
        0 => CodeType::U8,
        other => i32::try_from(other)
            .ok()
            .and_then(CodeType::of)
            .filter(|found| found.bits <= 16)
            .ok_or_else(|| node.unsupported(alloc::format!("attribute output_dtype = {other}")))?,
    };
    let params = importer.code_params(node, [1, 2], (&shape, node.int("axis", 1)), default)?;
    if let Some(value) = importer.float_constant_of(name) {
        importer.budget.spend_floats(value.len())?;
        importer.folded_constant(output, ConstantTensor::Int(params.quantize(&value)));
        importer.quantization.types.insert(output.into(), params.ty);
        return Ok(());
    }
    if params.axis.is_some() {
        return Err(node.unsupported("an activation with several scales"));
    }
    if params.ty.bits != 8 {
        round(importer, node, &params)?;
        return importer.set_codes(output, params);
    }
    let tensor = importer.resolve(name).to_string();
    let recipe = params.activation();
    let in_place = match importer.quantization.recipe.tensors.get(&tensor) {
        Some(found) => super::same_params(found, &recipe),
        None => tensor == name && only_quantized(importer, node),
    };
    match in_place {
        true => importer.alias(node)?,
        false => importer.push(node, Reshape { shape }, alloc::vec![name.into()])?,
    }
    importer.set_codes(output, params)
}

/// Returns whether all readers of the input quantize it with the same parameters.
fn only_quantized(importer: &Importer, node: &OnnxNode<'_>) -> bool {
    let value = |name: Option<&str>| {
        name.filter(|name| !name.is_empty()).map(|name| match importer.constant(name) {
            Some(ConstantTensor::Float(values)) => {
                (values.first().map(|x| x.to_bits() as i64), importer.code_type(name))
            }
            Some(ConstantTensor::Int(values)) => (values.first().copied(), importer.code_type(name)),
            None => (None, None),
        })
    };
    let expected = [value(node.input(1)), value(node.input(2))];
    let readers = node.input(0).and_then(|name| importer.quantization.readers.get(name));
    readers.is_some_and(|readers| {
        readers.iter().all(|reader| match reader {
            Reader::Quantize { scale, zero_point } => [value(Some(scale)), value(zero_point.as_deref())] == expected,
            _ => false,
        })
    })
}

/// Rounds a tensor to the values of codes that have more than 8 bits, in floats.
fn round(importer: &mut Importer, node: &OnnxNode<'_>, params: &CodeParams) -> Result<()> {
    let (scale, zero) = (params.scales[0], params.zero_points[0]);
    let [low, high] = [params.ty.min() - zero, params.ty.max() - zero].map(|code| Some(code as f32));
    let scale = importer.new_constant(node, "scale", arr0(scale).into_dyn())?;
    let steps: [Op; 3] = [Binary::Div.into(), Activation::Round.into(), Activation::Clip(Clamp { low, high }).into()];
    let mut name: String = node.required(0)?.into();
    for (i, step) in steps.into_iter().enumerate() {
        let step_name = importer.new_name(&alloc::format!("{}.code", node.output()?));
        let mut inputs = alloc::vec![name];
        inputs.extend((i == 0).then(|| scale.clone()));
        importer.push_as(step, inputs, &step_name)?;
        name = step_name;
    }
    importer.push(node, Binary::Mul, alloc::vec![name, scale])
}

fn dequantize_linear(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let (name, output) = (node.required(0)?, node.output()?);
    let shape = importer.shape(node, 0)?;
    let default = importer.quantization.codes.get(name).map(|params| params.ty);
    let default = default.or_else(|| importer.code_type(name)).unwrap_or(CodeType::U8);
    let mut params = importer.code_params(node, [1, 2], (&shape, node.int("axis", 1)), default)?;
    if importer.is_constant(name) {
        return importer.dequantize_constant(node, name, output, params);
    }
    if importer.quantization.inputs.contains(name) && !importer.quantization.codes.contains_key(name) {
        importer.set_integer(name, false);
        importer.set_codes(name, params.clone())?;
    }
    match importer.quantization.codes.get(name) {
        Some(found) => {
            params.on_codes = found.on_codes;
            if *found != params {
                return Err(node.unsupported("its scale or zero point differs from the one that its codes have"));
            }
            importer.alias(node)
        }
        // Codes whose parameters only this node has.
        None if params.axis.is_none() => {
            let zero = importer.new_constant(node, "zero_point", arr0(params.zero_points[0] as f32).into_dyn())?;
            let scale = importer.new_constant(node, "scale", arr0(params.scales[0]).into_dyn())?;
            let centred = importer.new_name(&alloc::format!("{output}.centred"));
            importer.push_as(Binary::Sub, alloc::vec![name.into(), zero], &centred)?;
            importer.set_integer(&centred, false);
            importer.push(node, Binary::Mul, alloc::vec![centred, scale])
        }
        None => Err(node.unsupported("an activation with several scales")),
    }
}
