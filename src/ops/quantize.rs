//! Kernels that quantize and dequantize tensors of a network.

use alloc::boxed::Box;

use ndarray::{Array4, ArrayView1, ArrayViewMut1};

use super::index::map_index;
use super::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::element::Element;
use crate::error::{Result, ValueError};
use crate::granularity::Granularity;
use crate::qparams::QParams;
use crate::range::Ranges;
use crate::scheme::Scheme;
use crate::simd::{self, Task};
use crate::threads;

/// Quantizes floats with static parameters.
#[derive(Debug)]
pub(crate) struct Quantize {
    params: QParams<u8>,
    nan_as_zero: bool,
}

impl Quantize {
    /// NaN is an error until [`Kernel::set_nan_as_zero`] allows it.
    pub(crate) fn new(params: QParams<u8>) -> Self {
        Self { params, nan_as_zero: false }
    }
}

impl Kernel for Quantize {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        quantize(&self.params, inputs[0].as_slice(), output.into_slice(), self.nan_as_zero)
    }

    fn set_nan_as_zero(&mut self, nan_as_zero: bool) {
        self.nan_as_zero = nan_as_zero;
    }
}

/// Converts codes to floats.
#[derive(Debug)]
pub(crate) struct Dequantize(pub(crate) QParams<u8>);

impl Kernel for Dequantize {
    fn run(&self, _: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let x = ArrayView1::from(inputs[0].as_slice::<u8>());
        self.0.dequantize_into(&x, &mut ArrayViewMut1::from(output.into_slice::<f32>()))
    }
}

/// Quantizes and dequantizes: rounds floats to the values that codes represent.
#[derive(Debug)]
pub(crate) struct FakeQuantize {
    pub(crate) params: FakeParams,
}

/// The parameters of a [`FakeQuantize`].
#[derive(Debug)]
pub(crate) enum FakeParams {
    Static(Box<QParams<u8>>),
    /// By the range of each image, as a dynamic-range convolution.
    OfImages,
    /// By the range of each `len` elements of a row, as a dynamic-range linear layer. The last ones may be fewer.
    OfRows {
        row: usize,
        len: usize,
        scheme: Scheme<i8>,
    },
}

impl Kernel for FakeQuantize {
    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, _: &mut Scratch) -> Result<()> {
        let (x, y) = (inputs[0].as_slice::<f32>(), output.into_slice::<f32>());
        match &self.params {
            FakeParams::Static(params) => params.fake_quantize_into(&ArrayView1::from(x), &mut ArrayViewMut1::from(y)),
            FakeParams::OfImages => {
                let image = x.len() / images.max(1);
                each_range(x, y, (image, image), |x| Scheme::<u8>::asymmetric().params_of(x))
            }
            &FakeParams::OfRows { row, len, scheme } => each_range(x, y, (row, len), |x| scheme.params_of(x)),
        }
    }
}

/// Fake-quantizes each `len` elements of each row with parameters of their own.
fn each_range<T: Element>(
    x: &[f32],
    y: &mut [f32],
    (row, len): (usize, usize),
    params: impl Fn(&ArrayView1<'_, f32>) -> Result<QParams<T>>,
) -> Result<()> {
    let (row, len) = (row.max(1), len.max(1));
    for (i, (x, y)) in x.chunks_exact(row).zip(y.chunks_exact_mut(row)).enumerate() {
        for (j, (x, y)) in x.chunks(len).zip(y.chunks_mut(len)).enumerate() {
            let x = ArrayView1::from(x);
            let params = params(&x).map_err(|e| map_index(e, |at| alloc::vec![i * row + j * len + at[0]]))?;
            params.fake_quantize_into(&x, &mut ArrayViewMut1::from(y))?;
        }
    }
    Ok(())
}

/// The cost of quantizing one element, or of including it in a range, in multiply-accumulates of codes.
const MACS_PER_ELEMENT: usize = 16;

/// The elements that are searched for NaN before they are quantized. They stay in L2 for the second pass.
const NAN_BLOCK: usize = 32 * 1024;

/// Quantizes `x` into `codes`, on several threads where it is large enough. Unless `nan_as_zero`, NaN is an error with
/// its position in `x`.
pub(crate) fn quantize(params: &QParams<u8>, x: &[f32], codes: &mut [u8], nan_as_zero: bool) -> Result<()> {
    let mut done = alloc::vec![Ok(()); threads::worth(x.len().saturating_mul(MACS_PER_ELEMENT))];
    threads::each_part(codes, 1, &mut done, &|first, codes, done| {
        let blocks = x[first..first + codes.len()].chunks(NAN_BLOCK).zip(codes.chunks_mut(NAN_BLOCK));
        *done = blocks.enumerate().try_for_each(|(block, (x, codes))| {
            if !nan_as_zero && simd::run(HasNan(x)) {
                let position = x.iter().position(|x| x.is_nan()).unwrap_or(0);
                let index = alloc::vec![first + block * NAN_BLOCK + position];
                return Err(ValueError::NonFinite { what: "x", found: f64::NAN, index }.into());
            }
            params.quantize_into(&ArrayView1::from(x), &mut ArrayViewMut1::from(codes))
        });
    });
    done.into_iter().collect()
}

/// Returns whether a slice holds a NaN. Has no branches, so that it vectorizes.
struct HasNan<'a>(&'a [f32]);

impl Task for HasNan<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        self.0.iter().fold(false, |found, x| found | x.is_nan())
    }
}

/// Chooses the parameters of one image by its range, on several threads where it is large enough.
pub(crate) fn params_of(x: &[f32]) -> Result<QParams<u8>> {
    let scheme = Scheme::<u8>::asymmetric();
    let chunks = threads::worth(x.len().saturating_mul(MACS_PER_ELEMENT));
    let mut ranges = alloc::vec![None; chunks];
    if chunks > 1 {
        threads::each_part(&mut ranges, 1, &mut alloc::vec![(); chunks], &|first, ranges, ()| {
            let [start, end] = [first, first + ranges.len()].map(|chunk| x.len() * chunk / chunks);
            let range = Ranges::of(&ArrayView1::from(&x[start..end]), Granularity::PerTensor);
            ranges.fill(range.ok().map(|range| (range.min()[[]], range.max()[[]])));
        });
    }
    match ranges.into_iter().reduce(|a, b| a.zip(b).map(|(a, b)| (a.0.min(b.0), a.1.max(b.1)))).flatten() {
        Some((low, high)) => {
            let bound = |bound| Array4::from_elem([1; 4], bound);
            scheme.params_from_ranges(&Ranges::new(Granularity::PerTensor, bound(low), bound(high))?)
        }
        // On one thread, or to find the position of a non-finite element.
        None => scheme.params_of(&ArrayView1::from(x)),
    }
}
