//! Images as a network reads them.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use image::DynamicImage;
use image::imageops::FilterType;
use ndarray::{Array4, ArrayD, ArrayView4, Axis};

use crate::output;

/// The way to bring an image to the size of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Resize {
    /// Resize both sides, whatever their ratio.
    Stretch,
    /// Resize until the image covers the input, and cut off the rest on both sides.
    Crop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Channels {
    Rgb,
    Bgr,
}

/// Conversion of pixels to numbers.
#[derive(Debug, Clone)]
pub(crate) struct Pixels {
    pub(crate) mean: Vec<f32>,
    pub(crate) scale: Vec<f32>,
    pub(crate) resize: Resize,
    pub(crate) channels: Channels,
}

/// The size of an input that takes images.
struct Size {
    height: usize,
    width: usize,
    channels: usize,
    /// `[batch, height, width, channels]`; the channels are the second axis otherwise.
    channels_last: bool,
}

impl Size {
    fn of(shape: &[usize]) -> Result<Self> {
        match *shape {
            [_, channels @ (1 | 3), height, width] => Ok(Self { height, width, channels, channels_last: false }),
            [_, height, width, channels @ (1 | 3)] => Ok(Self { height, width, channels, channels_last: true }),
            _ => bail!("the input of shape {} takes no images of 1 or 3 channels", output::shape(shape)),
        }
    }
}

impl Pixels {
    /// Reads an image as an input of this shape.
    pub(crate) fn read(&self, path: &Path, shape: &[usize]) -> Result<ArrayD<f32>> {
        self.read_as(path, &Size::of(shape)?).with_context(|| path.display().to_string())
    }

    fn read_as(&self, path: &Path, size: &Size) -> Result<ArrayD<f32>> {
        let image = image::ImageReader::open(path)?.with_guessed_format()?.decode()?;
        let (width, height) = (u32::try_from(size.width)?, u32::try_from(size.height)?);
        // Bilinear, over all pixels that an output pixel covers, as PIL and torchvision do.
        let image = match self.resize {
            Resize::Stretch => image.resize_exact(width, height, FilterType::Triangle),
            Resize::Crop => image.resize_to_fill(width, height, FilterType::Triangle),
        };
        let pixels = if size.channels == 1 { DynamicImage::from(image.to_luma8()) } else { image.to_rgb8().into() };
        let pixels = ArrayView4::from_shape((1, size.height, size.width, size.channels), pixels.as_bytes())?;
        self.convert(pixels, size)
    }

    /// Converts an array `[images, height, width, channels]` of pixels to an input of this shape.
    pub(crate) fn convert_array(&self, pixels: &ArrayD<u8>, shape: &[usize]) -> Result<ArrayD<f32>> {
        let size = Size::of(shape)?;
        let fits = |found: &[usize]| found.ends_with(&[size.height, size.width, size.channels]) && found.len() == 4;
        ensure!(
            fits(pixels.shape()),
            "expected pixels of shape Nx{}x{}x{} (images, height, width, channels), found {}",
            size.height,
            size.width,
            size.channels,
            output::shape(pixels.shape())
        );
        self.convert(pixels.view().into_dimensionality()?, &size)
    }

    fn convert(&self, pixels: ArrayView4<u8>, size: &Size) -> Result<ArrayD<f32>> {
        let numbers = |name: &str, numbers: &[f32], c: usize| match numbers {
            [one] => Ok(*one),
            many if many.len() == size.channels => Ok(many[c]),
            many => bail!("{name}: expected 1 number or {}, one for each channel, found {}", size.channels, many.len()),
        };
        let mut converted = Array4::zeros(pixels.raw_dim());
        for c in 0..size.channels {
            let (mean, scale) = (numbers("--mean", &self.mean, c)?, numbers("--scale", &self.scale, c)?);
            // Mean and scale are in the order of the input's channels.
            let from = if self.channels == Channels::Bgr { size.channels - 1 - c } else { c };
            let to = converted.index_axis_mut(Axis(3), c);
            ndarray::Zip::from(to).and(pixels.index_axis(Axis(3), from)).for_each(|to: &mut f32, &pixel| {
                *to = (f32::from(pixel) - mean) / scale;
            });
        }
        if !size.channels_last {
            converted = converted.permuted_axes([0, 3, 1, 2]);
        }
        Ok(converted.into_dyn())
    }
}
