//! Kernels of operators without weights on codes. The arithmetic is in [`ops`].

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayView1, ArrayView4, ArrayViewD, ArrayViewMut1, ArrayViewMut4, ArrayViewMutD, Axis};

use super::codes::requantize;
use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use super::layout::{broadcast_constant, broadcast_shape, nhwc_axis, nhwc_is_nchw, nhwc_shape};
use super::movement::{Pad, TransposedReshape, Upsample};
use super::network::{Constant, Node};
use super::op::Op;
use crate::error::Result;
use crate::ops::{Add, AveragePool, Concat, GlobalAveragePool, Lookup, MaxPool, Mul, Softmax};
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// An input of an operator: codes with their parameters, or a constant.
#[allow(clippy::large_enum_variant, reason = "lives while a plan is made")]
pub(crate) enum Operand {
    Codes(QParams<u8>),
    Constant(Constant),
}

/// Quantizes a constant by its own range.
pub(crate) fn constant_codes(value: &Constant) -> Result<(QParams<u8>, ArrayD<u8>)> {
    let (codes, params) = Scheme::<u8>::asymmetric().quantize(&**value)?.into_parts();
    let (scale, zero_point) = params.of_tensor("a constant")?;
    Ok((QParams::per_tensor(scale, zero_point)?, codes))
}

/// The kernel of a node on codes. `None` if the node must run in floats, `Some(None)` if the output is an alias of the
/// input.
#[allow(clippy::option_option, reason = "three different things")]
pub(crate) fn kernel(
    node: &Node,
    operands: Vec<Operand>,
    shapes: &[&[usize]],
    output: &[usize],
    to: &QParams<u8>,
) -> Result<Option<Option<Box<dyn Kernel>>>> {
    let x = shapes[0];
    let mut params = Vec::new();
    let mut constants = Vec::new();
    for operand in operands {
        let (operand, codes) = match operand {
            Operand::Codes(params) => (params, None),
            Operand::Constant(value) => {
                let (params, codes) = constant_codes(&value)?;
                (params, Some(broadcast_constant(codes, output.len())))
            }
        };
        params.push(operand);
        constants.push(codes);
    }
    let all_same = params.iter().all(|p| p == to);
    let (_, zero) = to.of_tensor("output")?;
    let clamped = crate::nn::Output::to(to).clamp(node.clamp.low, node.clamp.high);
    let op = match &node.op {
        Op::Add => CodeOp::Add(Add::new(&params[0], &params[1], &clamped)?),
        Op::Mul => CodeOp::Mul(Mul::new(&params[0], &params[1], &clamped)?),
        Op::Activation(f) => {
            let (x, y) = (&params[0], to);
            CodeOp::Lookup(Lookup::new(x, y, |x| f.eval(x as f32).into())?)
        }
        Op::MaxPool { kernel, window } if all_same => CodeOp::MaxPool(MaxPool::new(*kernel, window)?),
        Op::AveragePool { kernel, window, count_include_pad } => {
            let to = requantize(to, node.clamp);
            let pool = AveragePool::new(&params[0], *kernel, window, &to)?;
            CodeOp::AveragePool(pool.count_include_pad(*count_include_pad))
        }
        Op::GlobalAveragePool => {
            CodeOp::GlobalAveragePool(GlobalAveragePool::new(&params[0], &requantize(to, node.clamp))?)
        }
        Op::Concat { axis } => {
            let axis = Axis(nhwc_axis(*axis, x.len()));
            CodeOp::Concat(Concat::new(axis, &params.iter().collect::<Vec<_>>(), to)?)
        }
        Op::Softmax { axis } if nhwc_axis(*axis, x.len()) + 1 == x.len() => {
            CodeOp::Softmax(Softmax::new(&params[0], to)?)
        }
        Op::Pad { pads } if all_same => return Ok(Some(Some(Box::new(Pad::new(*pads, x, output, zero))))),
        Op::Resize { scales } if all_same => return Ok(Some(Some(Box::new(Upsample::<u8>::new(*scales, x))))),
        Op::Reshape { .. } if all_same && nhwc_is_nchw(x) && nhwc_is_nchw(output) => return Ok(Some(None)),
        Op::Reshape { .. } if all_same => return Ok(Some(Some(Box::new(TransposedReshape::<u8>::new(x, output))))),
        _ => return Ok(None),
    };
    let inputs = shapes.iter().map(|shape| nhwc_shape(&broadcast_shape(shape, output.len()))).collect();
    Ok(Some(Some(Box::new(CodeKernel { op, constants, inputs, output: nhwc_shape(output) }))))
}

