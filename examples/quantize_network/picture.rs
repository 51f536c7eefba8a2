//! A picture of one layer: how its weights and what it puts out lie on their quantization grids.
//!
//! On the left everything, on the right the neighbourhood of zero with every code. Weights have a grid per output
//! channel; divided by the scale of its channel, all weights share one.

use std::path::Path;

use ndarray_quant::QParams;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::chart::{self, Area, Chart, GRID, INK, Result, axis, chart, font, label, line, round_ticks, whole_numbers};
use crate::data::Dataset;
use crate::net::Network;
use crate::quantized::{FullInteger, quantize_weights};

const SIZE: (u32, u32) = (1280, 960);
const WEIGHT: RGBColor = RGBColor(72, 120, 178);
const ACTIVATION: RGBColor = RGBColor(86, 154, 118);
const CLIP: RGBColor = RGBColor(206, 92, 60);

/// On the left, one code in this many has a tick.
const TICK: i64 = 16;

/// On the right, this many codes to either side of zero.
const NEAR: f64 = 8.0;

/// On the right, this many bars show what rounds to one code.
const BARS_PER_CODE: usize = 5;

/// On the right, lines end at this part of the height, to leave room for a legend.
const CODE_LINES: f64 = 0.93;

/// The content of the picture.
pub(crate) struct Layer {
    /// Counted from 1, as people do.
    number: usize,
    weights: Vec<f64>,
    /// Each weight divided by the scale of its channel.
    weight_steps: Vec<f64>,
    /// The scales of the channels, in ascending order.
    weight_scales: Vec<f64>,
    weight_codes: (f64, f64),
    /// The layer's outputs for the test images.
    outputs: Vec<f64>,
    output_grid: AffineParams,
}

/// The parameters of a tensor: `x ≈ (code - zero_point) * scale`.
struct AffineParams {
    scale: f64,
    zero_point: f64,
    codes: (f64, f64),
}

impl AffineParams {
    fn new(params: &QParams<u8>) -> Self {
        let (min, max) = params.code_range();
        AffineParams {
            scale: params.scales()[0].into(),
            zero_point: params.zero_point().and_then(|z| z.first()).map_or(0.0, |&z| z.into()),
            codes: (min.into(), max.into()),
        }
    }

    fn value(&self, code: f64) -> f64 {
        (code - self.zero_point) * self.scale
    }

    /// The values of the smallest and the greatest code.
    fn clip(&self) -> (f64, f64) {
        (self.value(self.codes.0), self.value(self.codes.1))
    }
}

impl Layer {
    /// The `layer`-th one, counted from 0.
    pub(crate) fn new(layer: usize, float: &Network, quantized: &FullInteger, test: &Dataset) -> Result<Self> {
        let weights = &float.layers[layer].weight;
        let params = quantize_weights(&float.layers[layer])?.into_parts().1;
        let rows = weights.rows().into_iter().zip(params.scales());
        let steps = rows.flat_map(|(row, scale)| row.into_iter().map(move |w| f64::from(w / scale)));
        let mut scales: Vec<f64> = params.scales().iter().map(|&s| s.into()).collect();
        scales.sort_by(f64::total_cmp);
        let (min, max) = params.code_range();
        Ok(Layer {
            number: layer + 1,
            weights: weights.iter().map(|&w| w.into()).collect(),
            weight_steps: steps.collect(),
            weight_scales: scales,
            weight_codes: (min.into(), max.into()),
            outputs: float.layer_outputs(&test.images)[layer].iter().map(|&y| y.into()).collect(),
            output_grid: AffineParams::new(quantized.output_params(layer)),
        })
    }
}

/// Writes the picture as SVG. Missing directories are made.
pub(crate) fn save(path: &Path, layer: &Layer) -> Result {
    chart::save(path, SIZE, |root| draw(root, layer))
}

fn draw(root: &Area, layer: &Layer) -> Result {
    let root = root.margin(14, 4, 8, 8);
    let title = format!("Layer {} of the full-integer network on its quantization grid", layer.number);
    let panels = root.titled(&title, font(24, INK))?.split_evenly((2, 2));
    let [all_weights, near_weights, all_outputs, near_outputs] = panels.as_slice() else {
        return Err("two by two panels are four".into());
    };
    draw_all_weights(all_weights, layer)?;
    draw_near_weights(near_weights, layer)?;
    draw_all_outputs(all_outputs, layer)?;
    draw_near_outputs(near_outputs, layer)?;
    root.present()?;
    Ok(())
}

