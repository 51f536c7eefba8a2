//! The command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Trains a small network on 14x14 images of clothing, quantizes it in three ways, and compares them.

Usage: cargo run --release --example quantize_network -- [OPTIONS]

Options:
      --svg FILE    where the picture of one layer goes [default: target/quantize_network.svg]
      --chart FILE  also draw size and accuracy as a bar chart, in SVG
      --json FILE   also write the table as JSON
  -h, --help        print this
";

pub(crate) struct Options {
    pub(crate) svg: PathBuf,
    pub(crate) chart: Option<PathBuf>,
    pub(crate) json: Option<PathBuf>,
}

/// None, if help is asked for.
pub(crate) fn parse() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options { svg: "target/quantize_network.svg".into(), chart: None, json: None };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("svg") => options.svg = parser.value()?.parse()?,
            Arg::Long("chart") => options.chart = Some(parser.value()?.parse()?),
            Arg::Long("json") => options.json = Some(parser.value()?.parse()?),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(options))
}
