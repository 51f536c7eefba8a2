//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use lexopt::{Arg, Parser, ValueExt};

pub(crate) const HELP: &str = "\
Quantizes a network from an ONNX file in three ways, and compares them with it.

Usage: cargo run --release --features onnx --example quantize_onnx -- [MODEL.onnx --calibrate FILE --check FILE] [OPTIONS]

Without a model, a small convolutional network is trained on 14x14 images of clothing.

Options:
      --calibrate FILE  images that ranges are taken from: u8, [images, height, width, channels], as .npy
      --check FILE      images that the networks are compared on, never used for anything else
      --input NAME=AxBx…  the shape of an input that has none in the file, for a batch of one: image=1x3x224x224
      --mean NUMBERS    the network reads (pixel - mean) / scale; one for all channels or one for each: 124,116,104
                        [default: 127]
      --scale NUMBERS   see --mean [default: 128]
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
    pub(crate) inputs: Vec<(String, Vec<usize>)>,
    pub(crate) mean: Vec<f32>,
    pub(crate) scale: Vec<f32>,
    pub(crate) threads: usize,
    pub(crate) svg: PathBuf,
    pub(crate) json: Option<PathBuf>,
}

/// None, if help is asked for.
pub(crate) fn parse() -> Result<Option<Options>, lexopt::Error> {
    let svg = std::env::temp_dir().join("quantize_onnx.svg");
    let mut options = Options {
        source: Source::Trained,
        inputs: Vec::new(),
        mean: vec![127.0],
        scale: vec![128.0],
        threads: 1,
        svg,
        json: None,
    };
    let (mut model, mut calibrate, mut check) = (None, None, None);
    let mut parser = Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Arg::Value(value) if model.is_none() => model = Some(value.into()),
            Arg::Long("calibrate") => calibrate = Some(parser.value()?.into()),
            Arg::Long("check") => check = Some(parser.value()?.into()),
            Arg::Long("input") => options.inputs.push(parser.value()?.parse_with(input)?),
            Arg::Long("mean") => options.mean = parser.value()?.parse_with(|text| numbers(text, ','))?,
            Arg::Long("scale") => options.scale = parser.value()?.parse_with(|text| numbers(text, ','))?,
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

/// Numbers between separators.
fn numbers<T: FromStr>(text: &str, separator: char) -> Result<Vec<T>, T::Err> {
    text.split(separator).map(str::parse).collect()
}

/// `NAME=AxBxC`. A name may hold the sign of equality.
fn input(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, shape) = text.rsplit_once('=').ok_or("expected NAME=AxBxC")?;
    let shape = numbers(shape, 'x').map_err(|error| format!("shape {shape:?}: {error}"))?;
    Ok((name.into(), shape))
}
