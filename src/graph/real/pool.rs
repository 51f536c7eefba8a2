//! Poolings on floats.

use crate::arch::{self, Task};
use crate::error::Result;
use crate::graph::plan::{Kernel, Scratch, Values, ValuesMut};

use super::Geometry;

/// What becomes of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reduce {
    Max,
    Average { count_pad: bool },
}

/// [`Op::MaxPool`](crate::graph::Op::MaxPool) and [`Op::AveragePool`](crate::graph::Op::AveragePool).
#[derive(Debug)]
pub(super) struct Pool {
    geometry: Geometry,
    reduce: Reduce,
}

impl Pool {
    pub(super) fn max(geometry: Geometry) -> Self {
        Self { geometry, reduce: Reduce::Max }
    }

    pub(super) fn average(geometry: Geometry, count_pad: bool) -> Self {
        Self { geometry, reduce: Reduce::Average { count_pad } }
    }
}

impl Kernel for Pool {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let [height, width, channels] = self.geometry.input;
        let images = inputs[0].as_slice::<f32>().chunks_exact((height * width * channels).max(1));
        let len: usize = self.geometry.output.iter().product();
        for (image, y) in images.zip(output.into_slice::<f32>().chunks_exact_mut(len.max(1))) {
            arch::run(PoolImage { pool: self, image, y });
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
        let Pool { geometry: g, reduce } = self.pool;
        let ([_, width, channels], [kh, kw]) = (g.input, g.window.kernel);
        for (pixel, y) in self.y.chunks_exact_mut(channels.max(1)).enumerate() {
            let (row, column) = (pixel / g.output[1], pixel % g.output[1]);
            y.fill(if *reduce == Reduce::Max { f32::NEG_INFINITY } else { 0.0 });
            let mut count = 0;
            for ky in 0..kh {
                let Some(iy) = g.source(0, row, ky) else { continue };
                for kx in 0..kw {
                    let Some(ix) = g.source(1, column, kx) else { continue };
                    let x = &self.image[(iy * width + ix) * channels..][..channels];
                    count += 1;
                    if *reduce == Reduce::Max {
                        for (y, &x) in y.iter_mut().zip(x) {
                            *y = if x > *y { x } else { *y };
                        }
                    } else {
                        for (y, &x) in y.iter_mut().zip(x) {
                            *y += x;
                        }
                    }
                }
            }
            if let Reduce::Average { count_pad } = reduce {
                let share = 1.0 / if *count_pad { kh * kw } else { count } as f32;
                for y in y {
                    *y *= share;
                }
            }
        }
    }
}

/// [`Op::GlobalAveragePool`](crate::graph::Op::GlobalAveragePool).
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
