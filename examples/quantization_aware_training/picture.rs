//! Accuracy against bits: a dot for each seed, a line through their means.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::chart::{self, Area, GRID, INK, Result, axis, chart, font, label, line, round_ticks, whole_numbers};
use crate::report::{Outcome, mean};

const SIZE: (u32, u32) = (860, 560);
const FLOAT: RGBColor = INK;
const MIN_MAX: RGBColor = RGBColor(206, 92, 60);
const LEAST_ERROR: RGBColor = RGBColor(86, 154, 118);
const TRAINED: RGBColor = RGBColor(72, 120, 178);

/// Writes the picture as SVG. Missing directories are made. The networks are those whose weights and activations have the same
/// number of bits, of two or more.
pub(crate) fn save(path: &Path, outcomes: &[Outcome]) -> Result {
    let outcomes: Vec<&Outcome> = outcomes.iter().filter(|o| o.bits >= 2.0).collect();
    chart::save(path, SIZE, |root| draw(root, &outcomes))
}

/// A line of the picture: which accuracies, and their name.
type Series = (fn(&Outcome) -> &[f64], RGBColor, &'static str);
const SERIES: [Series; 4] = [
    (|o| &o.float, FLOAT, "float"),
    (|o| &o.trained, TRAINED, "quantization-aware training (LSQ)"),
    (|o| &o.least_error, LEAST_ERROR, "quantized after training, least squared error"),
    (|o| &o.min_max, MIN_MAX, "quantized after training, min-max"),
];

fn draw(root: &Area, outcomes: &[&Outcome]) -> Result {
    let root = root
        .margin(14, 10, 8, 16)
        .titled("Accuracy on the test images: three seeds, lines through their means", font(22, INK))?;
    let all = || outcomes.iter().flat_map(|o| SERIES.map(|(of, ..)| of(o)));
    let percent = |a: &f64| 100.0 * a;
    let low = all().flatten().map(percent).fold(f64::INFINITY, f64::min);
    let high = all().flatten().map(percent).fold(0.0, f64::max);
    let y = (low - 0.05 * (high - low), high + 0.08 * (high - low));
    let bits = outcomes.iter().map(|o| o.bits);
    let x = (bits.clone().fold(f64::INFINITY, f64::min) - 0.4, bits.fold(0.0, f64::max) + 0.4);
    let axes = [axis(x, whole_numbers(x)), axis(y, round_ticks(y))];
    let titles = ["bits of weights and activations", "accuracy in percent"];
    let mut chart = chart(&root, "", axes, titles, |y| format!("{y}"))?;
    for tick in round_ticks(y) {
        line(&mut chart, (x.0, tick), (x.1, tick), GRID)?;
    }
    for (of, color, _) in SERIES {
        let means = outcomes.iter().map(|o| (o.bits, percent(&mean(of(o)))));
        chart.draw_series([PathElement::new(means.collect::<Vec<(f64, f64)>>(), color.stroke_width(2))])?;
        let dots = outcomes.iter().flat_map(|o| of(o).iter().map(move |a| (o.bits, percent(a))));
        chart.draw_series(dots.map(|at: (f64, f64)| Circle::new(at, 4, color.mix(0.6).filled())))?;
    }
    // Accuracy rises with the bits, so the lower right corner is free.
    let at = |along: f64, up: f64| (x.0 + along * (x.1 - x.0), y.0 + up * (y.1 - y.0));
    chart.draw_series([Rectangle::new([at(0.49, 0.12), at(0.99, 0.40)], WHITE.filled())])?;
    for (i, (_, color, name)) in SERIES.into_iter().enumerate() {
        let up = 0.37 - 0.06 * i as f64;
        chart.draw_series([PathElement::new([at(0.51, up - 0.018), at(0.55, up - 0.018)], color.stroke_width(3))])?;
        label(&mut chart, at(0.56, up), name, INK, HPos::Left)?;
    }
    root.present()?;
    Ok(())
}
