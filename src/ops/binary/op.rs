//! Functions of two tensors in a graph: shape inference, choice of kernels.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ndarray::{ArcArray, ArrayD, ArrayView1, ArrayViewMut1, IxDyn, Zip};

use super::float;
use super::{Add, Mul};
use crate::error::{Error, GraphError, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::micro::{Operand, StepWriter, Written};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{broadcast_batch, broadcast_batch_mut, broadcast_shape};
use crate::ops::operator::{CodeNode, Constant, FloatNode, Inputs, IntTensor, OnCodes, Operator};
use crate::ops::shape::{Shape, broadcast, elements};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// A function of the elements of two tensors, with broadcasting: the ONNX operator of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Binary {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`.
    Div,
    /// `a` to the power `b`.
    Pow,
    /// The greater one.
    Max,
    /// The smaller one.
    Min,
    /// 1 if `a = b`, else 0.
    Equal,
    /// 1 if `a > b`, else 0.
    Greater,
    /// 1 if `a >= b`, else 0.
    GreaterOrEqual,
    /// 1 if `a < b`, else 0.
    Less,
    /// 1 if `a <= b`, else 0.
    LessOrEqual,
}

impl Binary {
    /// Evaluates the function.
    #[inline(always)]
    pub fn eval(self, a: f32, b: f32) -> f32 {
        match self {
            Binary::Add => a + b,
            Binary::Sub => a - b,
            Binary::Mul => a * b,
            Binary::Div => a / b,
            Binary::Pow => num_traits::Float::powf(a, b),
            Binary::Max => {
                if a >= b || a.is_nan() {
                    a
                } else {
                    b
                }
            }
            Binary::Min => {
                if a <= b || a.is_nan() {
                    a
                } else {
                    b
                }
            }
            Binary::Equal => (a == b).into(),
            Binary::Greater => (a > b).into(),
            Binary::GreaterOrEqual => (a >= b).into(),
            Binary::Less => (a < b).into(),
            Binary::LessOrEqual => (a <= b).into(),
        }
    }

    /// Returns whether the result is 0 or 1.
    pub(crate) fn is_comparison(self) -> bool {
        matches!(self, Binary::Equal | Binary::Greater | Binary::GreaterOrEqual | Binary::Less | Binary::LessOrEqual)
    }
}

impl Operator for Binary {
    fn name(&self) -> &'static str {
        match self {
            Binary::Add => "Add",
            Binary::Sub => "Sub",
            Binary::Mul => "Mul",
            Binary::Div => "Div",
            Binary::Pow => "Pow",
            Binary::Max => "Max",
            Binary::Min => "Min",
            Binary::Equal => "Equal",
            Binary::Greater => "Greater",
            Binary::GreaterOrEqual => "GreaterOrEqual",
            Binary::Less => "Less",
            Binary::LessOrEqual => "LessOrEqual",
        }
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (2..=2, "2")
    }

    fn stores_constants(&self) -> bool {
        true
    }

    fn quantizes_constants(&self) -> bool {
        matches!(self, Binary::Add | Binary::Sub | Binary::Mul)
    }

    fn supports_clamp(&self) -> bool {
        true
    }

    fn takes_exact_values(&self, _: usize) -> bool {
        self.is_comparison()
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        check_operands(inputs)?;
        broadcast(inputs.shapes[0], inputs.shapes[1])
    }

    fn evaluate(&self, inputs: &[&Constant]) -> Option<Result<ArrayD<f32>>> {
        Some(evaluate(inputs, |a, b| self.eval(a, b)))
    }

    /// A division by zero, and an overflow, are not known.
    fn evaluate_ints(&self, inputs: &[&IntTensor]) -> Option<Result<ArrayD<i64>>> {
        let f: fn(i64, i64) -> Option<i64> = match self {
            Binary::Add => i64::checked_add,
            Binary::Sub => i64::checked_sub,
            Binary::Mul => i64::checked_mul,
            Binary::Div => i64::checked_div,
            Binary::Pow => |a, b| a.checked_pow(b.try_into().ok()?),
            Binary::Max => |a, b| Some(a.max(b)),
            Binary::Min => |a, b| Some(a.min(b)),
            Binary::Equal => |a, b| Some((a == b).into()),
            Binary::Greater => |a, b| Some((a > b).into()),
            Binary::GreaterOrEqual => |a, b| Some((a >= b).into()),
            Binary::Less => |a, b| Some((a < b).into()),
            Binary::LessOrEqual => |a, b| Some((a <= b).into()),
        };
        match evaluate(inputs, f) {
            Ok(values) if values.iter().any(Option::is_none) => None,
            values => Some(values.map(|values| values.mapv(Option::unwrap_or_default))),
        }
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(float::BinaryOnFloats::new(*self, node)))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        let [a, b] = [0, 1].map(|i| &node.operands[i].params);
        let op = match self {
            Binary::Add => CodeOp::Add(Add::new(a, b, &node.to())?),
            Binary::Sub => CodeOp::Add(Add::difference(a, b, &node.to())?),
            Binary::Mul => CodeOp::Mul(Mul::new(a, b, &node.to())?),
            _ => return Ok(OnCodes::Float),
        };
        let shapes = [node.inputs[0], node.inputs[1], node.output].map(|dims| broadcast_shape(dims.shape, node.output));
        OnCodes::kernel(BinaryOnCodes { op, constants: node.broadcast_constants(), shapes })
    }

    fn channel_affine(&self, x: &[usize], axis: usize, constants: &[Option<Constant>]) -> Option<Vec<(f64, f64)>> {
        let (constant, first) = match constants {
            [None, Some(constant)] => (constant, false),
            [Some(constant), None] => (constant, true),
            _ => return None,
        };
        // One value, or one for each channel.
        let shape: Vec<usize> = (0..x.len()).map(|i| if i == axis { x[axis] } else { 1 }).collect();
        let values = constant.broadcast(&shape[..]).filter(|_| constant.ndim() <= x.len())?;
        let affine = |&c: &f32| {
            let c = f64::from(c);
            Some(match self {
                Binary::Add => (1.0, c),
                Binary::Sub if first => (-1.0, c),
                Binary::Sub => (1.0, -c),
                Binary::Mul => (c, 0.0),
                Binary::Div if !first => (1.0 / c, 0.0),
                _ => return None,
            })
        };
        values.iter().map(affine).collect()
    }

    /// A constant operand has no layer that could scale it.
    fn commutes_with_scaling(&self, inputs: &Inputs<'_>, output: &[usize]) -> bool {
        *self == Binary::Add
            && inputs.shapes.iter().zip(inputs.constant).all(|(shape, constant)| !constant && *shape == output)
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        super::onnx::write(*self, node)
    }
}