fn draw_all_weights(area: &Area, layer: &Layer) -> Result {
    let (Some(&narrow), Some(&wide)) = (layer.weight_scales.first(), layer.weight_scales.last()) else {
        return Err("a layer without channels has no picture".into());
    };
    let grid = |scale| AffineParams { scale, zero_point: 0.0, codes: layer.weight_codes };
    let clip = grid(wide).clip();
    let x = widened(clip, 0.06);
    let bars = HistogramObserver::new(&layer.weights, clip, 100);
    let top = 1.14 * bars.highest();
    let title = format!("Weights: {} channels, each on an i8 grid of its own", layer.weight_scales.len());
    // The rulers of two channels stand below the bars.
    let axes = [axis((x.0, x.1), round_ticks(x)), axis((-0.42 * top, top), round_ticks((0.0, top)))];
    let mut chart = chart(area, &title, axes, ["weight", "number of weights"], |n| format!("{n}"))?;
    bars.draw(&mut chart, WEIGHT, 0.0, |n| n)?;
    line(&mut chart, (x.0, 0.0), (x.1, 0.0), INK)?;
    line(&mut chart, (0.0, 0.0), (0.0, top), INK)?;
    label(&mut chart, (x.0 + 0.515 * (x.1 - x.0), top), "zero point: code 0", INK, HPos::Left)?;
    for (y, scale, name) in [(-0.13 * top, wide, "widest"), (-0.31 * top, narrow, "narrowest")] {
        ruler(&mut chart, &grid(scale), y, 0.03 * top)?;
        let text = format!("{name} channel: codes ±127 are ±{:.3}, step {scale:.5}", grid(scale).clip().1);
        label(&mut chart, (0.0, y - 0.04 * top), &text, CLIP, HPos::Center)?;
    }
    Ok(())
}

fn draw_near_weights(area: &Area, layer: &Layer) -> Result {
    let x = (-NEAR - 0.5, NEAR + 0.5);
    let bars = HistogramObserver::new(&layer.weight_steps, x, BARS_PER_CODE * (2 * NEAR as usize + 1));
    let top = 1.2 * bars.highest();
    let axes = [axis(x, whole_numbers(x)), axis((0.0, top), round_ticks((0.0, top)))];
    let titles = ["weight ÷ scale of its channel", "number of weights"];
    let mut chart = chart(area, "Weights near zero: each goes to the nearest code", axes, titles, |n| format!("{n}"))?;
    cells(&mut chart, layer.weight_codes)?;
    bars.draw(&mut chart, WEIGHT, 0.0, |n| n)?;
    code_lines(&mut chart, layer.weight_codes, 0.0)?;
    legend(&mut chart, "lines: codes; shaded or not: the weights that one code stands for")
}

fn draw_all_outputs(area: &Area, layer: &Layer) -> Result {
    let grid = &layer.output_grid;
    let clip = grid.clip();
    let (min, max) = bounds(&layer.outputs);
    let shown = (min.min(clip.0), max.max(clip.1));
    let x = widened(shown, 0.06);
    let bars = HistogramObserver::new(&layer.outputs, shown, 100);
    // Most outputs of a ReLU are small: counts are drawn by their logarithm, from half an output on.
    let bottom = 0.5f64.log10();
    let top = bars.highest().log10() + 0.8;
    let height = top - bottom;
    let axes = [axis(x, round_ticks(x)), axis((bottom - 0.19 * height, top), whole_numbers((0.0, top)))];
    let titles = ["output", "number of outputs, logarithmic"];
    let title = "Outputs for the test images, on one u8 grid";
    let mut chart = chart(area, title, axes, titles, |log| format!("{}", 10f64.powf(*log)))?;
    for (from, to) in [(x.0, clip.0), (clip.1, x.1)] {
        chart.draw_series([Rectangle::new([(from, bottom), (to, top)], CLIP.mix(0.08).filled())])?;
    }
    bars.draw(&mut chart, ACTIVATION, bottom, f64::log10)?;
    line(&mut chart, (x.0, bottom), (x.1, bottom), INK)?;
    for edge in [clip.0, clip.1] {
        line(&mut chart, (edge, bottom), (edge, top), CLIP)?;
    }
    line(&mut chart, (0.0, bottom), (0.0, top), INK)?;
    ruler(&mut chart, grid, bottom - 0.06 * height, 0.02 * height)?;
    let (first, last) = grid.codes;
    let text = format!("codes {first} to {last} are {:.2} to {:.2}, step {:.4}", clip.0, clip.1, grid.scale);
    label(&mut chart, ((clip.0 + clip.1) / 2.0, bottom - 0.09 * height), &text, CLIP, HPos::Center)?;
    let gap = 0.015 * (x.1 - x.0);
    let text = format!("zero point: code {}", grid.zero_point);
    label(&mut chart, (gap, top), &text, INK, HPos::Left)?;
    let clipped = fraction(&layer.outputs, |y| y < clip.0 || y > clip.1);
    let text = format!("{:.3}% of the outputs are clipped", 100.0 * clipped);
    label(&mut chart, (clip.1 - gap, top), &text, CLIP, HPos::Right)
}

