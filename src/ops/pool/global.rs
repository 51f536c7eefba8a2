//! Global average pooling.

use ndarray::{Array4, ArrayRef4, Ix4};

use crate::affine::{Codes, Multiplier};
use crate::error::{Error, Result, ValueError};
use crate::gemm::{Int8, Workspace};
use crate::ops::layout::with_nhwc;
use crate::ops::output::Output;
use crate::ops::params::check_params;
use crate::qparams::QParams;
use crate::qtensor::QTensor;
use crate::simd::{self, Task};

/// Global average pooling: the mean over all pixels of each image, channel by channel (ONNX Runtime:
/// `QLinearGlobalAveragePool`; PyTorch: `nn.AdaptiveAvgPool2d(1)`).
///
/// In `f32` it computes `clamp(rne(f32(Σ (x - x_zero)) * (x_scale / (y_scale * f32(n)))) + y_zero)` for `n` pixels. The
/// other arithmetics multiply the same sum by `x_scale / (y_scale * n)` as an output stage does.
///
/// ```
/// use ndarray::{Array4, Ix4};
/// use ndarray_quant::ops::GlobalAveragePool;
/// use ndarray_quant::{QParams, QTensor, nn::Output};
/// let params = QParams::<u8>::per_tensor(0.5, 0)?;
/// let codes = Array4::from_shape_fn((1, 2, 2, 3), |(_, y, x, c)| (10 * c + 2 * y + x) as u8);
/// let x = QTensor::new(codes, params.clone())?;
/// let y = GlobalAveragePool::new(&params, &Output::to(&QParams::per_tensor(0.25, 0)?))?.forward(&x)?;
/// assert_eq!(y.codes().shape(), [1, 1, 1, 3]);
/// assert_eq!(y.codes().iter().copied().collect::<Vec<_>>(), [3, 23, 43]);
/// # Ok::<(), ndarray_quant::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GlobalAveragePool<T: Int8> {
    x: QParams<T>,
    to: Output<T>,
}

impl<T: Int8> GlobalAveragePool<T> {
    /// Prepares for input parameters and an output.
    ///
    /// # Errors
    /// [`Error::Params`] unless all parameters are per tensor.
    pub fn new(x: &QParams<T>, to: &Output<T>) -> Result<Self> {
        x.scale_zero_point("input")?;
        to.params.scale_zero_point("output")?;
        Ok(Self { x: x.clone(), to: to.clone() })
    }

    pub(super) fn codes(&self) -> Codes {
        self.to.codes()
    }

    /// The parameters of the input.
    pub fn input(&self) -> &QParams<T> {
        &self.x
    }

    /// The parameters of the output.
    pub fn output(&self) -> &QParams<T> {
        &self.to.params
    }

    /// Computes `[images, 1, 1, channels]` from `[images, height, width, channels]`.
    ///
    /// # Errors
    /// [`Error::Params`] if `x` has another scale or zero point. Otherwise the same as [`Self::forward_into`].
    pub fn forward(&self, x: &QTensor<T, Ix4>) -> Result<QTensor<T, Ix4>> {
        check_params("input", x.params(), &self.x)?;
        let codes = x.unpacked_codes();
        let (images, _, _, channels) = codes.dim();
        let mut out = Array4::from_elem((images, 1, 1, channels), T::default());
        self.forward_into(&codes, &mut out, &mut Workspace::new())?;
        QTensor::from_valid_codes(out, self.to.params.clone())
    }

    /// [`Self::forward`] of codes with the prepared parameters into a caller-provided array. `x` and `out` may have any
    /// strides.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `out` is `[images, 1, 1, channels]` and images have pixels. [`Error::Value`] if a sum of
    /// their pixels could overflow. [`Error::Argument`] if the multiplier is out of range. Nothing is written then.
    pub fn forward_into(&self, x: &ArrayRef4<T>, out: &mut ArrayRef4<T>, workspace: &mut Workspace) -> Result<()> {
        let (images, height, width, channels) = x.dim();
        if out.dim() != (images, 1, 1, channels) {
            return Err(Error::shape("output", &[images, 1, 1, channels], out.shape()));
        }
        let (pixels, max) = (height * width, i32::MAX as usize / 255);
        if pixels == 0 {
            return Err(Error::layout("image", "at least one pixel", x.shape()));
        }
        if pixels > max {
            return Err(ValueError::Depth { max, found: pixels }.into());
        }
        let ((x_scale, zero), (y_scale, y_zero)) =
            (self.x.scale_zero_point("input")?, self.to.params.scale_zero_point("output")?);
        let factor = Multiplier::mean(x_scale, y_scale, pixels, self.to.arithmetic)?;
        let codes = self.to.codes();
        with_nhwc(x, out, workspace, |x, out, _| {
            let images = x.chunks_exact(pixels * channels.max(1)).zip(out.chunks_exact_mut(channels.max(1)));
            images.for_each(|(x, out)| simd::run(ChannelMeans { x, out, zero, factor, y_zero, codes }));
        });
        Ok(())
    }
}

/// Channels per call of the vectorized loop.
const BLOCK: usize = 64;

/// The means of all channels of one image.
struct ChannelMeans<'a, T> {
    x: &'a [T],
    out: &'a mut [T],
    zero: i32,
    factor: Multiplier,
    y_zero: i32,
    codes: Codes,
}

impl<T: Int8> Task for ChannelMeans<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, out, zero, factor, y_zero, codes } = self;
        let channels = out.len().max(1);
        let shift = zero * (x.len() / channels) as i32;
        // With few channels, several pixels are summed as one pixel with more channels.
        let pixels = (BLOCK / channels).max(1);
        for (c, out) in out.chunks_mut(BLOCK).enumerate() {
            let mut sums = strided_sums(&x[c * BLOCK..], pixels * channels, pixels * out.len());
            for i in channels..pixels * channels {
                sums[i % channels] += sums[i];
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = T::from_i32(factor.apply::<T>(sum - shift, y_zero, codes));
            }
        }
    }
}

/// Sums every `step`-th element, starting at each of the first `len` elements. The other sums are unspecified.
#[inline(always)]
fn strided_sums<T: Int8>(x: &[T], step: usize, len: usize) -> [i32; BLOCK] {
    let mut sums = [0; BLOCK];
    let whole = x.len().checked_sub(BLOCK).map_or(0, |last| last / step + 1);
    for at in 0..whole {
        let from = &x[at * step..][..BLOCK];
        for i in 0..BLOCK {
            sums[i] += from[i].to_i32();
        }
    }
    for from in x.chunks(step).skip(whole) {
        sums.iter_mut().zip(&from[..len.min(from.len())]).for_each(|(sum, code)| *sum += code.to_i32());
    }
    sums
}
