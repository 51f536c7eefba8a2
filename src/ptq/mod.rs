//! Post-training quantization of linear layers at four bits and fewer.
//!
//! [`Scheme::quantize`](crate::Scheme::quantize) rounds each weight `[out, in]` to the nearest code of a grid that spans
//! the range of its block. The methods here choose codes, grids or another form of the layer that lose less. They take
//! blocks per tensor, per output (axis 0) and per group along axis 1, of any element type, symmetric or asymmetric. Their
//! tensors are those of [`nn::LinearNBits`](crate::nn::LinearNBits) and [`nn::Linear`](crate::nn::Linear).
//!
//! | method | chooses | needs | cost in multiply–accumulates | source |
//! |---|---|---|---|---|
//! | [`Gptq`] | codes, and the scales of groups | Hessian | `in³ / 6 + out · in² / 2` | Frantar et al., 2022 |
//! | [`CoordinateDescent`] | codes | Hessian | below `6 · out · in²` | QuantEase: Behdin et al., 2023 |
//! | [`AdaRound`] | codes | Hessian | `1000 · out · in²` | Nagel et al., 2020 |
//! | [`Hqq`] | scales and zero points | nothing | about `2000 · out · in` | Badri & Shaji, 2023 |
//! | [`Awq`] | a factor for each input channel | [`InputStatistics`] | `10 · out · in²` | Lin et al., 2023 |
//! | [`SmoothQuant`] | a factor for each input channel | largest inputs | `out · in` | Xiao et al., 2022 |
//! | [`Hadamard`] | a rotation of input and weights | nothing | `in · log in` per row | QuaRot: Ashkboos et al., 2024 |
//!
//! The *Hessian* of a layer's squared error is `E[x · xᵀ]` up to a factor: [`InputStatistics::second_moments`] of the
//! layer's input on a few hundred rows or more. Take [`InputStatistics::covariance`] in its place if the bias then takes up
//! the mean error.
//!
//! Methods combine: scale or rotate the input first and observe what the layer then reads; choose a grid by [`Hqq`]; choose
//! codes on it by [`Gptq`], [`CoordinateDescent`] or [`AdaRound`], which take a scheme or the parameters of a tensor.
//! [`output_noise`] compares them.
//!
//! Results are the same bits on every instruction set and number of threads.

mod ada_round;
mod awq;
mod coordinate_descent;
mod gptq;
mod hadamard;
mod hessian;
mod hqq;
mod power;
mod rows;
mod smooth_quant;
mod statistics;

pub use ada_round::AdaRound;
pub use awq::Awq;
pub use coordinate_descent::CoordinateDescent;
pub use gptq::Gptq;
pub use hadamard::Hadamard;
pub use hessian::output_noise;
pub use hqq::Hqq;
pub use rows::Grid;
pub use smooth_quant::SmoothQuant;
pub use statistics::InputStatistics;
pub(crate) use statistics::SumScratch;
