//! Tables, JSON files, progress bars and the text of errors.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};
use ndarray_quant::Error;
use ndarray_quant::error::{FileError, GraphError};
use serde::Serialize;

use crate::args;

/// A table without lines. Columns of numbers are aligned at their right ends.
pub(crate) fn table(header: &[&str], numbers: impl IntoIterator<Item = usize>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for i in numbers {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Prints a table without the blanks at the ends of its lines.
pub(crate) fn print(table: &Table) {
    table.lines().for_each(|line| say!("{}", line.trim_end()));
}

/// A size in units of 1000: `4.79 MB`.
pub(crate) fn size(bytes: usize) -> String {
    DecimalBytes(bytes as u64).to_string()
}

/// Prints a line. A reader that has seen enough, such as `head`, ends the program.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::output::write_out(format_args!("{}\n", format_args!($($text)*)))
    };
}
pub(crate) use say;

/// Writes to standard output.
pub(crate) fn write_out(text: std::fmt::Arguments) {
    use std::io::Write;
    if std::io::stdout().write_fmt(text).is_err() {
        std::process::exit(0);
    }
}

/// A number of things: `1 run`, `5 runs`.
pub(crate) fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// A shape as `1x3x224x224`.
pub(crate) fn shape(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// Decibels, or `exact` without error.
pub(crate) fn decibels(db: f64) -> String {
    if db == f64::INFINITY || db == f64::MAX { "exact".into() } else { format!("{db:.1} dB") }
}

/// Writes JSON to a file, or to standard output for `-`.
pub(crate) fn json(path: &Path, value: &impl Serialize) -> Result<()> {
    args::write(path, &(serde_json::to_string_pretty(value)? + "\n"))
}

/// A progress bar on standard error, which shows nothing unless that is a terminal.
pub(crate) fn progress(title: &'static str, samples: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} samples, {eta} left");
    let style = style.expect("the template is valid").progress_chars("█▉▊▋▌▍▎▏ ");
    ProgressBar::new(samples as u64).with_style(style).with_message(title)
}

/// The text of an error with its causes. Operators that are not supported get a line each.
pub(crate) fn explain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let separator = if text.is_empty() { "" } else { ": " };
        if let Some(Error::Graph(GraphError::UnsupportedNodes { uses, .. })) = cause.downcast_ref() {
            let nodes: usize = uses.iter().map(|found| found.count).sum();
            let _ = write!(text, "{separator}{nodes} nodes are not supported");
            for found in uses {
                let nodes = if found.count == 1 { "node" } else { "nodes, such as" };
                let _ = write!(text, "\n  {}: {} ({} {nodes} {:?})", found.op, found.why, found.count, found.node);
            }
            return text;
        }
        // The library puts the text of a cause into its own.
        let cause = cause.to_string();
        if !text.ends_with(&cause) {
            let _ = write!(text, "{separator}{cause}");
        }
    }
    text
}

/// Names the file that an error of the library is about, unless the error does so itself.
pub(crate) fn at<T>(path: &Path, result: ndarray_quant::Result<T>) -> Result<T> {
    result.map_err(|error| match error {
        Error::File(FileError::Io { .. }) => error.into(),
        _ => anyhow::Error::new(error).context(path.display().to_string()),
    })
}