fn draw_near_outputs(area: &Area, layer: &Layer) -> Result {
    let grid = &layer.output_grid;
    let x = (grid.zero_point - 0.5, grid.zero_point + 2.0 * NEAR + 0.5);
    let codes: Vec<f64> = layer.outputs.iter().map(|y| y / grid.scale + grid.zero_point).collect();
    // The bar of the exact zeros would hide all others.
    let others: Vec<f64> = codes.iter().copied().filter(|&code| code != grid.zero_point).collect();
    let bars = HistogramObserver::new(&others, x, BARS_PER_CODE * (2 * NEAR as usize + 1));
    let top = 1.2 * bars.highest();
    let axes = [axis(x, whole_numbers(x)), axis((0.0, top), round_ticks((0.0, top)))];
    let titles = ["output ÷ scale + zero point", "number of outputs other than zero"];
    let mut chart = chart(area, "Outputs near zero: each goes to the nearest code", axes, titles, |n| format!("{n}"))?;
    cells(&mut chart, grid.codes)?;
    bars.draw(&mut chart, ACTIVATION, 0.0, |n| n)?;
    code_lines(&mut chart, grid.codes, grid.zero_point)?;
    let zeros = 100.0 - 100.0 * others.len() as f64 / codes.len() as f64;
    legend(&mut chart, &format!("not drawn: {zeros:.0}% of the outputs are exactly zero, code {}", grid.zero_point))
}

/// Labels the right panels, above their lines.
fn legend(chart: &mut Chart, text: &str) -> Result {
    let (x, y) = (chart.x_range(), chart.y_range());
    label(chart, ((x.start + x.end) / 2.0, y.end), text, INK, HPos::Center)
}

/// Shades every other cell: all values of a cell round to one code.
fn cells(chart: &mut Chart, codes: (f64, f64)) -> Result {
    let y = 0.0..CODE_LINES * chart.y_range().end;
    for code in codes_in_sight(chart, codes).filter(|code| code % 2 != 0) {
        let (left, right) = (code as f64 - 0.5, code as f64 + 0.5);
        chart.draw_series([Rectangle::new([(left, y.start), (right, y.end)], GRID.mix(0.35).filled())])?;
    }
    Ok(())
}

/// Draws a line at every code; the line of the zero point is darker.
fn code_lines(chart: &mut Chart, codes: (f64, f64), zero_point: f64) -> Result {
    let y = 0.0..CODE_LINES * chart.y_range().end;
    for code in codes_in_sight(chart, codes).map(|code| code as f64) {
        let (color, width) = if code == zero_point { (INK, 2) } else { (CLIP, 1) };
        chart.draw_series([PathElement::new([(code, y.start), (code, y.end)], color.stroke_width(width))])?;
    }
    Ok(())
}

fn codes_in_sight(chart: &Chart, codes: (f64, f64)) -> impl Iterator<Item = i64> + use<> {
    let x = chart.x_range();
    x.start.ceil().max(codes.0) as i64..=x.end.floor().min(codes.1) as i64
}

/// A grid as a ruler: its ends, and a tick for every 16th code, counted from the zero point.
fn ruler(chart: &mut Chart, grid: &AffineParams, y: f64, height: f64) -> Result {
    let (low, high) = grid.clip();
    line(chart, (low, y), (high, y), CLIP)?;
    let steps = (grid.codes.0 - grid.zero_point) as i64..=(grid.codes.1 - grid.zero_point) as i64;
    for step in steps.filter(|step| step % TICK == 0) {
        let x = step as f64 * grid.scale;
        line(chart, (x, y), (x, y + height), CLIP)?;
    }
    for x in [low, high] {
        line(chart, (x, y - height), (x, y + height), CLIP)?;
    }
    Ok(())
}

/// Counts of values in bins of equal width.
struct HistogramObserver {
    start: f64,
    width: f64,
    counts: Vec<u32>,
}

impl HistogramObserver {
    /// Values outside of `range` are left out.
    fn new(values: &[f64], range: (f64, f64), bins: usize) -> Self {
        let width = (range.1 - range.0) / bins as f64;
        let mut counts = vec![0; bins];
        for value in values.iter().filter(|&&v| range.0 <= v && v <= range.1) {
            let bin = ((value - range.0) / width) as usize;
            counts[bin.min(bins - 1)] += 1;
        }
        HistogramObserver { start: range.0, width, counts }
    }

    fn highest(&self) -> f64 {
        self.counts.iter().copied().max().unwrap_or(0).max(1).into()
    }

    /// A bar from `bottom` to `height(count)` for each bin that is not empty.
    fn draw(&self, chart: &mut Chart, color: RGBColor, bottom: f64, height: impl Fn(f64) -> f64) -> Result {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        chart.draw_series(filled.map(|(bin, &count)| {
            let left = self.start + bin as f64 * self.width;
            Rectangle::new([(left, bottom), (left + self.width, height(count.into()))], color.mix(0.85).filled())
        }))?;
        Ok(())
    }
}

fn bounds(values: &[f64]) -> (f64, f64) {
    values.iter().fold((0.0, 0.0), |(min, max), &v| (v.min(min), v.max(max)))
}

/// A range that is wider by this fraction of itself on either side.
fn widened((min, max): (f64, f64), fraction: f64) -> (f64, f64) {
    let margin = fraction * (max - min);
    (min - margin, max + margin)
}

fn fraction(values: &[f64], is_so: impl Fn(f64) -> bool) -> f64 {
    values.iter().filter(|&&v| is_so(v)).count() as f64 / values.len() as f64
}
