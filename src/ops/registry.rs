//! The list of all operators of graphs.

use super::operator::Operator;

/// Defines [`Op`] from the operators and the types of their attributes.
macro_rules! operators {
    ($($(#[$doc:meta])* $name:ident($path:path),)*) => {
        /// The attributes of the operators of graphs.
        pub mod attributes {
            $(pub use $path;)*
        }

        /// An operator of a [`Graph`](crate::graph::Graph), with its attributes.
        ///
        /// Layout is ONNX's: NCHW `[batch, channels, height, width]` for images, `[batch, features]` for vectors. The
        /// first axis of every activation is the batch, and no operator mixes samples of a batch.
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
    Conv(crate::ops::conv::op::Conv),
    /// Linear layer.
    Linear(crate::ops::linear::op::Linear),
    /// Batch normalization.
    BatchNorm(crate::ops::batch_norm::BatchNorm),
    /// Function of the elements of two tensors.
    Binary(crate::ops::binary::op::Binary),
    /// Function of the elements of one tensor.
    Activation(crate::ops::unary::function::Activation),
    /// Maximum of each window.
    MaxPool(crate::ops::pool::op::MaxPool),
    /// Mean of each window.
    AveragePool(crate::ops::pool::op::AveragePool),
    /// Mean of each channel.
    GlobalAveragePool(crate::ops::pool::op::GlobalAveragePool),
    /// Concatenation.
    Concat(crate::ops::concat::op::Concat),
    /// Zero padding.
    Pad(crate::ops::pad::op::Pad),
    /// Upsampling.
    Resize(crate::ops::resize::op::Resize),
    /// The same elements in another shape.
    Reshape(crate::ops::reshape::Reshape),
    /// Softmax.
    Softmax(crate::ops::softmax::op::Softmax),
}

impl Op {
    /// The operator's name, as errors and reports print it.
    pub fn name(&self) -> &'static str {
        self.operator().name()
    }
}