/// Evaluates a function of the elements of two constants.
fn evaluate<T: Copy, U>(inputs: &[&ArcArray<T, IxDyn>], f: impl Fn(T, T) -> U) -> Result<ArrayD<U>> {
    let shape = broadcast(inputs[0].shape(), inputs[1].shape())?;
    elements(&shape)?;
    let [a, b] = [inputs[0], inputs[1]].map(|x| x.broadcast(&shape[..]).expect("both broadcast to the common shape"));
    Ok(Zip::from(&a).and(&b).map_collect(|&a, &b| f(a, b)))
}

/// Checks the ranks of two operands that broadcast: activations have equal ranks, so that their batch axes align, and a
/// constant has no more axes than they.
fn check_operands(inputs: &Inputs<'_>) -> Result<()> {
    let Inputs { shapes, constant } = *inputs;
    let activations = || shapes.iter().zip(constant).filter(|(_, constant)| !**constant).map(|(shape, _)| shape.len());
    let Some(ndim) = activations().next() else { return Ok(()) };
    match shapes.iter().zip(constant).find(|(s, constant)| if **constant { s.len() > ndim } else { s.len() != ndim }) {
        Some(_) => {
            let expected = "activations of equal rank, and constants of at most that rank".into();
            let found = alloc::format!("shapes {:?} and {:?}", shapes[0], shapes[1]);
            Err(Error::from(GraphError::Inputs { expected, found }))
        }
        None => Ok(()),
    }
}

#[derive(Debug)]
enum CodeOp {
    Add(Add<u8>),
    Mul(Mul<u8>),
}

#[derive(Debug)]
struct BinaryOnCodes {
    op: CodeOp,
    /// The codes of each constant input.
    constants: Vec<Option<ArrayD<u8>>>,
    /// The shapes in memory of the operands and the output, which broadcast.
    shapes: [Vec<usize>; 3],
}

impl Kernel for BinaryOnCodes {
    fn write_micro(&self, node: &mut StepWriter<'_>) -> Written {
        let mut inputs = node.x.iter();
        let mut operands = [Operand::default(); 2];
        let output = &self.shapes[2];
        for (i, operand) in operands.iter_mut().enumerate() {
            operand.region = match &self.constants[i] {
                Some(codes) => node.data(codes.iter().copied()),
                None => *inputs.next().ok_or("it has fewer inputs than operands")?,
            };
            // Only axes before and behind those of the operand are broadcast.
            let own = |&axis: &usize| self.shapes[i][axis] != 1;
            let first = (0..output.len()).find(own).unwrap_or(output.len());
            let end = (first..output.len()).rfind(own).map_or(first, |last| last + 1);
            if self.shapes[i][first..end] != output[first..end] {
                return Err("it broadcasts an axis between others".into());
            }
            operand.run = output[end..].iter().product();
        }
        node.step(match &self.op {
            CodeOp::Add(add) => add.micro_step(operands, node.y),
            CodeOp::Mul(mul) => mul.micro_step(operands, node.y),
        });
        Ok(())
    }

    fn size_in_bytes(&self) -> usize {
        self.constants.iter().flatten().map(ArrayD::len).sum()
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let out = output.into_slice::<u8>();
        if let (CodeOp::Add(add), [a, b], [None, None]) = (&self.op, inputs, &self.constants[..])
            && self.shapes[0] == self.shapes[1]
        {
            let [a, b] = [a, b].map(|values| ArrayView1::from(values.as_slice::<u8>()).into_dyn());
            return add.forward_into(&a, &b, &mut ArrayViewMut1::from(out).into_dyn());
        }
        // Only the inputs that are not constant are inputs of the step.
        let mut values = inputs.iter();
        let [a, b] = [0, 1].map(|i| match &self.constants[i] {
            Some(codes) => codes.view(),
            None => broadcast_batch(values.next().map_or(&[][..], |v| v.as_slice()), &self.shapes[i], images),
        });
        let mut out = broadcast_batch_mut(out, &self.shapes[2], images);
        match &self.op {
            CodeOp::Add(add) => add.forward_into(&a, &b, &mut out),
            CodeOp::Mul(mul) => mul.forward_into(&a, &b, &mut out),
        }
    }
}
