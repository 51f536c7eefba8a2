//! Measures each network against the float network: error, size and speed.

use std::fmt::Write;
use std::time::Instant;

use ndarray::{Array4, ArrayD, ArrayView1, Axis, Slice};
use ndarray_quant::Result;
use ndarray_quant::graph::{Arena, FloatNetwork, QuantizedNetwork};

use crate::program::{Object, json};

/// Number of images timed, in batches of one. The reported time is the median.
const TIMED: usize = 41;

/// One of the networks that are compared.
pub(crate) struct Mode<'a> {
    name: &'static str,
    bytes: usize,
    network: Network<'a>,
}

enum Network<'a> {
    Float(&'a FloatNetwork),
    Quantized(&'a QuantizedNetwork),
}

impl<'a> Mode<'a> {
    pub(crate) fn float(network: &'a FloatNetwork, bytes: usize) -> Self {
        Mode { name: "float32", bytes, network: Network::Float(network) }
    }

    pub(crate) fn quantized(name: &'static str, network: &'a QuantizedNetwork) -> Self {
        Mode { name, bytes: network.weights_size_in_bytes(), network: Network::Quantized(network) }
    }

    fn run(&self, x: &ndarray::ArrayRef4<f32>, arena: &mut Arena) -> Result<ArrayD<f32>> {
        match self.network {
            Network::Float(network) => network.run_with(x, arena),
            Network::Quantized(network) => network.run_with(x, arena),
        }
    }
}

/// One line of the table.
pub(crate) struct Row {
    mode: &'static str,
    bytes: usize,
    ms_per_image: f64,
    /// Cosine similarity to the float network's outputs, averaged over all images.
    cosine_mean: f64,
    /// SQNR in dB over all images.
    sqnr_db: f64,
    /// Top-1 agreement: the fraction of images whose greatest output has the same index as in the float network.
    top1_agreement: f64,
}

/// Compares all modes with the first one.
pub(crate) fn measure(modes: &[Mode], check: &Array4<f32>) -> Result<Vec<Row>> {
    let image = |i: usize| check.slice_axis(Axis(0), Slice::from(i..i + 1));
    let mut arenas: Vec<Arena> = modes.iter().map(|_| Arena::new()).collect();
    let mut times = vec![Vec::with_capacity(TIMED); modes.len()];
    let images = check.len_of(Axis(0)).max(1);
    // The networks take turns, so that other load on the machine affects all of them. The first round is a warm-up.
    for i in 0..=TIMED {
        for ((mode, arena), times) in modes.iter().zip(&mut arenas).zip(&mut times) {
            let start = Instant::now();
            std::hint::black_box(mode.run(&image(i % images), arena)?);
            if i > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let expected = modes[0].run(check, &mut arenas[0])?;
    let row = |((mode, arena), mut times): ((&Mode, &mut Arena), Vec<f64>)| {
        times.sort_by(f64::total_cmp);
        let found = mode.run(check, arena)?;
        let (mut signal, mut error, mut cosines, mut same) = (0.0, 0.0, 0.0, 0);
        for (x, y) in expected.outer_iter().zip(found.outer_iter()) {
            let (x, y) = (x.iter().copied().collect::<Vec<f32>>(), y.iter().copied().collect::<Vec<f32>>());
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            signal += dot(&x, &x);
            error += x.iter().zip(&y).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>();
            cosines += dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt();
            same += usize::from(greatest(&x) == greatest(&y));
        }
        Ok(Row {
            mode: mode.name,
            bytes: mode.bytes,
            ms_per_image: times[times.len() / 2],
            cosine_mean: cosines / images as f64,
            // The float network agrees with itself exactly; JSON has no infinity.
            sqnr_db: if error > 0.0 { 10.0 * (signal / error).log10() } else { f64::MAX },
            top1_agreement: same as f64 / images as f64,
        })
    };
    modes.iter().zip(&mut arenas).zip(times).map(row).collect()
}

fn greatest(x: &[f32]) -> Option<usize> {
    ArrayView1::from(x).iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| i)
}

/// The rows as text.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("mode                bytes   ratio   ms/image   speed   cosine    SQNR     top 1 as float\n");
    for r in rows {
        let exact = r.sqnr_db == f64::MAX;
        let sqnr = if exact { "exact".into() } else { format!("{:.1} dB", r.sqnr_db) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<14}  {:>9}  {:>5.3}×  {:>9.3}  {:>5.2}×  {:.5}  {:>8}  {:>12.1}%",
            r.mode,
            r.bytes,
            r.bytes as f64 / rows[0].bytes as f64,
            r.ms_per_image,
            rows[0].ms_per_image / r.ms_per_image,
            r.cosine_mean,
            sqnr,
            100.0 * r.top1_agreement,
        );
    }
    text
}

impl Row {
    pub(crate) fn to_json(&self, float: &Row) -> Object {
        vec![
            ("mode", json(self.mode)),
            ("bytes", json(self.bytes)),
            ("ms_per_image", json(self.ms_per_image)),
            ("float_ms_per_image", json(float.ms_per_image)),
            ("cosine_mean", json(self.cosine_mean)),
            ("sqnr_db", if self.sqnr_db == f64::MAX { "null".into() } else { json(self.sqnr_db) }),
            ("top1_agreement", json(self.top1_agreement)),
        ]
    }
}
