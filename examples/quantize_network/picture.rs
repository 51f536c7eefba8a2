//! A picture of one layer: how its weights and what it puts out lie on their quantization grids.
//!
//! On the left everything, on the right the neighbourhood of zero with every code. Weights have a grid per output
//! channel; divided by the scale of its channel, all weights share one.

use std::error::Error;
use std::fs;
use std::path::Path;

use ndarray::Ix2;
use ndarray_quant::QParams;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::data::Dataset;
use crate::net::Network;
use crate::quantized::{FullInteger, quantize_weights};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

const SIZE: (u32, u32) = (1280, 960);
const INK: RGBColor = RGBColor(38, 44, 56);
const GRID: RGBColor = RGBColor(196, 202, 212);
const WEIGHT: RGBColor = RGBColor(72, 120, 178);
const ACTIVATION: RGBColor = RGBColor(86, 154, 118);
const CLIP: RGBColor = RGBColor(206, 92, 60);

/// On the left, one code in this many has a tick.
const TICK: i64 = 16;

/// On the right, this many codes to either side of zero.
const NEAR: f64 = 8.0;

/// What is drawn.
pub(crate) struct Layer {
    /// Counted from 1, as people do.
    number: usize,
    weights: Vec<f64>,
    /// Each weight divided by the scale of its channel.
    weight_steps: Vec<f64>,
    /// The scales of the channels, in ascending order.
    weight_scales: Vec<f64>,
    weight_codes: (f64, f64),
    /// What the layer puts out for the test images.
    outputs: Vec<f64>,
    output_grid: Grid,
}

/// The parameters of a tensor: `x ≈ (code - zero_point) * scale`.
struct Grid {
    scale: f64,
    zero_point: f64,
    codes: (f64, f64),
}

impl Grid {
    fn new(params: &QParams<u8, Ix2>) -> Self {
        let (min, max) = params.code_range();
        Grid {
            scale: params.scale()[[0, 0]].into(),
            zero_point: params.zero_point().map_or(0.0, |z| z[[0, 0]].into()),
            codes: (min.into(), max.into()),
        }
    }

    fn value(&self, code: f64) -> f64 {
        (code - self.zero_point) * self.scale
    }

    /// The real values of the smallest and the greatest code.
    fn clip(&self) -> (f64, f64) {
        (self.value(self.codes.0), self.value(self.codes.1))
    }
}

impl Layer {
    /// The `layer`-th one, counted from 0.
    pub(crate) fn new(layer: usize, float: &Network, quantized: &FullInteger, test: &Dataset) -> Result<Self> {
        let weights = &float.layers[layer].weight;
        let params = quantize_weights(&float.layers[layer])?.into_parts().1;
        // The scales have shape [out, 1]: one for each row of the weights.
        let steps = weights / params.scale();
        let mut scales: Vec<f64> = params.scale().iter().map(|&s| s.into()).collect();
        scales.sort_by(f64::total_cmp);
        let (min, max) = params.code_range();
        Ok(Layer {
            number: layer + 1,
            weights: weights.iter().map(|&w| w.into()).collect(),
            weight_steps: steps.iter().map(|&w| w.into()).collect(),
            weight_scales: scales,
            weight_codes: (min.into(), max.into()),
            outputs: float.layer_outputs(&test.images)[layer].iter().map(|&y| y.into()).collect(),
            output_grid: Grid::new(quantized.params_after(layer)),
        })
    }
}

/// Writes the picture as SVG. Missing directories are made.
pub(crate) fn save(path: &Path, layer: &Layer) -> Result {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut svg = String::new();
    draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), layer)?;
    fs::write(path, svg)?;
    Ok(())
}

