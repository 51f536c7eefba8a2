//! The command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Trains a small network on images of clothing for 8, 4, 3 and 2 bits, ternary weights and one bit, and compares it with quantization after training.

Usage: cargo run --release --example quantization_aware_training -- [OPTIONS]

Options:
      --data DIR   take all of Fashion-MNIST, 28x28 pixels, from its four files *-ubyte.gz in this directory
      --svg FILE   where the picture goes [default: target/quantization_aware_training.svg]
      --json FILE  also write the table as JSON
  -h, --help       print this
";

pub(crate) struct Options {
    pub(crate) data: Option<PathBuf>,
    pub(crate) svg: PathBuf,
    pub(crate) json: Option<PathBuf>,
}

/// None, if help is asked for.
pub(crate) fn parse() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options { data: None, svg: "target/quantization_aware_training.svg".into(), json: None };
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Long("data") => options.data = Some(parser.value()?.parse()?),
            Arg::Long("svg") => options.svg = parser.value()?.parse()?,
            Arg::Long("json") => options.json = Some(parser.value()?.parse()?),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(options))
}
