//! The command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Quantizes a network from an ONNX file in three ways, and compares them with it.

Usage: cargo run --release --features onnx --example quantize_onnx -- [MODEL.onnx --calibrate FILE --check FILE] [OPTIONS]

Without a model, a small convolutional network is trained on 14x14 images of clothing.

Options:
      --calibrate FILE  images that ranges are taken from: u8, [images, height, width, channels], as .npy
      --check FILE      images that the networks are compared on, never used for anything else
      --mean NUMBER     the network reads (pixel - mean) / scale [default: 127]
      --scale NUMBER    see --mean [default: 128]
      --threads N       threads, with the feature rayon [default: 1]
      --svg FILE        where the picture of all layers goes [default: quantize_onnx.svg in the system's temporary folder]
      --json FILE       also write the table as JSON
  -h, --help            print this
";

pub(crate) enum Source {
    File { model: PathBuf, calibrate: PathBuf, check: PathBuf },
    Trained,
}

pub(crate) struct Options {
    pub(crate) source: Source,
    pub(crate) mean: f32,
    pub(crate) scale: f32,
    pub(crate) threads: usize,
    pub(crate) svg: PathBuf,
    pub(crate) json: Option<PathBuf>,
}

/// None, if help is asked for.
pub(crate) fn parse() -> Result<Option<Options>, lexopt::Error> {
    let svg = std::env::temp_dir().join("quantize_onnx.svg");
    let mut options = Options { source: Source::Trained, mean: 127.0, scale: 128.0, threads: 1, svg, json: None };
    let (mut model, mut calibrate, mut check) = (None, None, None);
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(value) if model.is_none() => model = Some(value.into()),
            Arg::Long("calibrate") => calibrate = Some(parser.value()?.into()),
            Arg::Long("check") => check = Some(parser.value()?.into()),
            Arg::Long("mean") => options.mean = parser.value()?.parse()?,
            Arg::Long("scale") => options.scale = parser.value()?.parse()?,
            Arg::Long("threads") => options.threads = parser.value()?.parse()?,
            Arg::Long("svg") => options.svg = parser.value()?.into(),
            Arg::Long("json") => options.json = Some(parser.value()?.into()),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    options.source = match (model, calibrate, check) {
        (Some(model), Some(calibrate), Some(check)) => Source::File { model, calibrate, check },
        (None, None, None) => Source::Trained,
        _ => return Err("a model, --calibrate and --check come together".into()),
    };
    Ok(Some(options))
}
