//! Poolings in ONNX files.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Result;
use crate::graph::Op;
use crate::io::onnx::import::Importer;
use crate::io::onnx::node::OnnxNode;
use crate::io::onnx::operator::{Kind, OnnxOperator, UNARY, float, ignore, int, ints, text};
use crate::ops::binary::op::Binary;
use crate::ops::reduce::{Reduce, Reduction};
use crate::ops::reshape::Reshape;
use crate::ops::unary::function::Activation;
use crate::window::{Padding, Window};

use super::op::{AveragePool, GlobalAveragePool, MaxPool};
use crate::io::onnx::export::writer::{self as export, NodeWriter};

/// The spelling of [`MaxPool`].
pub(crate) const MAX_POOL: &[OnnxOperator] = &[OnnxOperator::new(
    "MaxPool",
    UNARY,
    &[
        text("auto_pad"),
        ints("kernel_shape"),
        ints("pads"),
        ints("strides"),
        // The layout of the output `Indices`, which is not supported.
        ignore("storage_order", Kind::Int).since(8),
        int("ceil_mode").since(10),
        ints("dilations").since(10),
    ],
    |importer, node| pool(importer, node, |kernel, window| MaxPool { kernel, window }.into()),
)];

/// The spelling of [`AveragePool`].
pub(crate) const AVERAGE_POOL: &[OnnxOperator] = &[
    OnnxOperator::new("LRN", UNARY, &[float("alpha"), float("beta"), float("bias"), int("size")], lrn),
    OnnxOperator::new(
        "AveragePool",
        UNARY,
        &[
            text("auto_pad"),
            ints("kernel_shape"),
            ints("pads"),
            ints("strides"),
            int("count_include_pad").since(7),
            int("ceil_mode").since(10),
            ints("dilations").since(19),
        ],
        |importer, node| {
            let count_include_pad = node.int("count_include_pad", 0) != 0;
            pool(importer, node, |kernel, window| AveragePool { kernel, window, count_include_pad }.into())
        },
    ),
];

/// `x / (bias + alpha * mean(x²))^beta`, where the mean counts zeros before the first channel and after the last one.
fn lrn(importer: &mut Importer, node: &OnnxNode<'_>) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let [size] = node.sizes("size", &[node.required_int("size")?])?;
    let &[batch, channels, ref rest @ ..] = &x[..] else {
        return Err(node.malformed("input", "[batch, channels, ..]", alloc::format!("shape {x:?}")));
    };
    if size == 0 || size > channels.saturating_mul(2) {
        return Err(node.unsupported(alloc::format!("attribute size = {size} for {channels} channels")));
    }
    let part = |importer: &mut Importer, op: Op, inputs: Vec<String>| -> Result<String> {
        let name = importer.new_name(&alloc::format!("{}.part", node.output()?));
        importer.push_as(op, inputs, &name).map(|()| name)
    };
    let name: String = node.required(0)?.into();
    let squares = part(importer, Binary::Mul.into(), alloc::vec![name.clone(), name.clone()])?;
    let rows = Reshape { shape: alloc::vec![batch, 1, channels, rest.iter().product()] };
    let rows = part(importer, rows.into(), alloc::vec![squares])?;
    let padding = Padding::Explicit([(size - 1) / 2, 0, size / 2, 0]);
    let pool = AveragePool { kernel: [size, 1], window: Window::new().with_padding(padding), count_include_pad: true };
    let means = part(importer, pool.into(), alloc::vec![rows])?;
    let means = part(importer, Reshape { shape: x.clone() }.into(), alloc::vec![means])?;
    let [alpha, bias] = [node.float("alpha", 1e-4), node.float("bias", 1.0)];
    let alpha = importer.new_constant(node, "alpha", ndarray::arr0(alpha).into_dyn())?;
    let bias = importer.new_constant(node, "bias", ndarray::arr0(bias).into_dyn())?;
    let scaled = part(importer, Binary::Mul.into(), alloc::vec![means, alpha])?;
    let sum = part(importer, Binary::Add.into(), alloc::vec![scaled, bias])?;
    let power = Activation::Pow { exponent: -node.float("beta", 0.75) };
    let factor = part(importer, power.into(), alloc::vec![sum])?;
    importer.push(node, Binary::Mul, alloc::vec![name, factor])
}

/// The spelling of [`GlobalAveragePool`].
pub(crate) const GLOBAL_AVERAGE_POOL: &[OnnxOperator] =
    &[OnnxOperator::new("GlobalAveragePool", UNARY, &[], |importer, node| {
        let x = importer.shape(node, 0)?;
        match x.len() {
            4 => importer.push_all(node, GlobalAveragePool),
            ndim => importer.push_all(node, Reduce { reduction: Reduction::Mean, axes: (2..ndim).collect() }),
        }
    })];

/// Adds a pooling of two axes, or of one: the rows of images with one row.
fn pool(importer: &mut Importer, node: &OnnxNode<'_>, op: impl FnOnce([usize; 2], Window) -> Op) -> Result<()> {
    let x = importer.shape(node, 0)?;
    let sizes = node.ints("kernel_shape").ok_or_else(|| node.malformed("node", "kernel_shape", "none"))?;
    let ceil_mode = node.int("ceil_mode", 0) != 0;
    let (image, kernel, window) = match x[..] {
        [n, c, len] => {
            let [width] = node.sizes("kernel_shape", sizes)?;
            ([n, c, 1, len], [1, width], node.window_1d(width)?)
        }
        [n, c, h, w] => {
            let kernel = node.sizes("kernel_shape", sizes)?;
            ([n, c, h, w], kernel, node.window(kernel)?)
        }
        _ => return Err(node.unsupported(alloc::format!("an input of shape {x:?}: not a pooling of one or two axes"))),
    };
    let window = window.with_ceil_mode(ceil_mode);
    // A gap that spans the image is of no use, and shape inference would visit every output.
    if (0..2).any(|axis| kernel[axis] > 1 && window.dilations[axis] > image[axis + 2]) {
        let why = alloc::format!("attribute dilations = {:?} on shape {x:?}", window.dilations);
        return Err(node.unsupported(why));
    }
    let shape = match x.len() {
        3 => Some(alloc::vec![x[0], x[1], window.output_size(kernel, [image[2], image[3]])?[1]]),
        _ => None,
    };
    let name = importer.reshaped(node, node.required(0)?, &x, image.to_vec())?;
    importer.push_reshaped(node, op(kernel, window), alloc::vec![name], shape)
}

/// Writes a pooling.
pub(super) fn write(
    op: &str,
    (kernel, of_pool): (&[usize; 2], &Window),
    include_pad: bool,
    node: &mut NodeWriter<'_>,
) -> Result<String> {
    let mut attributes = export::window(of_pool);
    attributes.push(export::ints("kernel_shape", kernel));
    attributes.extend(include_pad.then(|| export::int("count_include_pad", 1)));
    node.all(op, attributes)
}
