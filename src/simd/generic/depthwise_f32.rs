//! Depthwise convolution of floats.

use crate::affine::clamp_f32;
use crate::simd::Vector;

/// Neighbouring outputs of one row that see the same kernel positions: `y[p * y_step + c] = clamp(bias[c] + Σ_i Σ_j x[p * x_step +
/// i * x_steps[0] + j * x_steps[1] + c] * weights[i * weight_steps[0] + j * weight_steps[1] + c])` for `p < outputs`,
/// `i < kernel[0]` and `j < kernel[1]`, summed in this order, for each channel `c` of `bias`.
#[derive(Clone, Copy)]
pub(crate) struct KernelPositionsF32<'a> {
    pub(crate) kernel: [usize; 2],
    pub(crate) x: &'a [f32],
    pub(crate) x_steps: [usize; 2],
    pub(crate) x_step: usize,
    pub(crate) weights: &'a [f32],
    pub(crate) weight_steps: [usize; 2],
    pub(crate) bias: &'a [f32],
    pub(crate) bounds: (f32, f32),
    pub(crate) outputs: usize,
    pub(crate) y_step: usize,
}

/// Outputs that are computed together and share loads of weights.
const TILE: usize = 4;

/// Registers of channels that are computed together: a single sum would wait for each addition.
const REGISTERS: usize = 2;

impl KernelPositionsF32<'_> {
    /// Computes the outputs.
    ///
    /// # Panics
    /// If a slice is too short.
    #[inline(always)]
    pub(crate) fn compute<V: Vector>(&self, v: V, y: &mut [f32]) {
        let channels = self.bias.len();
        if self.outputs == 0 || channels == 0 {
            return;
        }
        // The bounds of all reads and writes of `tile`.
        let last = |steps: &[(usize, usize)]| {
            steps.iter().try_fold(channels, |end, &(count, step)| end.checked_add((count - 1).checked_mul(step)?))
        };
        let fits = |end: Option<usize>, len: usize| end.is_some_and(|end| end <= len);
        let [rows, columns] = self.kernel;
        if rows > 0 && columns > 0 {
            let x = [(self.outputs, self.x_step), (rows, self.x_steps[0]), (columns, self.x_steps[1])];
            let weights = [(rows, self.weight_steps[0]), (columns, self.weight_steps[1])];
            assert!(fits(last(&x), self.x.len()) && fits(last(&weights), self.weights.len()), "pixels and weights");
        }
        assert!(fits(last(&[(self.outputs, self.y_step)]), y.len()), "memory for a row of outputs");
        if channels < V::LANES {
            return self.scalar(y);
        }
        let mut channel = 0;
        while channel < channels {
            if channels - channel >= REGISTERS * V::LANES {
                self.channels::<V, REGISTERS>(v, channel, y);
                channel += REGISTERS * V::LANES;
            } else {
                // A remainder of channels is computed as the last ones, overlapping.
                self.channels::<V, 1>(v, channel.min(channels - V::LANES), y);
                channel += V::LANES;
            }
        }
    }

    /// Computes `R` registers of channels of all outputs.
    #[inline(always)]
    fn channels<V: Vector, const R: usize>(&self, v: V, channel: usize, y: &mut [f32]) {
        if self.outputs < TILE {
            for output in 0..self.outputs {
                self.tile::<V, 1, R>(v, output, channel, y);
            }
            return;
        }
        for output in (0..self.outputs).step_by(TILE) {
            // A remainder is computed as the last outputs, overlapping.
            self.tile::<V, TILE, R>(v, output.min(self.outputs - TILE), channel, y);
        }
    }

    /// Computes `R` registers of channels of `P` outputs.
    ///
    /// Called by [`Self::compute`], which checked the bounds.
    #[inline(always)]
    fn tile<V: Vector, const P: usize, const R: usize>(&self, v: V, output: usize, channel: usize, y: &mut [f32]) {
        let x = self.x.as_ptr().wrapping_add(output * self.x_step + channel);
        let weights = self.weights.as_ptr().wrapping_add(channel);
        let y = y.as_mut_ptr().wrapping_add(output * self.y_step + channel);
        // SAFETY: `compute` saw pixels, weights and outputs of all kernel positions and channels, and `channel` is followed by `R`
        // registers of channels.
        unsafe {
            let bias = self.bias.as_ptr().add(channel);
            let bias: [_; R] = array!(v.splat_f32(0.0), r => v.load_f32(bias.add(r * V::LANES)));
            let mut acc = [bias; P];
            for i in 0..self.kernel[0] {
                let mut x = x.wrapping_add(i * self.x_steps[0]);
                let mut weights = weights.wrapping_add(i * self.weight_steps[0]);
                for _ in 0..self.kernel[1] {
                    let w: [_; R] = array!(v.splat_f32(0.0), r => v.load_f32(weights.add(r * V::LANES)));
                    for (p, acc) in acc.iter_mut().enumerate() {
                        let x = x.wrapping_add(p * self.x_step);
                        for (r, acc) in acc.iter_mut().enumerate() {
                            *acc = v.add_f32(*acc, v.mul_f32(v.load_f32(x.wrapping_add(r * V::LANES)), w[r]));
                        }
                    }
                    (x, weights) = (x.wrapping_add(self.x_steps[1]), weights.wrapping_add(self.weight_steps[1]));
                }
            }
            let (low, high) = (v.splat_f32(self.bounds.0), v.splat_f32(self.bounds.1));
            for (p, acc) in acc.into_iter().enumerate() {
                for (r, acc) in acc.into_iter().enumerate() {
                    // In this order NaN stays NaN.
                    let clamped = v.min_f32(high, v.max_f32(low, acc));
                    v.store_f32(y.wrapping_add(p * self.y_step + r * V::LANES), clamped);
                }
            }
        }
    }

    /// Computes fewer channels than a register has.
    #[inline(always)]
    fn scalar(&self, y: &mut [f32]) {
        for (output, y) in y.chunks_mut(self.y_step.max(1)).take(self.outputs).enumerate() {
            for (c, (y, &bias)) in y.iter_mut().zip(self.bias).enumerate() {
                let mut acc = bias;
                for i in 0..self.kernel[0] {
                    for j in 0..self.kernel[1] {
                        let x = self.x[output * self.x_step + i * self.x_steps[0] + j * self.x_steps[1] + c];
                        acc += x * self.weights[i * self.weight_steps[0] + j * self.weight_steps[1] + c];
                    }
                }
                *y = clamp_f32(acc, self.bounds.0, self.bounds.1);
            }
        }
    }
}
