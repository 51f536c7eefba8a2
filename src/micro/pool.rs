//! Poolings.

use super::format::{Access, Fields, Region, are_codes, is_window, product};
use super::memory::Memory;
use crate::affine::{Codes, requantize_float};
use crate::ops::pool::pool_op::{FloatMean, Max, PoolOp};
use crate::window::Placed;

/// Where a pooling reads and writes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Windows {
    pub(crate) x: Region,
    pub(crate) y: Region,
    pub(crate) window: Placed,
    pub(crate) channels: usize,
}

impl Windows {
    pub(super) fn fields(&mut self, f: &mut impl Fields) {
        f.region(&mut self.x, Access::Read);
        f.region(&mut self.y, Access::Write);
        f.window(&mut self.window);
        f.size(&mut self.channels);
    }

    pub(super) fn is_valid(&self) -> bool {
        let Placed { image, output, .. } = self.window;
        is_window(&self.window)
            && product(&[image[0], image[1], self.channels]) == Some(self.x.len())
            && product(&[output[0], output[1], self.channels]) == Some(self.y.len())
    }

    fn run(&self, memory: &mut Memory<'_>, op: impl PoolOp<u8>) -> Option<()> {
        let (reads, y, _) = memory.borrow(self.y, Region::default())?;
        let (x, window, channels) = (reads.get(self.x)?, &self.window, self.channels);
        let (width, [down, across]) = (window.image[1] * channels, window.dilations);
        for (pixel, y) in y.chunks_exact_mut(channels).enumerate() {
            let [row, column] = [pixel / window.output[1], pixel % window.output[1]];
            let ((rows, top), (columns, left)) = (window.first_pixel(0, row), window.first_pixel(1, column));
            let op = op.for_window(rows * columns, window.padded_count(0, row) * window.padded_count(1, column));
            for (channel, y) in y.iter_mut().enumerate() {
                let mut state = op.init();
                for i in 0..rows {
                    for j in 0..columns {
                        let at = (top + i * down) * width + (left + j * across) * channels + channel;
                        state = op.accumulate(state, *x.get(at)?);
                    }
                }
                *y = op.finish(state);
            }
        }
        Some(())
    }

    /// The maximum of each window.
    pub(super) fn run_max(&self, memory: &mut Memory<'_>) -> Option<()> {
        self.run(memory, Max)
    }
}

/// The mean of each window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AveragePool {
    pub(crate) windows: Windows,
    /// Scale and zero point of the input and of the output.
    pub(crate) params: [(f32, i32); 2],
    /// 1 if padding counts, else 0.
    pub(crate) count_include_pad: u32,
    pub(crate) codes: Codes,
    /// The offset of stored codes from those of the formula: 0 or 128.
    pub(crate) offset: i32,
}

impl AveragePool {
    pub(super) fn fields(&mut self, f: &mut impl Fields) {
        self.windows.fields(f);
        for (scale, zero_point) in &mut self.params {
            f.float(scale);
            f.int(zero_point);
        }
        f.word(&mut self.count_include_pad);
        f.codes(&mut self.codes);
        f.int(&mut self.offset);
    }

    pub(super) fn is_valid(&self) -> bool {
        let [(_, x_zero), (_, y_zero)] = self.params;
        self.windows.is_valid() && are_codes(&[x_zero, y_zero, self.offset], self.codes)
    }

    pub(super) fn run(&self, memory: &mut Memory<'_>) -> Option<()> {
        let [x, y] = self.params;
        self.windows.run(memory, FloatMean::new(x, y, self.count_include_pad != 0, self.codes, self.offset))
    }
}

/// The mean of each channel: `clamp(round((Σ x - pixels * x_zero) * multiplier) + y_zero)`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct GlobalAveragePool {
    pub(crate) x: Region,
    pub(crate) y: Region,
    pub(crate) multiplier: f32,
    pub(crate) x_zero: i32,
    pub(crate) y_zero: i32,
    pub(crate) codes: Codes,
}

impl GlobalAveragePool {
    pub(super) fn fields(&mut self, f: &mut impl Fields) {
        f.region(&mut self.x, Access::Read);
        f.region(&mut self.y, Access::Write);
        f.float(&mut self.multiplier);
        f.int(&mut self.x_zero);
        f.int(&mut self.y_zero);
        f.codes(&mut self.codes);
    }

    pub(super) fn is_valid(&self) -> bool {
        self.x.len() > 0
            && self.x.len().checked_rem(self.y.len()) == Some(0)
            && are_codes(&[self.x_zero, self.y_zero], self.codes)
    }

    pub(super) fn run(&self, memory: &mut Memory<'_>) -> Option<()> {
        let (reads, y, _) = memory.borrow(self.y, Region::default())?;
        let (x, channels) = (reads.get(self.x)?, y.len());
        let shift = self.x_zero.wrapping_mul((x.len() / channels) as i32);
        for (channel, y) in y.iter_mut().enumerate() {
            let codes = x.iter().skip(channel).step_by(channels);
            let sum = codes.fold(0i32, |sum, &code| sum.wrapping_add(code.into())).wrapping_sub(shift);
            *y = requantize_float::<u8>(sum, self.multiplier, self.y_zero, self.codes) as u8;
        }
        Some(())
    }
}
