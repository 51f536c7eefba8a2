//! `MatMul` of two activations in a graph: shape inference, kernel.

use alloc::boxed::Box;

use alloc::vec::Vec;

use ndarray::{ArrayD, ArrayView2, ArrayViewD, ArrayViewMut2, ArrayViewMutD, Axis};

use crate::affine::Arithmetic;
use crate::error::{Error, Result, check_shapes};
use crate::gemm::{PackedRhs, RequantizeEpilogue, check_depth, gemm_into};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::ops::float_matmul;
use crate::ops::kernel::{Kernel, Scalar, Scratch, Values, ValuesMut};
use crate::ops::nhwc::{Dims, Layout, OwnedDims};
use crate::ops::operator::{CodeNode, Constant, FloatNode, Inputs, Layouts, OnCodes, Operator};
use crate::ops::shape::{Shape, broadcast};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// `A · B` of matrices, the last two axes; the axes before them broadcast (ONNX: `MatMul`). Either may be constant. See
/// [`Linear`](crate::graph::op::Linear) for a product with weights.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MatMul;

impl Operator for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn arity(&self) -> (core::ops::RangeInclusive<usize>, &'static str) {
        (2..=2, "2")
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let [a, b] = [inputs.shapes[0], inputs.shapes[1]];
        let ([a_batch @ .., m, k], [b_batch @ .., rows, n]) = (a, b) else {
            let found = alloc::format!("shapes {a:?} and {b:?}");
            return Err(Error::Argument { what: "factors", expected: "tensors of rank 2 or more", found });
        };
        if a.len() != b.len() {
            let found = alloc::format!("shapes {a:?} and {b:?}");
            return Err(Error::Argument { what: "factors", expected: "tensors of equal rank", found });
        }
        check_shapes("B", &[*k, *n], &[*rows, *n])?;
        let mut shape = broadcast(a_batch, b_batch)?;
        shape.extend([m, n]);
        Ok(shape)
    }

    fn layouts(&self) -> Layouts {
        Layouts::Any
    }

    fn evaluate(&self, inputs: &[&Constant]) -> Option<Result<ArrayD<f32>>> {
        /// Products of constants that are worth no more time than this are nodes of the graph.
        const MAX_PRODUCTS: usize = 1 << 26;
        let shapes: Vec<&[usize]> = inputs.iter().map(|x| x.shape()).collect();
        let output = match self.infer(&Inputs { shapes: &shapes, constant: &[true, true] }) {
            Ok(output) => output,
            Err(error) => return Some(Err(error)),
        };
        let depth = shapes[0].last().copied().unwrap_or(1);
        let work = output.iter().fold(depth, |work, &len| work.saturating_mul(len));
        if work > MAX_PRODUCTS {
            return None;
        }
        let dims = |shape| Dims::new(shape, Layout::RowMajor);
        let products = Products::new(FloatProduct, &[dims(shapes[0]), dims(shapes[1])], dims(&output));
        let [a, b] = [0, 1].map(|i| inputs[i].iter().copied().collect::<Vec<f32>>());
        let mut y = ArrayD::zeros(&output[..]);
        let filled = y.as_slice_mut().map(|y| products.each(&a, &b, y, &mut Scratch::default()));
        Some(filled.unwrap_or(Ok(())).map(|()| y))
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(Products::new(FloatProduct, node.inputs, node.output)))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        let depth = node.x().last().copied().unwrap_or(0);
        if check_depth(u8::MAX.into(), u8::MAX.into(), depth, None).is_err() {
            return Ok(OnCodes::Float);
        }
        let [(a_scale, a_zero), (b_scale, b_zero)] =
            [node.operands[0].params.of_tensor("A")?, node.operands[1].params.of_tensor("B")?];
        let columns = node.output.last().copied().unwrap_or(0);
        let epilogue =
            RequantizeEpilogue::new(a_scale, &alloc::vec![b_scale; columns], None, node.to, Arithmetic::F32)?;
        let product = CodeProduct { zero_points: [a_zero, b_zero], epilogue };
        OnCodes::kernel(Products::new(product, node.inputs, node.output))
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        node.all("MatMul", alloc::vec::Vec::new())
    }
}

