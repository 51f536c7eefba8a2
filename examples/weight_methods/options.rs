//! The command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Quantizes the weights of a small network to 4, 3 and 2 bits by each method, and compares them with rounding to nearest.

Usage: cargo run --release --example weight_methods -- [OPTIONS]

Options:
      --json FILE  also write the table as JSON
  -h, --help       print this
";

pub(crate) struct Options {
    pub(crate) json: Option<PathBuf>,
}

/// None, if help is asked for.
pub(crate) fn parse() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options { json: None };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("json") => options.json = Some(parser.value()?.parse()?),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(options))
}
