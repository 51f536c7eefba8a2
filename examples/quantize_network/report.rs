//! Measures the size, accuracy and speed of each network.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::data::Dataset;
use crate::net::{Network, predictions};
use crate::program::{Object, json};
use crate::quantized::Model;

/// Batch size.
const BATCH: usize = 256;

/// Number of timed passes over the test images. The reported time is the median.
const PASSES: usize = 9;

/// One line of the table.
pub(crate) struct Row {
    pub(crate) mode: &'static str,
    pub(crate) bytes: usize,
    /// Bytes, as a fraction of the float network's bytes.
    pub(crate) ratio: f64,
    /// The fraction of the images that are classified as labelled.
    pub(crate) accuracy: f64,
    /// The fraction of the images that are classified as by the float network.
    agreement: f64,
    ns_per_image: f64,
}

/// Runs all test images through each model.
pub(crate) fn measure(float: &Network, models: &[&dyn Model], test: &Dataset) -> ndarray_quant::Result<Vec<Row>> {
    let mut times = vec![Vec::with_capacity(PASSES); models.len()];
    // In turn, so that a moment at which the machine is busy with something else hits all alike.
    for _ in 0..PASSES {
        for (times, model) in times.iter_mut().zip(models) {
            let start = Instant::now();
            for images in test.batches(BATCH) {
                std::hint::black_box(model.scores(&images)?);
            }
            times.push(start.elapsed());
        }
    }
    let expected = classify(float, test)?;
    let row = |(model, times): (&&dyn Model, Vec<Duration>)| {
        let found = classify(*model, test)?;
        Ok(Row {
            mode: model.name(),
            bytes: model.size_in_bytes(),
            ratio: model.size_in_bytes() as f64 / float.size_in_bytes() as f64,
            accuracy: matching(&found, test.labels.iter()),
            agreement: matching(&found, &expected),
            ns_per_image: median(times).as_nanos() as f64 / test.len() as f64,
        })
    };
    models.iter().zip(times).map(row).collect()
}

fn classify(model: &dyn Model, data: &Dataset) -> ndarray_quant::Result<Vec<usize>> {
    let mut classes = Vec::with_capacity(data.len());
    for images in data.batches(BATCH) {
        classes.extend(predictions(&model.scores(&images)?));
    }
    Ok(classes)
}

fn matching<'a>(found: &[usize], expected: impl IntoIterator<Item = &'a usize>) -> f64 {
    let matching = found.iter().zip(expected).filter(|(found, expected)| found == expected).count();
    matching as f64 / found.len() as f64
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// The rows as text.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("mode            weights in bytes   ratio   accuracy   agrees with float   time per image\n");
    for r in rows {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<14}  {:>16}  {:>5.3}×  {:>8.2}%  {:>17.2}%  {:>11.2} µs",
            r.mode,
            r.bytes,
            r.ratio,
            100.0 * r.accuracy,
            100.0 * r.agreement,
            r.ns_per_image / 1000.0,
        );
    }
    text
}

impl Row {
    pub(crate) fn to_json(&self) -> Object {
        vec![
            ("mode", json(self.mode)),
            ("bytes", json(self.bytes)),
            ("ratio", json(self.ratio)),
            ("accuracy", json(self.accuracy)),
            ("agreement", json(self.agreement)),
            ("ns_per_image", json(self.ns_per_image)),
        ]
    }
}
