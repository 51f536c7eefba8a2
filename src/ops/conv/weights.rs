//! Packed weights and the exact integer convolution.

use alloc::vec::Vec;

use ndarray::{ArrayRef4, ArrayView2, ArrayView3, ArrayViewMut2, s};

use super::depthwise::DepthwiseWeights;
use super::im2col::Im2col;
use crate::error::{Error, Result, ValueError, check_count, elements};
use crate::gemm::{self, Epilogue, Int8, LhsSource, MatrixLhs, PackedRhs, Product, Workspace};
use crate::ops::layout::with_nhwc;
use crate::ops::linear::MIN_MAX_ABS_DIFF;
use crate::simd::Isa;
use crate::window::{Placed, Window};

/// Packed weights `[out, kh, kw, in / groups]` with their window.
#[derive(Debug, Clone)]
pub(super) struct ConvWeights<W: Int8> {
    window: Window,
    kernel: [usize; 2],
    /// Input and output channels.
    inputs: usize,
    outputs: usize,
    /// Products per output element.
    depth: usize,
    /// `Σ |w - w_zero|` of each output channel.
    abs_sums: Vec<i64>,
    packed: Packed<W>,
}

#[derive(Debug, Clone)]
enum Packed<W: Int8> {
    /// One packed RHS per group, whose columns are output channels: convolution by im2col.
    Groups(Vec<PackedRhs<W>>),
    /// One kernel per channel.
    Depthwise(DepthwiseWeights),
}

impl<W: Int8> ConvWeights<W> {
    /// Packs weights with one zero point, or one per output channel.
    pub(super) fn new(codes: &ArrayRef4<W>, zero_points: &[W], window: Window, groups: usize) -> Result<Self> {
        Self::new_for(None, codes, zero_points, window, groups)
    }

    pub(super) fn new_for(
        isa: Option<Isa>,
        codes: &ArrayRef4<W>,
        zero_points: &[W],
        window: Window,
        groups: usize,
    ) -> Result<Self> {
        let (outputs, kh, kw, channels) = codes.dim();
        if groups == 0 || !outputs.is_multiple_of(groups) {
            return Err(Error::Argument {
                what: "groups",
                expected: "a divisor of the number of output channels",
                found: alloc::format!("{groups} groups of {outputs} channels"),
            });
        }
        // Fails for windows that fit no image.
        window.place([kh, kw], [i32::MAX as usize / 2; 2])?;
        if zero_points.len() != 1 {
            check_count("zero points of the weights, one or one per output channel", outputs, zero_points.len())?;
        }
        // Before packing with the smallest deviation that zero points allow, after it with the weights' own.
        let depth = (kh * kw).saturating_mul(channels);
        gemm::check_depth(MIN_MAX_ABS_DIFF, MIN_MAX_ABS_DIFF, depth, None)?;
        let zero_point = |channel: usize| zero_points[if zero_points.len() == 1 { 0 } else { channel }].to_i32();
        let abs_sum = |(channel, codes): (usize, ArrayView3<'_, W>)| {
            let zero_point = zero_point(channel);
            codes.iter().map(|code| i64::from((code.to_i32() - zero_point).abs())).sum()
        };
        let abs_sums: Vec<i64> = codes.outer_iter().enumerate().map(abs_sum).collect();
        let per_group = outputs / groups;
        if channels == 1 && groups > 1 {
            let isa = isa.unwrap_or_else(Isa::current);
            let packed = Packed::Depthwise(DepthwiseWeights::new(isa, codes, zero_points, &window, groups));
            let weights = Self { window, kernel: [kh, kw], inputs: groups, outputs, depth, abs_sums, packed };
            return weights.check_depth(MIN_MAX_ABS_DIFF, None).map(|()| weights);
        }
        let isa = isa.unwrap_or_else(|| Isa::for_gemm(depth));
        let pack = |group: usize| {
            let channels_of_group = group * per_group..(group + 1) * per_group;
            let zero_points =
                if zero_points.len() == 1 { zero_points } else { &zero_points[channels_of_group.clone()] };
            let codes = codes.slice(s![channels_of_group, .., .., ..]);
            let matrix = codes.to_shape((per_group, depth)).expect("a group has per_group * depth weights");
            PackedRhs::pack_for(isa, &matrix.t(), zero_points)
        };
        let packed = Packed::Groups((0..groups).map(pack).collect::<Result<_>>()?);
        let weights = Self { window, kernel: [kh, kw], inputs: channels * groups, outputs, depth, abs_sums, packed };
        weights.check_depth(MIN_MAX_ABS_DIFF, None).map(|()| weights)
    }

