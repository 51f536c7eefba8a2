//! Layers whose weights and activations are signs, by XOR and population counts: `Σ a * b = depth - 2 * popcount(a ^ b)`.
//!
//! | file | content |
//! |---|---|
//! | `weights` | packed signs, the driver, and outputs as `f32` or as signs |
//! | `linear`, `conv` | the layers |

mod conv;
mod linear;
#[cfg(test)]
mod tests;
mod weights;

pub use conv::BinaryConv2d;
pub use linear::BinaryLinear;
