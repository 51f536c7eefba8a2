//! Convolutions and linear layers.

use super::format::{Access, Fields, Region, are_codes, is_window, product};
use super::memory::Memory;
use crate::affine::{Codes, RequantizeFloat};
use crate::ops::Geometry;
use crate::window::Placed;

/// A convolution of NHWC codes: `clamp(round(acc * multiplier) + y_zero)`, `acc = bias + Σ x * w`. The bias includes
/// `-x_zero * Σ w`. A linear layer is a convolution whose pixels are its rows.
///
/// The codes under the kernel are copied to the scratch `patch`, with `x_zero` in the padding. So a sum is one run over
/// codes and weights, at the borders too.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Conv {
    pub(crate) x: Region,
    pub(crate) y: Region,
    /// Empty if the kernel is one pixel of the image.
    pub(crate) patch: Region,
    /// `i8`, `[out, kh, kw, channels / groups]`.
    pub(crate) weights: Region,
    /// `i32`, one for each output channel.
    pub(crate) bias: Region,
    /// `f32`, one, or one for each output channel.
    pub(crate) multipliers: Region,
    pub(crate) window: Placed,
    /// Channels of the input and of the output.
    pub(crate) channels: [usize; 2],
    pub(crate) groups: usize,
    pub(crate) x_zero: i32,
    pub(crate) y_zero: i32,
    pub(crate) codes: Codes,
}

impl Conv {
    pub(super) fn fields(&mut self, f: &mut impl Fields) {
        f.region(&mut self.x, Access::Read);
        f.region(&mut self.y, Access::Write);
        f.region(&mut self.patch, Access::Write);
        for data in [&mut self.weights, &mut self.bias, &mut self.multipliers] {
            f.region(data, Access::Read);
        }
        f.window(&mut self.window);
        self.channels.iter_mut().for_each(|channels| f.size(channels));
        f.size(&mut self.groups);
        f.int(&mut self.x_zero);
        f.int(&mut self.y_zero);
        f.codes(&mut self.codes);
    }

    /// Returns whether each kernel is one pixel of the image, which needs no patch.
    pub(crate) fn is_one_pixel(window: &Placed) -> bool {
        let inside = |axis: usize| (window.output[axis] - 1) * window.strides[axis] < window.image[axis];
        window.kernel == [1, 1] && window.before == [0, 0] && inside(0) && inside(1)
    }

    /// The number of codes under a kernel.
    pub(crate) fn patch_len(window: &Placed, channels: usize) -> Option<usize> {
        match Self::is_one_pixel(window) {
            true => Some(0),
            false => product(&[window.kernel[0], window.kernel[1], channels]),
        }
    }

    pub(super) fn is_valid(&self) -> bool {
        let Self { window, channels: [input, outputs], groups, .. } = *self;
        let divides = |channels: usize| channels.checked_rem(groups) == Some(0);
        if !is_window(&window) || !divides(input) || !divides(outputs) {
            return false;
        }
        let len = |extents: &[usize]| product(extents);
        len(&[window.image[0], window.image[1], input]) == Some(self.x.len())
            && len(&[window.output[0], window.output[1], outputs]) == Some(self.y.len())
            && Self::patch_len(&window, input) == Some(self.patch.len())
            && self.patch.is_in_arena()
            && len(&[window.kernel[0], window.kernel[1], input / groups, outputs]) == Some(self.weights.len())
            && len(&[4, outputs]) == Some(self.bias.len())
            && (self.multipliers.len() == 4 || self.multipliers.len() == self.bias.len())
            && are_codes(&[self.x_zero, self.y_zero], self.codes)
    }

    pub(super) fn run(&self, memory: &mut Memory<'_>) -> Option<()> {
        let Self { window, channels: [input, outputs], groups, .. } = *self;
        let (reads, y, scratch) = memory.borrow(self.y, self.patch)?;
        let (x, weights) = (reads.get(self.x)?, reads.get(self.weights)?);
        let (bias, _) = reads.get(self.bias)?.as_chunks::<4>();
        let (multipliers, _) = reads.get(self.multipliers)?.as_chunks::<4>();
        let stage = RequantizeFloat::new(self.y_zero, self.codes);
        let geometry = Geometry { window, groups: 1, channels: [input, outputs] };
        let (depth, per_group) = (weights.len() / outputs, outputs / groups);
        for (pixel, y) in y.chunks_exact_mut(outputs).enumerate() {
            let patch = if scratch.is_empty() {
                let [row, column] = [pixel / window.output[1], pixel % window.output[1]];
                let at = (row * window.strides[0] * window.image[1] + column * window.strides[1]) * input;
                x.get(at..at + input)?
            } else {
                geometry.im2col(x, 0, pixel, scratch, self.x_zero as u8);
                &*scratch
            };
            let outputs = weights.chunks_exact(depth).zip(bias).zip(y);
            for (o, ((weights, bias), y)) in outputs.enumerate() {
                let sum = match groups {
                    1 => dot(patch, weights),
                    _ => dot_of_group(patch, input, o / per_group, weights, input / groups),
                };
                let acc = i32::from_le_bytes(*bias).wrapping_add(sum);
                let multiplier = multipliers.get(o).or(multipliers.first())?;
                *y = stage.codes(acc, f32::from_le_bytes(*multiplier)) as u8;
            }
        }
        Some(())
    }
}

/// `Σ x * w` for codes and weights of `i8`.
#[inline(always)]
fn dot(x: &[u8], weights: &[u8]) -> i32 {
    x.iter().zip(weights).fold(0, |sum, (&x, &w)| sum.wrapping_add(i32::from(x) * i32::from(w as i8)))
}

/// [`dot`] with the channels of one group of a patch.
#[inline(always)]
fn dot_of_group(patch: &[u8], channels: usize, group: usize, weights: &[u8], each: usize) -> i32 {
    if each == 1 {
        let codes = patch.iter().skip(group).step_by(channels);
        return codes.zip(weights).fold(0, |sum, (&x, &w)| sum.wrapping_add(i32::from(x) * i32::from(w as i8)));
    }
    let pixels = patch.chunks_exact(channels).zip(weights.chunks_exact(each));
    pixels.fold(0, |sum, (pixel, weights)| sum.wrapping_add(dot(&pixel[group * each..], weights)))
}
