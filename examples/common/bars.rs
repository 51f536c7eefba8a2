//! Draws horizontal bar charts: a label, a bar and its value on each line.

use std::ops::Range;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::chart::{Area, GRID, INK, Result, font};

/// Height of a line in pixels.
pub(crate) const LINE: i32 = 27;

const BAR: i32 = 18;

/// One line of the chart.
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) color: RGBColor,
    /// Start and end of the bar, as fractions of the width for bars.
    pub(crate) span: (f64, f64),
    pub(crate) value: String,
}

/// Draws bars below each other from `top` on. Labels end where `columns`, the pixels for bars, begin. `value_at` maps the
/// end of a bar to where its value begins.
pub(crate) fn draw(area: &Area, top: i32, columns: Range<i32>, value_at: impl Fn(i32) -> i32, bars: &[Bar]) -> Result {
    for (i, bar) in bars.iter().enumerate() {
        let y = top + i as i32 * LINE + LINE / 2;
        text(area, (columns.start - 12, y), &bar.label, 15, INK, HPos::Right)?;
        let x = |part: f64| columns.start + (part * f64::from(columns.end - columns.start)).round() as i32;
        let (from, to) = (x(bar.span.0), x(bar.span.1));
        area.draw(&Rectangle::new([(from, y - BAR / 2), (to, y + BAR / 2)], bar.color.filled()))?;
        text(area, (value_at(to), y), &bar.value, 15, INK, HPos::Left)?;
    }
    Ok(())
}

/// Draws a vertical line over `lines` lines of bars.
pub(crate) fn rule(area: &Area, x: i32, top: i32, lines: usize) -> Result {
    area.draw(&PathElement::new([(x, top), (x, top + lines as i32 * LINE)], GRID.stroke_width(1)))?;
    Ok(())
}

/// Text with its vertical middle at `at`.
pub(crate) fn text(area: &Area, at: (i32, i32), text: &str, size: u32, color: RGBColor, side: HPos) -> Result {
    let style = font(size, color).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}
