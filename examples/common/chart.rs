//! Draws charts in SVG: axes with chosen tick labels, lines and text, on a white card. Shared by all examples.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;
pub(crate) type Result<T = (), E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

pub(crate) const INK: RGBColor = RGBColor(38, 44, 56);
pub(crate) const GRID: RGBColor = RGBColor(196, 202, 212);

/// The card behind every drawing. It keeps dark text readable on dark pages; plotters has no rounded corners.
const CARD: &str = "<rect width=\"100%\" height=\"100%\" rx=\"12\" fill=\"#FFFFFF\"/>\n";

/// Writes what is drawn as SVG. Missing directories are made.
pub(crate) fn save(path: &Path, size: (u32, u32), draw: impl FnOnce(&Area) -> Result) -> Result {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut svg = String::new();
    draw(&SVGBackend::with_string(&mut svg, size).into_drawing_area())?;
    let content = svg.find('>').map_or(svg.len(), |tag| tag + 1);
    svg.insert_str(content, CARD);
    fs::write(path, svg)?;
    Ok(())
}

/// A chart with a title, titled axes and numbers along them; `y_number` formats the labels of the vertical axis.
pub(crate) fn chart<'a, 'b>(
    area: &'a Area<'b>,
    title: &str,
    [x, y]: [Axis; 2],
    [x_title, y_title]: [&str; 2],
    y_number: impl Fn(&f64) -> String,
) -> Result<Chart<'a, 'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, font(18, INK)).margin(14).x_label_area_size(48).y_label_area_size(74);
    let mut chart = builder.build_cartesian_2d(x, y)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_mesh().axis_style(INK).label_style(font(13, INK)).axis_desc_style(font(15, INK));
    mesh.x_desc(x_title).x_label_formatter(&|x| format!("{x}"));
    mesh.y_desc(y_title).y_label_formatter(&y_number);
    mesh.draw()?;
    Ok(chart)
}

pub(crate) fn font(size: u32, color: RGBColor) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&color)
}

/// An axis with numbers where we want them: plotters would go on below zero, where the rulers are.
pub(crate) struct Axis {
    range: (f64, f64),
    ticks: Vec<f64>,
}

pub(crate) fn axis(range: (f64, f64), ticks: Vec<f64>) -> Axis {
    Axis { range, ticks }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, pixels: (i32, i32)) -> i32 {
        let along = (value - self.range.0) / (self.range.1 - self.range.0);
        pixels.0 + (along * (pixels.1 - pixels.0) as f64).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.0..self.range.1
    }
}

pub(crate) fn whole_numbers((low, high): (f64, f64)) -> Vec<f64> {
    (low.ceil() as i64..=high.floor() as i64).map(|n| n as f64).collect()
}

/// Multiples of 1, 2 or 5 times a power of ten, at most ten of them or so.
pub(crate) fn round_ticks((low, high): (f64, f64)) -> Vec<f64> {
    let power = 10f64.powf(((high - low) / 10.0).log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power * 10.0 >= high - low).unwrap_or(10.0);
    // Dividing by 1000 writes 0.3, where multiplying by 0.1 would write 0.30000000000000004.
    let thousandths = (times * power * 1000.0).round();
    let steps = (low * 1000.0 / thousandths, high * 1000.0 / thousandths);
    whole_numbers(steps).into_iter().map(|n| n * thousandths / 1000.0).collect()
}

pub(crate) fn line(chart: &mut Chart, from: (f64, f64), to: (f64, f64), color: RGBColor) -> Result {
    chart.draw_series([PathElement::new([from, to], color)])?;
    Ok(())
}

/// Text whose upper edge is at `at`.
pub(crate) fn label(chart: &mut Chart, at: (f64, f64), text: &str, color: RGBColor, side: HPos) -> Result {
    let style = font(14, color).pos(Pos::new(side, VPos::Top));
    chart.draw_series([Text::new(text.to_owned(), at, style)])?;
    Ok(())
}
