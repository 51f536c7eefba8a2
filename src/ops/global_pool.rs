//! Pooling of whole images.

use ndarray::{Array4, ArrayRef4, Ix4};

use super::layout::with_nhwc;
use super::requantize::{Output, check_params};
use crate::affine::{Codes, Multiplier};
use crate::arch::{self, Task};
use crate::error::{Error, Result};
use crate::gemm::{Int8, Workspace};
use crate::qparams::QParams;
use crate::qtensor::QTensor;

/// The mean over each image, channel by channel (ONNX Runtime: `QLinearGlobalAveragePool`).
///
/// In `f32`: `clamp(rne(f32(Σ (x - x_zero)) * (x_scale / (y_scale * f32(n)))) + y_zero)`, `n` pixels. The other
/// arithmetics multiply the same sum by `x_scale / (y_scale * n)` as any accumulator.
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::ops::GlobalAveragePool;
/// use ndarray_quant::{QParams, QTensor, nn::Output};
/// let params = QParams::<u8, Ix4>::per_tensor(0.5, 0)?;
/// let x = QTensor::new(Array4::from_shape_fn((1, 2, 2, 3), |(_, y, x, c)| (10 * c + 2 * y + x) as u8), params.clone())?;
/// let y = GlobalAveragePool::new(&params, &Output::to(&QParams::per_tensor(0.25, 0)?))?.forward(&x)?;
/// assert_eq!(y.codes().shape(), [1, 1, 1, 3]);
/// assert_eq!(y.codes().iter().copied().collect::<Vec<_>>(), [3, 23, 43]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GlobalAveragePool<T: Int8> {
    x: QParams<T, Ix4>,
    to: Output<T, Ix4>,
}

impl<T: Int8> GlobalAveragePool<T> {
    /// For images with these parameters.
    ///
    /// # Errors
    /// [`Error::Shape`] unless all parameters are per tensor.
    pub fn new(x: &QParams<T, Ix4>, to: &Output<T, Ix4>) -> Result<Self> {
        x.pair("parameters of the input")?;
        to.params.pair("parameters of the output")?;
        Ok(Self { x: x.clone(), to: to.clone() })
    }

    /// The parameters of outputs.
    pub fn output(&self) -> &QParams<T, Ix4> {
        &self.to.params
    }

    /// `[images, height, width, channels]` to `[images, 1, 1, channels]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if `x` has other parameters, and those of [`Self::forward_into`].
    pub fn forward(&self, x: &QTensor<T, Ix4>) -> Result<QTensor<T, Ix4>> {
        check_params(x.params(), &self.x)?;
        let codes = x.unpacked_codes();
        let (images, _, _, channels) = codes.dim();
        let mut out = Array4::from_elem((images, 1, 1, channels), T::default());
        self.forward_into(&codes, &mut out, &mut Workspace::new())?;
        QTensor::from_codes(out, self.to.params.clone())
    }

    /// [`Self::forward`] of codes into memory that exists. Any strides.
    ///
    /// # Errors
    /// [`Error::Shape`] if `out` is not `[images, 1, 1, channels]` or the images have no pixels, [`Error::Depth`] if
    /// they have so many that a sum could overflow, and those of [`Multiplier::new`].
    pub fn forward_into(&self, x: &ArrayRef4<T>, out: &mut ArrayRef4<T>, workspace: &mut Workspace) -> Result<()> {
        let (images, height, width, channels) = x.dim();
        if out.dim() != (images, 1, 1, channels) {
            return Err(Error::shape("output", &[images, 1, 1, channels], out.shape()));
        }
        let (pixels, max) = (height * width, i32::MAX as usize / 255);
        if pixels == 0 {
            return Err(Error::shape("image, at least one pixel", &[images, 1, 1, channels], x.shape()));
        }
        if pixels > max {
            return Err(Error::Depth { max, found: pixels });
        }
        let ((x_scale, zero), (y_scale, y_zero)) =
            (self.x.pair("parameters of the input")?, self.to.params.pair("parameters of the output")?);
        let factor = Multiplier::mean(x_scale, y_scale, pixels, self.to.arithmetic)?;
        let codes = self.to.codes();
        with_nhwc(x, out, workspace, |x, out, _| {
            let images = x.chunks_exact(pixels * channels.max(1)).zip(out.chunks_exact_mut(channels.max(1)));
            images.for_each(|(x, out)| arch::run(Global { x, out, zero, factor, y_zero, codes }));
        });
        Ok(())
    }
}

/// Channels that are pooled together.
const LANES: usize = 64;

/// The mean over one image.
struct Global<'a, T> {
    x: &'a [T],
    out: &'a mut [T],
    zero: i32,
    factor: Multiplier,
    y_zero: i32,
    codes: Codes,
}

impl<T: Int8> Task for Global<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, out, zero, factor, y_zero, codes } = self;
        let channels = out.len().max(1);
        let shift = zero * (x.len() / channels) as i32;
        // Some pixels of few channels are summed as one of more.
        let pixels = (LANES / channels).max(1);
        for (c, out) in out.chunks_mut(LANES).enumerate() {
            let mut sums = lane_sums(&x[c * LANES..], pixels * channels, pixels * out.len());
            for i in channels..pixels * channels {
                sums[i % channels] += sums[i];
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = T::from_i32(factor.apply::<T>(sum - shift, y_zero, codes));
            }
        }
    }
}

/// The sums of every `step`-th element, from each of the first `len` ones on. Those behind these have no meaning.
#[inline(always)]
fn lane_sums<T: Int8>(x: &[T], step: usize, len: usize) -> [i32; LANES] {
    let mut sums = [0; LANES];
    let whole = x.len().checked_sub(LANES).map_or(0, |last| last / step + 1);
    for at in 0..whole {
        let from = &x[at * step..][..LANES];
        for i in 0..LANES {
            sums[i] += from[i].to_i32();
        }
    }
    for from in x.chunks(step).skip(whole) {
        sums.iter_mut().zip(&from[..len.min(from.len())]).for_each(|(sum, code)| *sum += code.to_i32());
    }
    sums
}
