//! Float pooling.

use crate::error::Result;
use crate::ops::conv::Geometry;
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::simd::{self, Task};

/// The reduction of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reduce {
    Max,
    Average { count_include_pad: bool },
}

#[derive(Debug)]
pub(super) struct Pool {
    geometry: Geometry,
    reduce: Reduce,
}

impl Pool {
    pub(super) fn max(geometry: Geometry) -> Self {
        Self { geometry, reduce: Reduce::Max }
    }

    pub(super) fn average(geometry: Geometry, count_include_pad: bool) -> Self {
        Self { geometry, reduce: Reduce::Average { count_include_pad } }
    }
}

impl Kernel for Pool {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let images = inputs[0].as_slice::<f32>().chunks_exact(self.geometry.input_len().max(1));
        let outputs = output.into_slice::<f32>().chunks_exact_mut(self.geometry.output_len().max(1));
        for (image, y) in images.zip(outputs) {
            simd::run(PoolImage { pool: self, image, y });
        }
        Ok(())
    }
}

struct PoolImage<'a> {
    pool: &'a Pool,
    image: &'a [f32],
    y: &'a mut [f32],
}

impl Task for PoolImage<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Pool { geometry: Geometry { window, channels: [channels, _], .. }, reduce } = *self.pool;
        let ([_, width], [_, columns]) = (window.image, window.output);
        for (pixel, y) in self.y.chunks_exact_mut(channels.max(1)).enumerate() {
            let (row, column) = (pixel / columns, pixel % columns);
            let (kernel_rows, kernel_columns) = (window.kernel_range(0, row), window.kernel_range(1, column));
            y.fill(if reduce == Reduce::Max { f32::NEG_INFINITY } else { 0.0 });
            for (ky, kx) in kernel_rows.clone().flat_map(|ky| kernel_columns.clone().map(move |kx| (ky, kx))) {
                let (Some(iy), Some(ix)) = (window.source(0, row, ky), window.source(1, column, kx)) else { continue };
                let x = &self.image[(iy * width + ix) * channels..][..channels];
                if reduce == Reduce::Max {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y = if x > *y { x } else { *y };
                    }
                } else {
                    for (y, &x) in y.iter_mut().zip(x) {
                        *y += x;
                    }
                }
            }
            if let Reduce::Average { count_include_pad } = reduce {
                let padded = || window.padded_count(0, row) * window.padded_count(1, column);
                let factor =
                    1.0 / if count_include_pad { padded() } else { kernel_rows.len() * kernel_columns.len() } as f32;
                for y in y {
                    *y *= factor;
                }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct GlobalAverage {
    pixels: usize,
    channels: usize,
}

impl GlobalAverage {
    pub(super) fn new(input: &[usize]) -> Self {
        Self { pixels: input[2] * input[3], channels: input[1] }
    }
}

impl Kernel for GlobalAverage {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let channels = self.channels.max(1);
        let images = inputs[0].as_slice::<f32>().chunks_exact(self.pixels * channels);
        for (image, y) in images.zip(output.into_slice::<f32>().chunks_exact_mut(channels)) {
            y.fill(0.0);
            for x in image.chunks_exact(channels) {
                y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
            }
            y.iter_mut().for_each(|y| *y /= self.pixels as f32);
        }
        Ok(())
    }
}
