//! Arguments that several commands take.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::images::{Channels, Pixels, Resize};

/// An input and its shape: `NAME=1x3x224x224`.
#[derive(Debug, Clone)]
pub(crate) struct InputShape {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

impl std::str::FromStr for InputShape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected NAME=SHAPE, such as images=1x3x224x224";
        // A name may contain `=`, a shape does not.
        let (name, shape) = text.rsplit_once('=').ok_or(EXPECTED)?;
        let lengths = shape.split(['x', ',']).map(|length| length.trim().parse().map_err(|_| EXPECTED));
        let shape = lengths.collect::<Result<Vec<usize>, _>>()?;
        if name.is_empty() || shape.contains(&0) { Err(EXPECTED.into()) } else { Ok(Self { name: name.into(), shape }) }
    }
}

/// Shapes of inputs.
#[derive(Debug, Args)]
pub(crate) struct Shapes {
    /// The shape of an input whose axes have no fixed length in the ONNX file, such as images=1x3x224x224. Repeat it for
    /// several inputs.
    #[arg(long = "input", value_name = "NAME=SHAPE")]
    pub(crate) shapes: Vec<InputShape>,
}

/// A file or folder of data, for all inputs or for one: `PATH` or `NAME=PATH`.
#[derive(Debug, Clone)]
pub(crate) struct DataPath {
    pub(crate) input: Option<String>,
    pub(crate) path: PathBuf,
}

impl DataPath {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let whole = PathBuf::from(text);
        let named = text.split_once('=').filter(|(name, _)| !name.is_empty() && !whole.exists());
        Ok(match named {
            Some((name, path)) => Self { input: Some(name.into()), path: path.into() },
            None => Self { input: None, path: whole },
        })
    }
}

/// Conversion of images to the input of a network: `(pixel - mean) / scale` for each channel.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Images")]
pub(crate) struct ImageArgs {
    /// Subtracted from pixels of 0 to 255: one number, or one for each channel. ImageNet: 123.675,116.28,103.53.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', allow_negative_numbers = true, default_value = "0")]
    mean: Vec<f32>,
    /// Divides the difference: one number, or one for each channel. ImageNet: 58.395,57.12,57.375.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_value = "255")]
    scale: Vec<f32>,
    /// The way to bring an image to the size of the input.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Resize::Stretch)]
    resize: Resize,
    /// The order of the channels of the input.
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = Channels::Rgb)]
    channel_order: Channels,
}

impl ImageArgs {
    pub(crate) fn pixels(&self) -> Result<Pixels> {
        let valid =
            self.mean.iter().all(|mean| mean.is_finite()) && self.scale.iter().all(|s| s.is_finite() && *s != 0.0);
        ensure!(valid, "--mean and --scale: expected finite numbers, and none of --scale to be 0");
        Ok(Pixels {
            mean: self.mean.clone(),
            scale: self.scale.clone(),
            resize: self.resize,
            channels: self.channel_order,
        })
    }
}

/// Data to run a network on.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Inputs: a .npy file, a .npz file with an array for each input, an image, or a folder of these. NAME=PATH is the data
    /// of one input. Repeat it for several. The first axis of arrays is the sample; arrays of one sample may lack it.
    #[arg(long, value_name = "[NAME=]PATH", value_parser = DataPath::parse)]
    pub(crate) data: Vec<DataPath>,
    /// Use N random samples instead, uniform in 0..1. Errors and ranges of random data say nothing about real inputs.
    #[arg(long, value_name = "N", conflicts_with = "data")]
    pub(crate) random_data: Option<usize>,
    /// Use the first N samples only.
    #[arg(long, value_name = "N")]
    pub(crate) samples: Option<usize>,
}

/// A number of bytes: `4785361`, `4.8MB`, `512kB`, `1GiB`.
pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return Err("expected a unit of kB, MB, GB, KiB, MiB or GiB".into()),
    };
    let number: f64 = number.trim().parse().map_err(|_| "expected a number of bytes, such as 4.8MB".to_string())?;
    if number >= 0.0 { Ok((number * factor) as usize) } else { Err("expected a number that is not negative".into()) }
}

/// Writes to a file, or to standard output if it is `-`.
pub(crate) fn write(path: &std::path::Path, content: &str) -> Result<()> {
    if path == std::path::Path::new("-") {
        crate::output::write_out(format_args!("{content}"));
        return Ok(());
    }
    std::fs::write(path, content).with_context(|| path.display().to_string())
}

/// The names that ONNX Runtime, TensorFlow Lite and ai-edge-quantizer have for a way to quantize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Full integer: int8 weights, uint8 activations in calibrated ranges. Needs --calibration-data.
    #[value(alias = "full-integer", alias = "static_wi8_ai8")]
    Static,
    /// Dynamic range: int8 weights; layers quantize their inputs while the network runs. Needs no data.
    #[value(alias = "dynamic-range", alias = "dynamic_wi8_afp32")]
    Dynamic,
    /// Half-precision weights, computation in float32. Needs no data.
    #[value(alias = "fp16")]
    Float16,
}