fn draw(root: &Area, layer: &Layer) -> Result {
    root.fill(&WHITE)?;
    let title = format!("Layer {} on its quantization grid", layer.number);
    let root = root.titled(&title, ("sans-serif", 26).into_font().color(&INK))?;
    let panels = root.margin(4, 12, 12, 12).split_evenly((2, 2));
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
    let clip = |scale: f64| (layer.weight_codes.0 * scale, layer.weight_codes.1 * scale);
    let bars = Histogram::new(&layer.weights, clip(wide), 100);
    let x = widened(clip(wide), 0.06);
    let top = bars.highest() * 1.12;
    // The rulers of two channels stand below the axis.
    let (first, second) = (-0.15 * top, -0.33 * top);
    let title = format!("Weights: {} channels, a symmetric i8 grid for each", layer.weight_scales.len());
    let mut chart = chart(area, &title, x, (second - 0.1 * top, top))?;
    mesh(&mut chart, "weight", "number of weights", |n| if *n < 0.0 { String::new() } else { format!("{n}") })?;
    bars.draw(&mut chart, WEIGHT, 0.0, |n| n)?;
    line(&mut chart, (x.0, 0.0), (x.1, 0.0), INK)?;
    line(&mut chart, (0.0, 0.0), (0.0, top), INK)?;
    label(&mut chart, (0.0, top), "  zero point: code 0", INK, HPos::Left)?;
    for (y, scale, name) in [(first, wide, "widest"), (second, narrow, "narrowest")] {
        let grid = Grid { scale, zero_point: 0.0, codes: layer.weight_codes };
        ruler(&mut chart, &grid, y, 0.03 * top)?;
        let text = format!("{name} channel: clips at ±{:.3}, step {scale:.5}", grid.clip().1);
        label(&mut chart, (0.0, y - 0.045 * top), &text, CLIP, HPos::Center)?;
    }
    Ok(())
}

fn draw_near_weights(area: &Area, layer: &Layer) -> Result {
    let edge = NEAR + 0.5;
    let bars = Histogram::new(&layer.weight_steps, (-edge, edge), 8 * (2 * NEAR as usize + 1));
    let top = bars.highest() * 1.16;
    let mut chart = chart(area, "Weights around zero, and every code", (-edge, edge), (0.0, top))?;
    mesh(&mut chart, "weight ÷ scale of its channel", "number of weights", |n| format!("{n}"))?;
    code_lines(&mut chart, layer.weight_codes, 0.0)?;
    bars.draw(&mut chart, WEIGHT, 0.0, |n| n)
}

fn draw_all_outputs(area: &Area, layer: &Layer) -> Result {
    let grid = &layer.output_grid;
    let (min, max) = bounds(&layer.outputs);
    let clip = grid.clip();
    let bars = Histogram::new(&layer.outputs, (min.min(clip.0), max.max(clip.1)), 100);
    let x = widened((min.min(clip.0), max.max(clip.1)), 0.06);
    // Most outputs of a ReLU are zero: counts are drawn by their logarithm, from half an output on.
    let bottom = 0.5f64.log10();
    let top = bars.highest().log10() + 0.75;
    let below = bottom - 0.17 * (top - bottom);
    let mut chart = chart(area, "Outputs for the test images, on one asymmetric u8 grid", x, (below, top))?;
    mesh(&mut chart, "output", "number of outputs, logarithmic", |log| match log.round() {
        whole if (log - whole).abs() < 1e-6 && *log >= 0.0 => format!("{}", 10f64.powf(whole)),
        _ => String::new(),
    })?;
    for side in [(x.0, clip.0), (clip.1, x.1)] {
        chart.draw_series([Rectangle::new([(side.0, bottom), (side.1, top)], CLIP.mix(0.08).filled())])?;
    }
    bars.draw(&mut chart, ACTIVATION, bottom, f64::log10)?;
    line(&mut chart, (x.0, bottom), (x.1, bottom), INK)?;
    for edge in [clip.0, clip.1] {
        line(&mut chart, (edge, bottom), (edge, top), CLIP)?;
    }
    ruler(&mut chart, grid, bottom - 0.04 * (top - bottom), 0.03 * (top - bottom))?;
    let text = format!("codes {} to {}: {:.2} to {:.2}, step {:.4}", grid.codes.0, grid.codes.1, clip.0, clip.1, grid.scale);
    label(&mut chart, ((clip.0 + clip.1) / 2.0, bottom - 0.09 * (top - bottom)), &text, CLIP, HPos::Center)?;
    let text = format!("  zero point: code {}", grid.zero_point);
    label(&mut chart, (0.0, top), &text, INK, HPos::Left)?;
    let clipped = fraction(&layer.outputs, |y| y < clip.0 || y > clip.1);
    let text = format!("clipped: {:.3}% of the outputs  ", 100.0 * clipped);
    label(&mut chart, (clip.1, top), &text, CLIP, HPos::Right)
}