/// Views of the matrices of a batch.
#[derive(Debug)]
struct Products<P> {
    product: P,
    /// Both factors and the output.
    dims: [OwnedDims; 3],
}

/// A product of two matrices.
trait Product<T>: core::fmt::Debug + Send + Sync {
    fn multiply(
        &self,
        a: ArrayView2<'_, T>,
        b: ArrayView2<'_, T>,
        y: ArrayViewMut2<'_, T>,
        scratch: &mut Scratch,
    ) -> Result<()>;
}

#[derive(Debug)]
struct FloatProduct;

impl Product<f32> for FloatProduct {
    fn multiply(
        &self,
        a: ArrayView2<'_, f32>,
        b: ArrayView2<'_, f32>,
        y: ArrayViewMut2<'_, f32>,
        _: &mut Scratch,
    ) -> Result<()> {
        float_matmul(a, b, y);
        Ok(())
    }
}

/// Exact sums of products of codes, requantized as ONNX Runtime's `QLinearMatMul` does.
#[derive(Debug)]
struct CodeProduct {
    zero_points: [u8; 2],
    epilogue: RequantizeEpilogue<u8>,
}

impl Product<u8> for CodeProduct {
    fn multiply(
        &self,
        a: ArrayView2<'_, u8>,
        b: ArrayView2<'_, u8>,
        mut y: ArrayViewMut2<'_, u8>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let packed = PackedRhs::pack(&b, &[self.zero_points[1]])?;
        gemm_into(&a, self.zero_points[0], &packed, &self.epilogue, &mut y, &mut scratch.gemm)
    }
}

impl<P> Products<P> {
    fn new(product: P, inputs: &[Dims<'_>], output: Dims<'_>) -> Self {
        Self { product, dims: [inputs[0], inputs[1], output].map(OwnedDims::from) }
    }

    fn each<T: Scalar>(&self, a: &[T], b: &[T], y: &mut [T], scratch: &mut Scratch) -> Result<()>
    where
        P: Product<T>,
    {
        let [a_dims, b_dims, y_dims] = &self.dims;
        let lens = self.dims.each_ref().map(|dims| dims.len().max(1));
        let batch = &y_dims.shape[..y_dims.shape.len() - 2];
        for ((a, b), y) in a.chunks_exact(lens[0]).zip(b.chunks_exact(lens[1])).zip(y.chunks_exact_mut(lens[2])) {
            let (a, b) = (a_dims.view(a), b_dims.view(b));
            let wide = |dims: &OwnedDims| [batch, &dims.shape[dims.shape.len() - 2..]].concat();
            let a = a.broadcast(wide(a_dims)).expect("shapes were checked");
            let b = b.broadcast(wide(b_dims)).expect("shapes were checked");
            self.multiply(a, b, y_dims.view_mut(y), scratch)?;
        }
        Ok(())
    }

    /// Multiplies all matrices of tensors with the same axes before the last two.
    fn multiply<T: Scalar>(
        &self,
        a: ArrayViewD<'_, T>,
        b: ArrayViewD<'_, T>,
        mut y: ArrayViewMutD<'_, T>,
        scratch: &mut Scratch,
    ) -> Result<()>
    where
        P: Product<T>,
    {
        if y.ndim() > 2 {
            let factors = a.axis_iter(Axis(0)).zip(b.axis_iter(Axis(0)));
            let mut products = factors.zip(y.axis_iter_mut(Axis(0)));
            return products.try_for_each(|((a, b), y)| self.multiply(a, b, y, scratch));
        }
        let matrices = (a.into_dimensionality(), b.into_dimensionality(), y.view_mut().into_dimensionality());
        let (Ok(a), Ok(b), Ok(y)) = matrices else { unreachable!("tensors of two axes are matrices") };
        self.product.multiply(a, b, y, scratch)
    }
}

impl Kernel for Products<FloatProduct> {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        self.each::<f32>(inputs[0].as_slice(), inputs[1].as_slice(), output.into_slice(), scratch)
    }
}

impl Kernel for Products<CodeProduct> {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        self.each::<u8>(inputs[0].as_slice(), inputs[1].as_slice(), output.into_slice(), scratch)
    }
}