    /// Returns an error if an accumulator could overflow for inputs with this maximal `|x - x_zero|`. A bias has the room that
    /// the weights of its channel leave: files have channels of small weights whose bias takes almost all of it.
    pub(super) fn check_depth(&self, x_max_abs_diff: i64, bias: Option<&[i32]>) -> Result<()> {
        let max_abs_diff = match &self.packed {
            Packed::Groups(groups) => groups.iter().map(PackedRhs::max_abs_diff).max().unwrap_or(1),
            Packed::Depthwise(weights) => weights.max_abs_diff(),
        };
        gemm::check_depth(x_max_abs_diff, max_abs_diff, self.depth, None)?;
        for (channel, (&bias, &abs_sum)) in bias.unwrap_or_default().iter().zip(&self.abs_sums).enumerate() {
            let max = i64::from(i32::MAX) - x_max_abs_diff * abs_sum;
            if i64::from(bias).abs() > max {
                return Err(ValueError::Bias { max, found: f64::from(bias), channel }.into());
            }
        }
        Ok(())
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        let packed: usize = match &self.packed {
            Packed::Groups(groups) => groups.iter().map(PackedRhs::size_in_bytes).sum(),
            Packed::Depthwise(weights) => weights.size_in_bytes(),
        };
        packed + size_of_val(&self.abs_sums[..])
    }

    /// Returns the output shape for images of this shape, and the placed window.
    pub(super) fn place(&self, image: &[usize]) -> Result<([usize; 4], Placed)> {
        let &[images, height, width, channels] = image else { return Err(self.wrong_image(image)) };
        if channels != self.inputs {
            return Err(self.wrong_image(image));
        }
        let placed = self.window.place(self.kernel, [height, width])?;
        let output = [images, placed.output[0], placed.output[1], self.outputs];
        elements("output of a convolution", &output)?;
        Ok((output, placed))
    }

    /// The error for images that are not NHWC or have other channels, with a hint at NCHW images and OIHW weights.
    fn wrong_image(&self, image: &[usize]) -> Error {
        let groups = match &self.packed {
            Packed::Groups(groups) => groups.len(),
            Packed::Depthwise(_) => self.inputs,
        };
        let hint = match *image {
            [_, channels, _, _] if channels == self.inputs => " (NCHW? use permuted_axes([0, 2, 3, 1]))",
            [_, _, _, channels] if channels == self.kernel[0] * groups => {
                " (weights OIHW? use permuted_axes([0, 2, 3, 1]))"
            }
            _ => "",
        };
        Error::layout("image", alloc::format!("4-D NHWC with {} channels{hint}", self.inputs), image)
    }

    /// Computes `epilogue(Σ (x - x_zero) * (w - w_zero) + bias)` over `[images, height, width, channels]`. Padding is
    /// 0.
    pub(super) fn run<X: Int8, E: Epilogue>(
        &self,
        x: &ArrayRef4<X>,
        x_zero_point: X,
        epilogue: &E,
        out: &mut ArrayRef4<E::Out>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (shape, window) = self.place(x.shape())?;
        if out.shape() != shape {
            return Err(Error::shape("output", &shape, out.shape()));
        }
        let pixels = shape[0] * shape[1] * shape[2];
        epilogue.check(pixels, self.outputs)?;
        self.check_depth(X::max_abs_diff(x_zero_point), epilogue.bias())?;
        if out.is_empty() {
            return Ok(());
        }
        with_nhwc(x, out, workspace, |codes, out, workspace| match &self.packed {
            Packed::Groups(groups) => {
                let out = ArrayViewMut2::from_shape((pixels, self.outputs), out)
                    .expect("the length is the product of the shape");
                self.im2col(groups, codes, x_zero_point, window, epilogue, out, workspace);
            }
            Packed::Depthwise(weights) => {
                let mut space = workspace.depthwise.take();
                weights.run(codes, x_zero_point, window, epilogue, out, &mut space);
                workspace.depthwise.put(space);
            }
        });
        Ok(())
    }

    /// Convolves by one GEMM per group.
    #[allow(clippy::too_many_arguments, reason = "the arguments of one call")]
    fn im2col<X: Int8, E: Epilogue>(
        &self,
        groups: &[PackedRhs<W>],
        codes: &[X],
        zero_point: X,
        window: Placed,
        epilogue: &E,
        mut out: ArrayViewMut2<'_, E::Out>,
        workspace: &mut Workspace,
    ) {
        let pixels = out.nrows();
        let (per_group, channels) = (self.outputs / groups.len(), self.inputs / groups.len());
        for (group, weights) in groups.iter().enumerate() {
            let first_col = group * per_group;
            let image = (groups.len() == 1 && window.is_pointwise()).then(|| {
                MatrixLhs(ArrayView2::from_shape((pixels, channels), codes).expect("one input pixel per output pixel"))
            });
            let im2col = Im2col {
                codes: X::as_bytes(codes),
                images: pixels / (window.output[0] * window.output[1]),
                pixel: self.inputs,
                first_channel: group * channels,
                channels,
                window,
                fill: zero_point.to_i32() as u8,
                signed: X::SIGN_OFFSET != 0,
            };
            let a = image.as_ref().map_or(&im2col as &dyn LhsSource, |image| image);
            let out = out.slice_mut(s![.., first_col..first_col + per_group]);
            let (a_zero_point, b, bias) = (zero_point.to_i32(), weights.panels(), epilogue.bias());
            epilogue.run(Product { a, a_zero_point, b, bias, first_col, workspace }, out);
        }
    }
}
