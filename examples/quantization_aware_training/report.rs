//! The accuracy of each network, as a table and as JSON.

use std::fmt::Write;

use crate::program::{Object, json};

/// The accuracies at one width, one for each seed.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// Of a weight.
    pub(crate) bits: f64,
    pub(crate) float: Vec<f64>,
    /// Quantized after training, by the smallest and greatest values. Signs have none.
    pub(crate) min_max: Vec<f64>,
    /// Quantized after training, where the squared error is least.
    pub(crate) least_error: Vec<f64>,
    pub(crate) trained: Vec<f64>,
    /// Of all codes of all layers, images and seeds: those that the integer network computes differently.
    pub(crate) codes_that_differ: usize,
    /// Packed weights, their scales, and biases.
    pub(crate) bytes: usize,
}

impl Outcome {
    pub(crate) fn new(name: String, bits: f64) -> Self {
        Outcome { name, bits, ..Self::default() }
    }

    /// The means.
    pub(crate) fn to_json(&self) -> Object {
        let min_max = if self.min_max.is_empty() { "null".into() } else { json(mean(&self.min_max)) };
        vec![
            ("network", json(&self.name)),
            ("bits", json(self.bits)),
            ("bytes", json(self.bytes)),
            ("ptq_accuracy", min_max),
            ("ptq_least_error_accuracy", json(mean(&self.least_error))),
            ("qat_accuracy", json(mean(&self.trained))),
            ("float_accuracy", json(mean(&self.float))),
            ("integer_equals_fake", json(self.codes_that_differ == 0)),
        ]
    }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The means as text.
pub(crate) fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "                              quantized after training, by         trained          codes that\n\
         network    bytes    float    min-max         least error      with few bits   differ in integers\n",
    );
    for o in outcomes {
        let float = 100.0 * mean(&o.float);
        let with_loss = |values: &[f64]| match values {
            [] => "-".into(),
            values => format!("{:.2}% ({:+.2})", 100.0 * mean(values), 100.0 * mean(values) - float),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<7} {:>8}  {float:>6.2}%  {:>16}  {:>16}  {:>16}  {:>10}",
            o.name,
            o.bytes,
            with_loss(&o.min_max),
            with_loss(&o.least_error),
            with_loss(&o.trained),
            o.codes_that_differ,
        );
    }
    text
}
