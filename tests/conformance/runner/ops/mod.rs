//! Computes the outputs of a case with the crate.
//!
//! Operations read the attributes and the inputs in order, and never the name of the case.

mod affine;
mod block;
mod cast;
mod choose;
mod conv;
mod elementwise;
mod fake_quantize;
mod fixed_point;
mod matmul;
mod observer;
mod pool;
mod requantize;

use super::Outcome;
use super::case::Case;
use super::tensor::Tensor;

/// Computes the outputs of a case, in order.
pub(crate) type Operation = fn(&Case) -> Outcome<Vec<Tensor>>;

/// Returns the operation of this name, if it is covered.
pub(crate) fn find(op: &str) -> Option<Operation> {
    Some(match op {
        "quantize_linear" => affine::quantize_linear,
        "dequantize_linear" => affine::dequantize_linear,
        "quantize" => affine::quantize,
        "dequantize" => affine::dequantize,
        "quantize_per_tensor" | "quantize_per_channel" => affine::quantize_torch,
        "dequantize_per_tensor" | "dequantize_per_channel" => affine::dequantize_torch,
        "dynamic_quantize_linear" => affine::dynamic_quantize_linear,
        "fake_quantize" => fake_quantize::fake_quantize,
        "fake_quantize_learnable" => fake_quantize::fake_quantize_learnable,
        "choose_qparams" => choose::choose_qparams,
        "multiply_by_quantized_multiplier" => fixed_point::multiply_by_quantized_multiplier,
        "quantize_multiplier" => fixed_point::quantize_multiplier,
        "rounding_divide_by_pot" => fixed_point::rounding_divide_by_pot,
        "saturating_rounding_doubling_high_mul" => fixed_point::saturating_rounding_doubling_high_mul,
        "requantize" => requantize::requantize,
        "requantize_acc" => requantize::requantize_acc,
        "matmul_integer" => matmul::matmul_integer,
        "qlinear_matmul" => matmul::qlinear_matmul,
        "fully_connected" => matmul::fully_connected,
        "add" | "qlinear_add" => elementwise::add,
        "mul" | "qlinear_mul" => elementwise::mul,
        "logistic" | "qlinear_sigmoid" => elementwise::sigmoid,
        "average_pool_2d" => pool::average_pool_2d,
        "qlinear_average_pool" => pool::qlinear_average_pool,
        "qlinear_global_average_pool" => pool::qlinear_global_average_pool,
        "conv_integer" => conv::conv_integer,
        "qlinear_conv" => conv::qlinear_conv,
        "conv_2d" => conv::conv_2d,
        "depthwise_conv_2d" => conv::depthwise_conv_2d,
        "observer_min_max" | "observer_per_channel_min_max" => observer::min_max,
        "observer_moving_average" | "observer_moving_average_per_channel" => observer::moving_average,
        "observer_histogram" => observer::histogram,
        "gguf_quantize" => block::gguf_quantize,
        "gguf_dequantize" => block::gguf_dequantize,
        "dequantize_nbits" => block::dequantize_nbits,
        "matmul_nbits" => block::matmul_nbits,
        "cast" | "encode" | "decode" => cast::cast,
        _ => return None,
    })
}
