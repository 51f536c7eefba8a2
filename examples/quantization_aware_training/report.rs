//! The accuracy of each network, as a table and as JSON.

use std::fmt::Write;

use crate::program::{Object, json};

/// The accuracies at one width, one for each seed.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Of weights and activations.
    pub(crate) bits: u32,
    pub(crate) float: Vec<f64>,
    /// Quantized after training, by the smallest and greatest values.
    pub(crate) min_max: Vec<f64>,
    /// Quantized after training, where the squared error is least.
    pub(crate) least_error: Vec<f64>,
    pub(crate) trained: Vec<f64>,
    /// Of all codes of all layers, images and seeds: those that the integer network computes differently.
    pub(crate) codes_that_differ: usize,
}

impl Outcome {
    pub(crate) fn new(bits: u32) -> Self {
        Outcome { bits, ..Self::default() }
    }

    /// The means.
    pub(crate) fn to_json(&self) -> Object {
        vec![
            ("bits", json(self.bits)),
            ("ptq_accuracy", json(mean(&self.min_max))),
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
        "                 quantized after training, by         trained          codes that\n\
         bits     float    min-max         least error      with few bits   differ in integers\n",
    );
    for o in outcomes {
        let float = 100.0 * mean(&o.float);
        let with_loss = |values: &[f64]| format!("{:.2}% ({:+.2})", 100.0 * mean(values), 100.0 * mean(values) - float);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "W{0}A{0}  {float:>6.2}%  {1:>16}  {2:>16}  {3:>16}  {4:>10}",
            o.bits,
            with_loss(&o.min_max),
            with_loss(&o.least_error),
            with_loss(&o.trained),
            o.codes_that_differ,
        );
    }
    text
}
