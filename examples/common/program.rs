//! The frame of a command-line program: options, help, errors and exit codes. Shared by all examples.

use std::error::Error;
use std::fmt::{Debug, Display};
use std::fs;
use std::path::Path;
use std::process::ExitCode;

pub(crate) type Result<T = (), E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Does the work with these options; without any, prints the help. The exit code is 1 if the work fails, and 2 if the
/// command line is not understood.
pub(crate) fn run<T>(
    help: &str,
    options: Result<Option<T>, lexopt::Error>,
    work: impl FnOnce(&T) -> Result,
) -> ExitCode {
    let name = env!("CARGO_CRATE_NAME");
    let options = match options {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{help}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{name}: {error}; see --help");
            return ExitCode::from(2);
        }
    };
    let isa = ndarray_quant::gemm::check_isa_variable();
    match isa.map_err(Into::into).and_then(|()| work(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An error in a file, which says which.
pub(crate) fn at<T, E: Display>(path: &Path, result: Result<T, E>) -> Result<T> {
    result.map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Names and values of a JSON object. [`json`] writes the values.
pub(crate) type Object = Vec<(&'static str, String)>;

/// A number, a truth value or a mode's name in JSON. Names have nothing to escape. JSON has no NaN: it becomes `null`.
pub(crate) fn json(value: impl Debug) -> String {
    let text = format!("{value:?}");
    if matches!(text.as_str(), "NaN" | "inf" | "-inf") { "null".into() } else { text }
}

/// Writes rows of a table as a JSON list of objects, if a path is given.
pub(crate) fn save_json<R>(path: Option<&Path>, rows: &[R], object: impl Fn(&R) -> Object) -> Result {
    let Some(path) = path else { return Ok(()) };
    let line = |row| {
        let fields: Vec<String> = object(row).iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!("  {{{}}}", fields.join(", "))
    };
    let lines: Vec<String> = rows.iter().map(line).collect();
    at(path, fs::write(path, format!("[\n{}\n]\n", lines.join(",\n"))))
}
