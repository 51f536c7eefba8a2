//! The command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};
use ndarray_quant::io::gguf::GgmlType;

use crate::quantize;

pub(crate) const HELP: &str = "\
Converts a checkpoint of safetensors files to a quantized GGUF file, with one tensor in memory at a time.

Usage: cargo run --release --features gguf --example convert_checkpoint -- FILE.safetensors... -o FILE.gguf [OPTIONS]

Options:
  -o, --output FILE        the GGUF file
      --type TYPE          the type of matrices: f16, bf16, q8_0, q6_k, q5_k, q5_0, q4_k, q4_0, iq4_nl, iq4_xs, mxfp4, q3_k,
                           q2_k, tq2_0, tq1_0 [default: q4_k]
      --architecture NAME  the entry general.architecture [default: unknown]
  -h, --help               print this
";

pub(crate) struct Options {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) output: PathBuf,
    pub(crate) to: GgmlType,
    pub(crate) architecture: String,
}

/// None, if help is asked for.
pub(crate) fn parse() -> Result<Option<Options>, lexopt::Error> {
    let (mut files, mut output) = (Vec::new(), None);
    let (mut to, mut architecture) = (GgmlType::Q4_K, String::from("unknown"));
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(file) => files.push(file.into()),
            Arg::Short('o') | Arg::Long("output") => output = Some(parser.value()?.into()),
            Arg::Long("type") => to = parser.value()?.parse_with(quantize::parse)?,
            Arg::Long("architecture") => architecture = parser.value()?.string()?,
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    if files.is_empty() {
        return Err("expected at least one safetensors file".into());
    }
    let output = output.ok_or("expected --output FILE.gguf")?;
    Ok(Some(Options { files, output, to, architecture }))
}
