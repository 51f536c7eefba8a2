//! Networks: build or import a float graph, calibrate it, quantize it, run it.
//!
//! ```text
//!  GraphBuilder, ONNX ─→ Graph ─→ simplify ─→ equalize ─→ calibrate ─→ Recipe ─→ quantize ─→ QuantizedNetwork
//!                          │      fold, fuse  (optional)   ranges      edit it                │    │      │
//!                       compile                                                             run  save  report
//!                          │
//!                     FloatNetwork ─→ run
//! ```
//!
//! | task | see |
//! |---|---|
//! | build a network in Rust | [`GraphBuilder`], [`TensorId`], [`Op`], [`op`], [`Activation`] |
//! | import ONNX (feature `onnx`) | `Graph::from_onnx`, `io::onnx` |
//! | look at a graph | [`Graph`], [`Node`], [`Clamp`] |
//! | run in float | [`Graph::run`]; [`Graph::compile`] and [`Arena`] to run more than once |
//! | fold batch normalization, fuse activations | [`Graph::simplify`] |
//! | calibrate | [`Graph::calibrate`], [`Calibrator`], [`Calibration`], [`CalibrationMethod`] |
//! | quantize without data | [`Recipe::float16`], [`Recipe::dynamic_range`] |
//! | read and edit precisions and ranges | [`Recipe`], [`TensorRecipe`], [`GivenParams`], [`Precision`] |
//! | quantize in one call | [`FullInteger`], [`FullIntegerSearch`] |
//! | quantize and run | [`Graph::quantize`], [`QuantizedNetwork`] |
//! | equalize channels | [`Graph::equalize`] |
//! | scale or rotate the inputs of linear layers: SmoothQuant, AWQ, Hadamard | [`Graph::transform_inputs`], [`InputTransform`] |
//! | round weights by their effect on the output: GPTQ, AdaRound, … | [`Graph::quantize_with`], [`WeightRounding`] |
//! | choose precisions for a size or an SQNR | [`Graph::mixed_precision_within_bytes`], [`Graph::mixed_precision_for_sqnr`], [`MixedPrecision`] |
//! | find the layer that costs accuracy | [`QuantizedNetwork::report`], [`ErrorReport`], [`LayerReport`], [`ErrorMetrics`] |
//! | list the nodes that stay in float, and why | [`QuantizedNetwork::modes`] |
//! | read a network that is already quantized (feature `onnx`) | `QuantizedNetwork::from_onnx` |
//! | write for a microcontroller | [`QuantizedNetwork::to_micro`], [`micro`](crate::micro) |
//! | save and load (feature `safetensors`) | `QuantizedNetwork::save`, `QuantizedNetwork::load`, `io::safetensors` |
//!
//! ```
//! use ndarray::{Array, Array1, Axis};
//! use ndarray_quant::graph::{CalibrationMethod, GraphBuilder};
//!
//! // A float network: 4 inputs, 3 hidden units, 2 scores.
//! let mut g = GraphBuilder::new();
//! let x = g.input("x", &[1, 4])?; // the first axis is the batch
//! let w = Array::from_shape_fn((3, 4), |(o, i)| (o as f32 - i as f32) * 0.25);
//! let x = g.linear("hidden", x, &w, Some(&Array1::ones(3)))?;
//! let x = g.relu("relu", x)?;
//! let y = g.linear("scores", x, &w.slice(ndarray::s![..2, ..3]), None)?;
//! let graph = g.build(&[y])?.simplify()?;
//!
//! // Full-integer quantization.
//! let samples = Array::from_shape_fn((16, 4), |(n, i)| ((n * 4 + i) as f32).sin());
//! let calibration = graph.calibrate(samples.axis_chunks_iter(Axis(0), 8))?;
//! let recipe = calibration.recipe(&graph, CalibrationMethod::MinMax)?;
//! println!("{recipe}");
//! let network = graph.quantize(&recipe)?;
//!
//! let (found, float) = (network.run(&samples)?, graph.run(&samples)?);
//! assert!(found.iter().zip(&float).all(|(x, y)| (x - y).abs() < 0.05));
//! println!("{}", network.report(&graph, &samples)?);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```
//!
//! Layout is ONNX's, NCHW `[batch, channels, height, width]`; runs convert to NHWC where images are processed. Constants are `f32`. Computation on
//! codes gives the same bits on every machine and for every number of threads.

// | file | content |
// |---|---|
// | `network`, `builder` | the graph, its checks, its builder |
// | `fold`, `fuse`, `reshapes` | folding of affine functions, fusion of activations, dead-node elimination; functions of several nodes |
// | `compile`, `plan`, `buffers`, `load`, `broadcast_constant` | execution plan, buffer assignment, inputs, constants |
// | `recipe` | quantization recipes |
// | `calibrate` | the tap: ranges, channel maxima and second moments of activations, and recipes from them |
// | `equalize` | cross-layer equalization |
// | `transform_inputs` | factors and rotations of the inputs of linear layers |
// | `edit` | changes of constants |
// | `full_integer`, `samples` | the whole trip in one call; the choice of ranges by the error behind each tensor; held-out samples |
// | `code_roots` | tensors that share their codes |
// | `weight_rounding` | weight rounding with bias correction |
// | `quantize`, `stored` | quantized weights |
// | `lower`, `qnetwork` | lowering to codes, or to their simulation on floats |
// | `micro` | full-integer networks for microcontrollers |
// | `mixed` | mixed precision under a budget |
// | `report` | quantization error per layer |
//
// Operators are in `ops`, behind the trait `Operator`: their attributes, shape inference and kernels.

mod broadcast_constant;
mod buffers;
mod builder;
mod calibrate;
mod code_roots;
pub(crate) mod collect;
mod compile;
mod edit;
mod equalize;
mod fold;
mod full_integer;
mod fuse;
mod layouts;
mod load;
mod lower;
mod micro;
mod mixed;
mod modes;
mod network;
mod plan;
mod qnetwork;
mod quantize;
mod recipe;
mod report;
mod reshapes;
mod samples;
mod stored;
mod transform_inputs;
mod weight_rounding;

pub use crate::ops::clamp::Clamp;
pub use crate::ops::registry::Op;
#[doc(inline)]
pub use crate::ops::registry::attributes as op;
pub use builder::{GraphBuilder, TensorId};
pub use calibrate::{Calibration, CalibrationMethod, Calibrator};
pub use compile::FloatNetwork;
pub use full_integer::{FullInteger, FullIntegerSearch, FullIntegerStep};
#[cfg(feature = "onnx")]
pub(crate) use lower::Quantized;
pub use mixed::MixedPrecision;
pub use modes::{Mode, NodeMode};
#[cfg(feature = "safetensors")]
pub(crate) use network::Input;
#[cfg(feature = "safetensors")]
pub(crate) use network::Parts;
#[cfg(feature = "onnx")]
pub(crate) use network::{Constant, check_operator};
pub use network::{Graph, Node};
pub use op::Activation;
pub use plan::Arena;
pub use qnetwork::QuantizedNetwork;
pub use quantize::Quantization;
pub use recipe::{GivenParams, Precision, Recipe, TensorRecipe};
pub use report::{ErrorMetrics, ErrorReport, LayerReport};
#[cfg(any(feature = "safetensors", feature = "onnx"))]
pub(crate) use stored::Stored;
pub use transform_inputs::InputTransform;
pub use weight_rounding::WeightRounding;
