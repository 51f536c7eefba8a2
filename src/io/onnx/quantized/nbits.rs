//! `MatMulNBits`: weights of few bits in groups along the depth.

use alloc::string::String;
use alloc::vec::Vec;

use ndarray::{Array2, Axis, Ix2, Ix3};

use super::super::import::Importer;
use super::super::node::OnnxNode;
use super::super::operator::{OnnxOperator, int};
use super::super::proto::NodeProto;
use super::super::tensor::ConstantTensor;
use super::params::{CodeParams, CodeType};
use crate::block::from_matmul_nbits;
use crate::element::{Code, Element, U2, U4};
use crate::error::Result;
use crate::granularity::Granularity;
use crate::qtensor::QTensor;

/// The least `accuracy_level` that quantizes the input to 8 bits.
pub(in crate::io::onnx) const INT8_ACCURACY_LEVEL: i64 = 4;

pub(super) const OPERATORS: &[OnnxOperator] = &[OnnxOperator::new(
    "MatMulNBits",
    &[(1, 3, 6)],
    &[int("K"), int("N"), int("accuracy_level"), int("bits"), int("block_size")],
    matmul_nbits,
)
.of_microsoft()];

/// A product with dequantized weights, which the recipe quantizes again.
fn matmul_nbits(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    if node.input(4).is_some() {
        return Err(node.unsupported("input 4 (g_idx): groups of weights in another order"));
    }
    let [k, n, size] = ["K", "N", "block_size"].map(|name| {
        let value = node.required_int(name)?;
        let bad = || node.malformed("attribute", alloc::format!("a positive {name}"), value);
        usize::try_from(value).ok().filter(|&value| value > 0).ok_or_else(bad)
    });
    let shape = [n?, k?, size?];
    let (values, params) = match node.int("bits", 4) {
        2 => weights::<U2>(importer, node, shape)?,
        4 => weights::<U4>(importer, node, shape)?,
        8 => weights::<u8>(importer, node, shape)?,
        other => return Err(node.unsupported(alloc::format!("attribute bits = {other}"))),
    };
    importer.budget.spend_floats(values.len())?;
    let name = importer.new_name(&alloc::format!("{}.dequantized", node.output()?));
    importer.folded_constant(&name, ConstantTensor::Float(values.reversed_axes().into_dyn().into_shared()));
    importer.quantization.constants.insert(name.clone(), params);
    let first = importer.builder.nodes().len();
    let float = |op: &str, input: Vec<String>, output: &str| NodeProto {
        input,
        output: alloc::vec![output.into()],
        name: node.node.name.clone(),
        op_type: op.into(),
        ..NodeProto::default()
    };
    let x: String = node.required(0)?.into();
    match node.input(5) {
        None => importer.float_node(node, float("MatMul", alloc::vec![x, name], node.output()?))?,
        Some(bias) => {
            let product = importer.new_name(&alloc::format!("{}.product", node.output()?));
            importer.float_node(node, float("MatMul", alloc::vec![x, name], &product))?;
            importer.float_node(node, float("Add", alloc::vec![product, bias.into()], node.output()?))?;
        }
    }
    if node.int("accuracy_level", 0) >= INT8_ACCURACY_LEVEL {
        let layers = importer.builder.nodes()[first..].iter().filter(|added| added.operator().layer().is_some());
        let names: Vec<String> = layers.map(|added| added.inputs[1].clone()).collect();
        importer.quantization.dynamic.extend(names);
    }
    Ok(())
}

/// The weights `[out, in]`, and the parameters of the same weights as `[in, out]`.
fn weights<T: Element>(
    importer: &Importer,
    node: &OnnxNode<'_>,
    [n, k, size]: [usize; 3],
) -> Result<(Array2<f32>, CodeParams)> {
    let bytes = |i: usize| -> Result<Option<Vec<u8>>> {
        let Some(values) = importer.int_constant(node, i)? else { return Ok(None) };
        let bytes: Option<Vec<u8>> = values.iter().map(|&value| u8::try_from(value).ok()).collect();
        bytes.map(Some).ok_or_else(|| node.malformed("packed codes", "bytes", alloc::format!("input {i}")))
    };
    let (blocks, per_byte) = (k.div_ceil(size), 8 / T::BITS as usize);
    let packed = bytes(1)?.unwrap_or_default();
    let wrong = |what: &'static str, shape: &[usize], found: usize| {
        node.malformed(what, alloc::format!("{shape:?} elements"), found)
    };
    let shape = [n, blocks, size / per_byte];
    let found = packed.len();
    let packed = ndarray::Array::from_shape_vec(Ix3(shape[0], shape[1], shape[2]), packed);
    let packed = packed.map_err(|_| wrong("packed weights", &shape, found))?;
    let scales: Vec<f32> = importer.required_constant(node, 2)?.iter().copied().collect();
    let found = scales.len();
    let scales = Array2::from_shape_vec(Ix2(n, blocks), scales);
    let scales = scales.map_err(|_| wrong("scales", &[n, blocks], found))?;
    let zero_points = match node.input(3) {
        Some(name) if matches!(importer.constant(name), Some(ConstantTensor::Float(_))) => {
            return Err(node.unsupported("input 3: zero points that are floats"));
        }
        _ => bytes(3)?,
    };
    let shape = [n, blocks.div_ceil(per_byte)];
    let found = zero_points.as_ref().map_or(0, Vec::len);
    let zero_points = zero_points.map(|zero| Array2::from_shape_vec(Ix2(shape[0], shape[1]), zero)).transpose();
    let zero_points = zero_points.map_err(|_| wrong("zero points", &shape, found))?;
    let w: QTensor<T, Ix2> =
        from_matmul_nbits(&packed, &scales, zero_points.as_deref(), k).map_err(|e| e.at(&node.name))?;
    let (params, granularity) = (w.params(), w.params().granularity());
    debug_assert_eq!(granularity, Granularity::per_group(Axis(1), size));
    let zero = |zero: &T::Code| i64::from(zero.to_i32());
    let params = CodeParams {
        ty: CodeType { bits: T::BITS, signed: false },
        axis: Some(0),
        block: Some(size),
        scales: params.scale().t().iter().copied().collect(),
        zero_points: match params.zero_point() {
            Some(zero_points) => zero_points.t().iter().map(zero).collect(),
            None => alloc::vec![0; n * blocks],
        },
        on_codes: false,
    };
    Ok((w.dequantize(), params))
}
