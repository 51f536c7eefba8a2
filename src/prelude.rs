//! The names that most programs use, to import at once: `use ndarray_quant::prelude::*`.
//!
//! ```
//! use ndarray::{Axis, array};
//! use ndarray_quant::prelude::*;
//!
//! let w = Scheme::<i8>::symmetric().per_axis(Axis(0)).quantize(&array![[0.5f32, -1.0], [2.0, 0.25]])?;
//! let fc = Linear::new(&w, None)?;
//! let mut range = MinMax::per_tensor();
//! range.observe(&array![[-1.0f32, 1.0]])?;
//! let x = Scheme::<u8>::asymmetric().params(&range)?;
//! # let _ = (fc, x);
//! # Ok::<(), ndarray_quant::Error>(())
//! ```

pub use crate::graph::{Graph, GraphBuilder, QuantizedNetwork, Recipe};
pub use crate::nn::{Conv2d, Linear, Output, Window};
pub use crate::observer::{MinMax, Observer};
pub use crate::{Dequantize, Granularity, I4, Packed, QParams, QTensor, Quantize, Scheme};
