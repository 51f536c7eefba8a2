//! The list of all operators of graphs.

use super::operator::Operator;

/// Defines [`Op`] from the operators: the type of the attributes, and the spelling in ONNX files.
macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident($path:path), $onnx:expr;)*) => {
        /// The attributes of the operators of graphs.
        pub mod attributes {
            pub use crate::ops::interpolate::Coordinates;
            pub use crate::ops::recurrent::{Cell, Direction};
            pub use crate::ops::reduce::Reduction;

            $(pub use $path;)*
        }

        /// An operator of a [`Graph`](crate::graph::Graph), with its attributes.
        ///
        /// Layout is ONNX's: NCHW `[batch, channels, height, width]` for images, `[batch, features]` for vectors. Shapes are
        /// those for a batch of one, with any first axis; a run computes each sample of a batch by itself.
        ///
        /// `X` is the first input. Weights, biases and normalization statistics are further inputs, which must be
        /// constant. [`GraphBuilder`](crate::graph::GraphBuilder) has a method for each operator; use
        /// [`GraphBuilder::node`](crate::graph::GraphBuilder::node) to share constants between nodes.
        ///
        /// ```
        /// use ndarray::Array2;
        /// use ndarray_quant::graph::{GraphBuilder, op};
        /// let mut g = GraphBuilder::new();
        /// let x = g.input("x", &[1, 3])?;
        /// let w = g.constant("w", &Array2::eye(3))?; // one matrix, used twice
        /// let y = g.node("y", op::Linear, &[x, w])?;
        /// let z = g.node("z", op::Linear, &[y, w])?;
        /// assert_eq!(g.shape(z)?, [1, 3]);
        /// # Ok::<(), ndarray_quant::Error>(())
        /// ```
        #[derive(Debug, Clone, PartialEq)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[non_exhaustive]
        pub enum Op {
            $($(#[$doc])* $name(attributes::$name),)*
        }

        $(impl From<attributes::$name> for Op {
            fn from(attributes: attributes::$name) -> Self {
                Op::$name(attributes)
            }
        })*

        /// The spelling of all operators in ONNX files.
        #[cfg(feature = "onnx")]
        pub(crate) const ONNX: &[&[crate::io::onnx::operator::OnnxOperator]] = &[$($onnx,)*];

        impl Op {
            pub(crate) fn operator(&self) -> &dyn Operator {
                match self {
                    $(Op::$name(operator) => operator,)*
                }
            }
        }
    };
}

operators! {
    /// Convolution.
    Conv(crate::ops::conv::op::Conv), crate::ops::conv::onnx::CONV;
    /// Linear layer.
    Linear(crate::ops::linear::op::Linear), crate::ops::linear::onnx::LINEAR;
    /// Product of matrices.
    MatMul(crate::ops::matmul::op::MatMul), crate::ops::matmul::onnx::MATMUL;
    /// Selection by a condition.
    Where(crate::ops::select::Where), crate::ops::select::onnx::WHERE;
    /// LSTM or GRU.
    Recurrent(crate::ops::recurrent::Recurrent), crate::ops::recurrent::onnx::RECURRENT;
    /// Batch normalization.
    BatchNorm(crate::ops::batch_norm::BatchNorm), crate::ops::batch_norm::onnx::BATCH_NORM;
    /// Layer normalization.
    LayerNorm(crate::ops::layer_norm::LayerNorm), crate::ops::layer_norm::onnx::LAYER_NORM;
    /// Hadamard rotation of the last axis.
    Hadamard(crate::ops::hadamard::Hadamard), &[];
    /// Function of the elements of two tensors.
    Binary(crate::ops::binary::op::Binary), crate::ops::binary::onnx::BINARIES;
    /// Function of the elements of one tensor.
    Activation(crate::ops::unary::function::Activation), crate::ops::unary::onnx::UNARIES;
    /// Maximum of each window.
    MaxPool(crate::ops::pool::op::MaxPool), crate::ops::pool::onnx::MAX_POOL;
    /// Mean of each window.
    AveragePool(crate::ops::pool::op::AveragePool), crate::ops::pool::onnx::AVERAGE_POOL;
    /// Mean of each channel.
    GlobalAveragePool(crate::ops::pool::op::GlobalAveragePool), crate::ops::pool::onnx::GLOBAL_AVERAGE_POOL;
    /// Reduction of axes.
    Reduce(crate::ops::reduce::Reduce), crate::ops::reduce::onnx::REDUCE;
    /// Concatenation.
    Concat(crate::ops::concat::op::Concat), crate::ops::concat::onnx::CONCAT;
    /// Zero padding.
    Pad(crate::ops::pad::op::Pad), crate::ops::pad::onnx::PAD;
    /// Upsampling.
    Resize(crate::ops::resize::op::Resize), crate::ops::resize::onnx::RESIZE;
    /// Linear interpolation.
    Interpolate(crate::ops::interpolate::Interpolate), &[];
    /// The same elements in another shape.
    Reshape(crate::ops::reshape::Reshape), crate::ops::reshape::onnx::RESHAPE;
    /// The axes in another order.
    Transpose(crate::ops::transpose::Transpose), crate::ops::transpose::onnx::TRANSPOSE;
    /// Elements of an axis at equal distances.
    Slice(crate::ops::slice::Slice), crate::ops::slice::onnx::SLICE;
    /// Elements of an axis at constant positions.
    Gather(crate::ops::gather::Gather), crate::ops::gather::onnx::GATHER;
    /// Rows of a constant table at computed positions.
    Embedding(crate::ops::gather::Embedding), &[];
    /// Repetition of axes of length 1.
    Expand(crate::ops::expand::Expand), crate::ops::expand::onnx::EXPAND;
    /// Channels as blocks of pixels.
    DepthToSpace(crate::ops::depth_to_space::DepthToSpace), crate::ops::depth_to_space::onnx::DEPTH_TO_SPACE;
    /// Blocks of pixels as channels.
    SpaceToDepth(crate::ops::depth_to_space::SpaceToDepth), crate::ops::depth_to_space::onnx::SPACE_TO_DEPTH;
    /// Position of the greatest or smallest element.
    ArgMax(crate::ops::arg_max::ArgMax), crate::ops::arg_max::onnx::ARG_MAX;
    /// Logarithm of the softmax.
    LogSoftmax(crate::ops::softmax::op::LogSoftmax), &[];
    /// Softmax.
    Softmax(crate::ops::softmax::op::Softmax), crate::ops::softmax::onnx::SOFTMAX;
}

impl Op {
    /// The operator's name, as errors and reports print it.
    pub fn name(&self) -> &'static str {
        self.operator().name()
    }
}
