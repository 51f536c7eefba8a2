//! Poolings in a graph: attributes, shape inference, choice of kernels.

use alloc::boxed::Box;

use ndarray::{ArrayRef4, ArrayView4, ArrayViewMut4};

use super::float;
use crate::error::{Error, Result};
use crate::gemm::Workspace;
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
use crate::micro::{Region, Step, StepWriter, Unsupported, Written};
use crate::ops::conv::Geometry;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::ops::operator::{CodeNode, FloatNode, Inputs, Layouts, OnCodes, Operator};
use crate::ops::shape::{NCHW, Shape, elements, empty_image, place, ranked};
use crate::window::{Placed, Window};
#[cfg(feature = "onnx")]
use alloc::string::String;

/// The maximum of each window; padding is ignored (ONNX: `MaxPool`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MaxPool {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Strides, dilations and padding of the kernel.
    pub window: Window,
}

/// The mean of each window (ONNX: `AveragePool`).
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct AveragePool {
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Strides, dilations and padding of the kernel.
    pub window: Window,
    /// Counts padding as zeros in the mean. Elements beyond the padding, which
    /// [`ceil_mode`](Window::with_ceil_mode) lets a kernel cover, never count.
    pub count_include_pad: bool,
}

/// The mean of each channel: `[batch, c, h, w]` to `[batch, c, 1, 1]` (ONNX: `GlobalAveragePool`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GlobalAveragePool;

impl Operator for MaxPool {
    fn name(&self) -> &'static str {
        "MaxPool"
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        infer(inputs.x(), self.kernel, &self.window)
    }

    fn layouts(&self) -> Layouts {
        Layouts::ChannelsLast
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(float::Pool::max(Geometry::new(self.kernel, &self.window, 1, &node.x(), &node.output))))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        if !node.same_params() {
            return Ok(OnCodes::Float);
        }
        PoolOnCodes::kernel(node, super::MaxPool::new(self.kernel, &self.window)?)
    }

    fn keeps_range(&self) -> bool {
        true
    }

    fn commutes_with_scaling(&self, _: &Inputs<'_>, _: &[usize]) -> bool {
        true
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        super::onnx::write("MaxPool", (&self.kernel, &self.window), false, node)
    }
}

impl Operator for AveragePool {
    fn name(&self) -> &'static str {
        "AveragePool"
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        infer(inputs.x(), self.kernel, &self.window)
    }

    fn layouts(&self) -> Layouts {
        Layouts::ChannelsLast
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        let geometry = Geometry::new(self.kernel, &self.window, 1, &node.x(), &node.output);
        Some(Box::new(float::Pool::average(geometry, self.count_include_pad)))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        let pool = super::AveragePool::new(node.params(), self.kernel, &self.window, &node.to())?;
        PoolOnCodes::kernel(node, pool.count_include_pad(self.count_include_pad))
    }

    fn commutes_with_scaling(&self, _: &Inputs<'_>, _: &[usize]) -> bool {
        true
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        super::onnx::write("AveragePool", (&self.kernel, &self.window), self.count_include_pad, node)
    }
}

impl Operator for GlobalAveragePool {
    fn name(&self) -> &'static str {
        "GlobalAveragePool"
    }

    fn infer(&self, inputs: &Inputs<'_>) -> Result<Shape> {
        let [n, c, h, w] = ranked("input", NCHW, inputs.x())?;
        if h * w == 0 {
            return Err(empty_image(inputs.x()));
        }
        Ok(alloc::vec![n, c, 1, 1])
    }

    fn layouts(&self) -> Layouts {
        Layouts::ChannelsLast
    }

    fn float_kernel(&self, node: &FloatNode<'_>) -> Option<Box<dyn Kernel>> {
        Some(Box::new(float::GlobalAverage::new(&node.x())))
    }

    fn code_kernel(&self, node: &CodeNode<'_>) -> Result<OnCodes> {
        PoolOnCodes::kernel(node, super::GlobalAveragePool::new(node.params(), &node.to())?)
    }

    fn commutes_with_scaling(&self, _: &Inputs<'_>, _: &[usize]) -> bool {
        true
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        node.all("GlobalAveragePool", alloc::vec::Vec::new())
    }
}

fn infer(x: &[usize], kernel: [usize; 2], window: &Window) -> Result<Shape> {
    let ([n, c, _, _], placed) = place(x, kernel, window)?;
    let shape = alloc::vec![n, c, placed.output[0], placed.output[1]];
    elements(&shape)?;
    // Without an element under the kernel there is no maximum and no mean.
    if covers_padding_only(&placed, 0) || covers_padding_only(&placed, 1) {
        let (expected, [h, w]) = ("at least one pixel of the image in each window", placed.image);
        let found = alloc::format!("a window of padding only (kernel {kernel:?}, image {h} x {w})");
        return Err(Error::Argument { what: "pooling", expected, found });
    }
    Ok(shape)
}

/// Returns whether some output along an axis has a kernel that covers padding only.
fn covers_padding_only(placed: &Placed, axis: usize) -> bool {
    let is_empty = |at: usize| placed.kernel_range(axis, at).is_empty();
    let outputs = placed.output[axis];
    if placed.dilations[axis] <= placed.image[axis] {
        // No gap of the kernel spans the image: if the first and the last kernel reach it, all between do.
        outputs > 0 && (is_empty(0) || is_empty(outputs - 1))
    } else {
        (0..outputs).any(is_empty)
    }
}

/// A pooling on codes.
trait Pooling: core::fmt::Debug + Send + Sync {
    /// The step of a model for images of this height, width and number of channels.
    fn step(&self, image: [usize; 3], x: Region, y: Region) -> Result<Step>;

    fn forward(&self, x: &ArrayRef4<u8>, out: &mut ArrayRef4<u8>, workspace: &mut Workspace) -> Result<()>;
}

macro_rules! poolings {
    ($($pool:ty),*) => {$(
        impl Pooling for $pool {
            fn step(&self, image: [usize; 3], x: Region, y: Region) -> Result<Step> {
                self.micro_step(image, x, y)
            }

            fn forward(&self, x: &ArrayRef4<u8>, out: &mut ArrayRef4<u8>, workspace: &mut Workspace) -> Result<()> {
                self.forward_into(x, out, workspace)
            }
        }
    )*};
}
poolings!(super::MaxPool, super::AveragePool<u8>, super::GlobalAveragePool<u8>);

#[derive(Debug)]
struct PoolOnCodes<P> {
    pool: P,
    /// The shapes of the input and of the output in memory.
    shapes: [[usize; 4]; 2],
}

impl<P: Pooling + 'static> PoolOnCodes<P> {
    fn kernel(node: &CodeNode<'_>, pool: P) -> Result<OnCodes> {
        let shapes = [node.x(), node.output].map(|shape| [shape[0], shape[2], shape[3], shape[1]]);
        OnCodes::kernel(Self { pool, shapes })
    }
}

impl<P: Pooling> Kernel for PoolOnCodes<P> {
    fn write_micro(&self, node: &mut StepWriter<'_>) -> Written {
        let [_, height, width, channels] = self.shapes[0];
        let step = self.pool.step([height, width, channels], node.x[0], node.y);
        node.step(step.map_err(Unsupported::from)?);
        Ok(())
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let [x, y] = self.shapes.map(|[count, height, width, channels]| (images * count, height, width, channels));
        let x = ArrayView4::from_shape(x, inputs[0].as_slice()).expect("lengths were planned");
        let mut y = ArrayViewMut4::from_shape(y, output.into_slice()).expect("lengths were planned");
        self.pool.forward(&x, &mut y, &mut scratch.gemm)
    }
}