fn draw_near_outputs(area: &Area, layer: &Layer) -> Result {
    let grid = &layer.output_grid;
    let (low, high) = (grid.zero_point - 0.5, grid.zero_point + 2.0 * NEAR + 0.5);
    let codes: Vec<f64> = layer.outputs.iter().map(|y| y / grid.scale + grid.zero_point).collect();
    // The bar of the exact zeros would hide all others.
    let positive: Vec<f64> = codes.iter().copied().filter(|&c| c != grid.zero_point).collect();
    let bars = Histogram::new(&positive, (low, high), 8 * (2 * NEAR as usize + 1));
    let top = bars.highest() * 1.16;
    let mut chart = chart(area, "Outputs around zero, and every code", (low, high), (0.0, top))?;
    mesh(&mut chart, "output ÷ scale + zero point", "number of outputs above zero", |n| format!("{n}"))?;
    code_lines(&mut chart, grid.codes, grid.zero_point)?;
    bars.draw(&mut chart, ACTIVATION, 0.0, |n| n)?;
    let zeros = 1.0 - positive.len() as f64 / codes.len() as f64;
    let text = format!("{:.0}% of all outputs are exactly zero: code {}", 100.0 * zeros, grid.zero_point);
    label(&mut chart, (high - 0.2, top * 0.985), &text, INK, HPos::Right)
}

/// An empty chart with a caption and room for the labels of its axes.
fn chart<'a, 'b>(area: &'a Area<'b>, title: &str, x: (f64, f64), y: (f64, f64)) -> Result<Chart<'a, 'b>> {
    let chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18).into_font().color(&INK))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
    Ok(chart)
}

/// Axes with titles; `y_label` writes the numbers of the vertical one.
fn mesh(chart: &mut Chart, x_title: &str, y_title: &str, y_label: impl Fn(&f64) -> String) -> Result {
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(INK)
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 15).into_font().color(&INK))
        .x_desc(x_title)
        .y_desc(y_title)
        .x_labels(20)
        .y_labels(8)
        .x_label_formatter(&|x| format!("{}", (x * 1e6).round() / 1e6))
        .y_label_formatter(&y_label)
        .draw()?;
    Ok(())
}

/// A line at every code that is in sight. Every other cell (the values that round to one code) is shaded.
fn code_lines(chart: &mut Chart, codes: (f64, f64), zero_point: f64) -> Result {
    let (x, y) = (chart.x_range(), chart.y_range());
    let (first, last) = (x.start.ceil().max(codes.0), x.end.floor().min(codes.1));
    for code in (first as i64..=last as i64).map(|code| code as f64) {
        if code.rem_euclid(2.0) == 1.0 {
            let cell = Rectangle::new([(code - 0.5, y.start), (code + 0.5, y.end)], GRID.mix(0.3).filled());
            chart.draw_series([cell])?;
        }
        let color = if code == zero_point { INK } else { GRID };
        line(chart, (code, y.start), (code, y.end), color)?;
    }
    Ok(())
}

/// A grid as a ruler: a tick for every 16th code from the zero point on, and its ends.
fn ruler(chart: &mut Chart, grid: &Grid, y: f64, height: f64) -> Result {
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

fn line(chart: &mut Chart, from: (f64, f64), to: (f64, f64), color: RGBColor) -> Result {
    chart.draw_series([PathElement::new([from, to], color)])?;
    Ok(())
}

/// Text whose upper edge is at `at`.
fn label(chart: &mut Chart, at: (f64, f64), text: &str, color: RGBColor, side: HPos) -> Result {
    let style = ("sans-serif", 14).into_font().color(&color).pos(Pos::new(side, VPos::Top));
    chart.draw_series([Text::new(text.to_owned(), at, style)])?;
    Ok(())
}

/// Counts of values in bins of equal width.
struct Histogram {
    start: f64,
    width: f64,
    counts: Vec<u32>,
}

impl Histogram {
    /// Values outside of `range` are left out.
    fn new(values: &[f64], range: (f64, f64), bins: usize) -> Self {
        let width = (range.1 - range.0) / bins as f64;
        let mut counts = vec![0; bins];
        for value in values.iter().filter(|&&v| range.0 <= v && v <= range.1) {
            let bin = ((value - range.0) / width) as usize;
            counts[bin.min(bins - 1)] += 1;
        }
        Histogram { start: range.0, width, counts }
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
