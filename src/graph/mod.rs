//! Networks: a float network of operators over named tensors, and the way from there to integers.
//!
//! ```text
//! GraphBuilder or ONNX → Graph → simplify → Calibration → Recipe → quantize → QuantizedNetwork → run
//!                                  └→ compile → FloatNetwork → run                   └→ report
//! ```
//!
//! | to | see |
//! |---|---|
//! | write a network in Rust | [`GraphBuilder`], [`Op`], [`Window`] |
//! | read one from a file | `io::onnx`, with the feature `onnx` |
//! | run it in floats | [`Graph::run`]; [`Graph::compile`] and [`Arena`] to run it more than once |
//! | have fewer operators compute the same | [`Graph::simplify`] |
//! | find ranges, and a way to keep every tensor | [`Calibration`], [`Recipe`]; without data [`Recipe::float16`] and [`Recipe::dynamic_range`] |
//! | run on integers | [`Graph::quantize`], [`QuantizedNetwork`] |
//! | lose less accuracy | [`Graph::equalize`], [`Graph::quantize_tuned`], [`Graph::within_budget`] |
//! | see which layer hurts | [`QuantizedNetwork::report`] |
//! | save and load integers | `io::safetensors`, with the feature `safetensors` |
//!
//! ```
//! use ndarray::{Array, Array1};
//! use ndarray_quant::observer::MinMax;
//! use ndarray_quant::graph::{Activation, Calibration, GraphBuilder};
//!
//! let mut g = GraphBuilder::new();
//! let x = g.input("x", &[1, 4])?; // for a batch of one; any batch runs
//! let w = Array::from_shape_fn((3, 4), |(o, i)| (o as f32 - i as f32) * 0.25);
//! let x = g.linear("hidden", &x, &w, Some(&Array1::ones(3)))?;
//! let x = g.activation("relu", &x, Activation::relu())?;
//! let x = g.linear("scores", &x, &w.slice(ndarray::s![..2, ..3]), None)?;
//! let graph = g.build(&[&x])?.simplify()?;
//!
//! let images = Array::from_shape_fn((16, 4), |(n, i)| ((n * 4 + i) as f32).sin());
//! let mut calibration = Calibration::new(&graph, MinMax::per_tensor())?;
//! calibration.observe(&images)?;
//! let network = graph.quantize(&calibration.recipe()?)?;
//!
//! let (found, float) = (network.run(&images)?, graph.run(&images)?);
//! assert!(found.iter().zip(&float).all(|(x, y)| (x - y).abs() < 0.05));
//! println!("{}", network.report(&graph, &images)?);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```
//!
//! Shapes are ONNX's, `[batch, channels, height, width]`; constants are `f32`. What runs on codes
//! gives the same bits on every machine and for every number of threads.

// What lies where:
//
// | file | idea |
// |---|---|
// | `op`, `shape` | what operators there are, and the shapes that they make |
// | `network`, `builder` | operators over named tensors, checked; written in Rust |
// | `fold` | fewer operators that compute the same |
// | `kernel`, `plan`, `buffers`, `layout`, `index`, `load`, `compile` | execution plan, buffer assignment, NHWC layout |
// | `movement`, `float/` | kernels of data movement and of float operators |
// | `recipe`, `calibrate` | how each tensor is kept; ranges from batches |
// | `moments`, `rounding` | what inputs of layers are like, and the codes of weights that suit it |
// | `equalize` | the same function with channels of more equal range |
// | `quantize`, `stored` | weights in fewer bits |
// | `codes`, `code_ops`, `lower`, `qnetwork` | kernels on codes; lowering to codes, or to their simulation on floats |
// | `mixed` | precision where it matters, under a budget |
// | `report` | which layer hurts |

mod buffers;
mod builder;
mod calibrate;
mod code_ops;
mod codes;
mod compile;
mod equalize;
mod float;
mod fold;
mod index;
mod kernel;
mod layout;
mod load;
mod lower;
mod mixed;
mod moments;
mod movement;
mod network;
mod op;
mod plan;
mod qnetwork;
mod quantize;

mod recipe;
mod report;
mod rounding;
mod shape;
mod stored;

#[doc(no_inline)]
pub use crate::window::{Padding, Window};
pub use builder::GraphBuilder;
pub use calibrate::{Calibration, calibrate};
pub use compile::FloatNetwork;
pub use equalize::ChannelAbsMax;
pub use mixed::Budget;
pub use moments::InputStatistics;
#[cfg(feature = "safetensors")]
pub(crate) use network::Parts;
pub use network::{Constant, Graph, Input, Node};
pub use op::{Activation, Clamp, Op};
pub use plan::Arena;
pub use qnetwork::QuantizedNetwork;
pub use recipe::{Precision, Recipe, TensorRecipe};
pub use report::{ErrorMetrics, ErrorReport, LayerReport};
#[cfg(feature = "safetensors")]
pub(crate) use stored::Stored;
