//! Draws the size and the accuracy of each network as bars.

use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::bars::{self, Bar, LINE};
use crate::chart::{self, Area, INK, Result};
use crate::report::Row;

const SIZE: (u32, u32) = (940, 204);
const BYTES: RGBColor = RGBColor(72, 120, 178);
const ACCURACY: RGBColor = RGBColor(86, 154, 118);

/// Upper edge of the first bar.
const TOP: i32 = 76;

/// Writes the chart as SVG. Missing directories are made.
pub(crate) fn save(path: &Path, rows: &[Row]) -> Result {
    chart::save(path, SIZE, |root| draw(root, rows))
}

fn draw(root: &Area, rows: &[Row]) -> Result {
    let most = rows.iter().map(|row| row.bytes).max().unwrap_or(1) as f64;
    let bytes = rows.iter().map(|row| Bar {
        label: row.mode.replace('_', " "),
        color: BYTES,
        span: (0.0, row.bytes as f64 / most),
        value: format!("{:.0} KB ({:.2}×)", row.bytes as f64 / 1000.0, row.ratio),
    });
    let accuracy = rows.iter().map(|row| Bar {
        label: String::new(),
        color: ACCURACY,
        span: (0.0, row.accuracy),
        value: format!("{:.2} %", 100.0 * row.accuracy),
    });
    let panels = [
        ("Weights in bytes", 150..390, bytes.collect::<Vec<_>>()),
        ("Accuracy on the test images", 560..830, accuracy.collect()),
    ];
    bars::text(
        root,
        (SIZE.0 as i32 / 2, 26),
        "Three linear layers, trained in float, then quantized",
        19,
        INK,
        HPos::Center,
    )?;
    for (title, columns, lines) in panels {
        bars::text(root, (columns.start, TOP - 16), title, 15, INK, HPos::Left)?;
        bars::rule(root, columns.start, TOP, lines.len())?;
        bars::draw(root, TOP, columns, |end| end + 8, &lines)?;
    }
    debug_assert!(TOP + rows.len() as i32 * LINE <= SIZE.1 as i32, "a chart of {} rows", rows.len());
    root.present()?;
    Ok(())
}
