//! Special functions of other systems, bit for bit.

/// FBGEMM and torchao.
pub mod fbgemm {
    pub use crate::affine::choose_qparams;
}

/// gemmlowp and TensorFlow Lite: fixed-point multipliers.
pub mod gemmlowp {
    pub use crate::affine::{FixedPoint, FixedPointRounding};
}
