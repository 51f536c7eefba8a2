//! Draws measured ratios to other libraries as bars on a logarithmic axis.
//!
//! The file is CSV, without quotes. Lines that begin with `#` name the machine and the versions; they are drawn below
//! the title. After the header `group,case,ratio,library`, each line has the time of another library over this crate's.

use std::fs;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use crate::bars::{self, Bar, LINE};
use crate::chart::{self, Area, INK, Result};
use crate::program;

const WIDTH: i32 = 940;
const FASTER: RGBColor = RGBColor(72, 120, 178);
const SLOWER: RGBColor = RGBColor(206, 92, 60);
const MUTED: RGBColor = RGBColor(92, 100, 116);

/// Pixels for bars.
const COLUMNS: std::ops::Range<i32> = 320..730;

/// Vertical lines at these ratios. The first and the last are the ends of the axis.
const TICKS: [f64; 7] = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0];

const HEADER: &str = "group,case,ratio,library";

#[derive(Default)]
struct Table {
    notes: Vec<String>,
    groups: Vec<(String, Vec<Bar>)>,
}

/// Reads ratios from the file `csv` and writes the chart to `svg`.
pub(crate) fn run(csv: &Path, svg: &Path) -> Result {
    let table = program::at(csv, fs::read_to_string(csv).map_err(Into::into).and_then(|text| parse(&text)))?;
    let lines: usize = table.groups.iter().map(|(_, bars)| 1 + bars.len()).sum();
    let height = top(&table) + lines as i32 * LINE + 20;
    program::at(svg, chart::save(svg, (WIDTH as u32, height as u32), |root| draw(root, &table)))
}

fn parse(text: &str) -> Result<Table> {
    let mut table = Table::default();
    let mut header = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(note) = line.strip_prefix('#') {
            table.notes.push(note.trim().to_owned());
        } else if !header {
            if line != HEADER {
                return Err(format!("line {number}: expected the header {HEADER}, found {line}").into());
            }
            header = true;
        } else {
            let [group, case, ratio, library] = line.split(',').collect::<Vec<_>>()[..] else {
                return Err(format!("line {number}: expected {HEADER}, found {line}").into());
            };
            let ratio = ratio.parse().ok().filter(|ratio| (TICKS[0]..=2.0 * TICKS[6]).contains(ratio));
            let ratio = ratio.ok_or_else(|| format!("line {number}: expected a ratio from 0.5 to 64, found {line}"))?;
            if table.groups.last().is_none_or(|(name, _)| name != group) {
                table.groups.push((group.to_owned(), Vec::new()));
            }
            if let Some((_, bars)) = table.groups.last_mut() {
                bars.push(bar(case, ratio, library));
            }
        }
    }
    Ok(table)
}

fn bar(case: &str, ratio: f64, library: &str) -> Bar {
    Bar {
        label: case.to_owned(),
        color: if ratio < 1.0 { SLOWER } else { FASTER },
        span: (along(1.0), along(ratio)),
        value: format!("{ratio:.2}× {library}"),
    }
}

/// The position of a ratio, as a fraction of the axis.
fn along(ratio: f64) -> f64 {
    (ratio / TICKS[0]).log2() / (TICKS[6] / TICKS[0]).log2()
}

/// Upper edge of the first group.
fn top(table: &Table) -> i32 {
    84 + 20 * table.notes.len() as i32
}

fn draw(root: &Area, table: &Table) -> Result {
    let title = "Time of the fastest other library ÷ time of this crate (above 1×, this crate is faster)";
    bars::text(root, (WIDTH / 2, 26), title, 19, INK, HPos::Center)?;
    for (i, note) in (0..).zip(&table.notes) {
        bars::text(root, (WIDTH / 2, 52 + 20 * i), note, 14, MUTED, HPos::Center)?;
    }
    let top = top(table);
    let lines = table.groups.iter().map(|(_, bars)| 1 + bars.len()).sum();
    for ratio in TICKS {
        let x = COLUMNS.start + (along(ratio) * f64::from(COLUMNS.end - COLUMNS.start)).round() as i32;
        bars::rule(root, x, top, lines)?;
        bars::text(root, (x, top - 14), &format!("{ratio}×"), 13, MUTED, HPos::Center)?;
    }
    let mut y = top;
    for (name, bars) in &table.groups {
        bars::text(root, (24, y + LINE / 2), name, 15, INK, HPos::Left)?;
        bars::draw(root, y + LINE, COLUMNS, |_| COLUMNS.end + 30, bars)?;
        y += (1 + bars.len() as i32) * LINE;
    }
    root.present()?;
    Ok(())
}