/// An operator on codes with its parameters.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one for each node")]
enum CodeOp {
    Add(Add<u8>),
    Mul(Mul<u8>),
    Lookup(Lookup<u8, u8>),
    MaxPool(MaxPool),
    AveragePool(AveragePool<u8>),
    GlobalAveragePool(GlobalAveragePool<u8>),
    Concat(Concat<u8>),
    Softmax(Softmax<u8>),
}

#[derive(Debug)]
struct CodeKernel {
    op: CodeOp,
    /// The codes of each constant input.
    constants: Vec<Option<ArrayD<u8>>>,
    /// Shapes in memory for a batch of one.
    inputs: Vec<Vec<usize>>,
    output: Vec<usize>,
}

impl Kernel for CodeKernel {
    fn size_in_bytes(&self) -> usize {
        let table = if let CodeOp::Lookup(_) = self.op { 256 } else { 0 };
        table + self.constants.iter().flatten().map(ArrayD::len).sum::<usize>()
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let out = output.into_slice::<u8>();
        if let CodeOp::Lookup(table) = &self.op {
            let x = ArrayView1::from(inputs[0].as_slice::<u8>());
            return table.forward_into(&x, &mut ArrayViewMut1::from(out));
        }
        if let (CodeOp::Add(add), [a, b], [None, None]) = (&self.op, inputs, &self.constants[..])
            && self.inputs[0] == self.inputs[1]
        {
            let [a, b] = [a, b].map(|values| ArrayView1::from(values.as_slice::<u8>()).into_dyn());
            return add.forward_into(&a, &b, &mut ArrayViewMut1::from(out).into_dyn());
        }
        // Only the inputs that are not constant are inputs of the step.
        let mut values = inputs.iter();
        let views: Vec<ArrayViewD<'_, u8>> = self
            .inputs
            .iter()
            .zip(&self.constants)
            .map(|(shape, constant)| match constant {
                Some(codes) => codes.view(),
                None => batch(values.next().map_or(&[][..], |v| v.as_slice()), shape, images),
            })
            .collect();
        let mut dims = self.output.clone();
        dims[0] = images;
        let mut out = ArrayViewMutD::from_shape(dims, out).expect("lengths were planned");
        match &self.op {
            CodeOp::Add(add) => add.forward_into(&views[0], &views[1], &mut out),
            CodeOp::Mul(mul) => mul.forward_into(&views[0], &views[1], &mut out),
            CodeOp::MaxPool(pool) => {
                pool.forward_into(&as_images(&views[0]), &mut as_images_mut(out), &mut scratch.gemm)
            }
            CodeOp::AveragePool(pool) => {
                pool.forward_into(&as_images(&views[0]), &mut as_images_mut(out), &mut scratch.gemm)
            }
            CodeOp::GlobalAveragePool(pool) => {
                pool.forward_into(&as_images(&views[0]), &mut as_images_mut(out), &mut scratch.gemm)
            }
            CodeOp::Concat(concat) => concat.forward_into(&views, &mut out),
            CodeOp::Softmax(softmax) => softmax.forward_into(&views[0], &mut out),
            CodeOp::Lookup(_) => Ok(()),
        }
    }
}

fn batch<'a>(values: &'a [u8], shape: &[usize], images: usize) -> ArrayViewD<'a, u8> {
    let mut dims = shape.to_vec();
    dims[0] = images;
    ArrayViewD::from_shape(dims, values).expect("lengths were planned")
}

fn as_images<'a>(x: &ArrayViewD<'a, u8>) -> ArrayView4<'a, u8> {
    x.clone().into_dimensionality().expect("pooling takes four axes")
}

fn as_images_mut(out: ArrayViewMutD<'_, u8>) -> ArrayViewMut4<'_, u8> {
    out.into_dimensionality().expect("pooling takes four axes")
}
