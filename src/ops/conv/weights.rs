//! Weights packed once, and the exact integer convolution of an image with them.

use alloc::vec::Vec;

use ndarray::{ArrayRef4, ArrayView2, ArrayViewMut2, s};

use super::depthwise::DepthwiseWeights;
use crate::arch::Isa;
use crate::error::{Error, Result, elements};
use crate::gemm::{self, Epilogue, Im2col, Int8, Lhs, PackedRhs, Workspace};
use crate::ops::layout::in_standard_layout;
use crate::ops::linear::LEAST_REACH;
use crate::window::{Placed, Window};

/// Weights `[out, kh, kw, in / groups]`, packed, and how they slide.
#[derive(Debug, Clone)]
pub(super) struct ConvWeights<W: Int8> {
    window: Window,
    kernel: [usize; 2],
    /// Channels of the image, of the output.
    inputs: usize,
    outputs: usize,
    /// Products that are summed for each output.
    depth: usize,
    packed: Packed<W>,
}

#[derive(Debug, Clone)]
enum Packed<W: Int8> {
    /// For each group the product of im2col with its columns, which are output channels.
    Groups(Vec<PackedRhs<W>>),
    /// A kernel for each channel.
    Depthwise(DepthwiseWeights),
}

impl<W: Int8> ConvWeights<W> {
    /// Packs weights with one zero point, or one for each output channel.
    pub(super) fn new(codes: &ArrayRef4<W>, zero_points: &[W], window: Window, groups: usize) -> Result<Self> {
        Self::new_for(Isa::current(), codes, zero_points, window, groups)
    }

    pub(super) fn new_for(
        isa: Isa,
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
        // Refuses what no image would fit.
        window.place([kh, kw], [i32::MAX as usize / 2; 2])?;
        if zero_points.len() != 1 && zero_points.len() != outputs {
            return Err(Error::shape("zero points of the weights", &[outputs], &[zero_points.len()]));
        }
        // Before packing, for any zero point of the weights; after it, for theirs.
        let depth = (kh * kw).saturating_mul(channels);
        gemm::check_depth(LEAST_REACH, LEAST_REACH, depth, None)?;
        let per_group = outputs / groups;
        if channels == 1 && groups > 1 {
            let packed = Packed::Depthwise(DepthwiseWeights::new(isa, codes, zero_points, &window, groups));
            let weights = Self { window, kernel: [kh, kw], inputs: groups, outputs, depth, packed };
            return weights.check_depth(LEAST_REACH, None).map(|()| weights);
        }
        let pack = |group: usize| {
            let channels_of_group = group * per_group..(group + 1) * per_group;
            let zero_points =
                if zero_points.len() == 1 { zero_points } else { &zero_points[channels_of_group.clone()] };
            let codes = codes.slice(s![channels_of_group, .., .., ..]);
            let matrix = codes.to_shape((per_group, depth)).expect("as many elements as the weights of a group");
            PackedRhs::pack_for(isa, &matrix.t(), zero_points)
        };
        let packed = Packed::Groups((0..groups).map(pack).collect::<Result<_>>()?);
        let weights = Self { window, kernel: [kh, kw], inputs: channels * groups, outputs, depth, packed };
        weights.check_depth(LEAST_REACH, None).map(|()| weights)
    }

    /// Refuses inputs of this reach if an accumulator could overflow.
    pub(super) fn check_depth(&self, x_reach: i64, bias: Option<&[i32]>) -> Result<()> {
        let reach = match &self.packed {
            Packed::Groups(groups) => groups.iter().map(PackedRhs::max_abs_diff).max().unwrap_or(1),
            Packed::Depthwise(weights) => weights.max_abs_diff(),
        };
        gemm::check_depth(x_reach, reach, self.depth, bias)
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        match &self.packed {
            Packed::Groups(groups) => groups.iter().map(PackedRhs::size_in_bytes).sum(),
            Packed::Depthwise(weights) => weights.size_in_bytes(),
        }
    }

    /// The shape of the output for an image of this shape, and how the kernel lies on it.
    pub(super) fn place(&self, image: &[usize]) -> Result<([usize; 4], Placed)> {
        let &[images, height, width, channels] = image else {
            return Err(Error::shape("image", &[0, 0, 0, self.inputs], image));
        };
        if channels != self.inputs {
            return Err(Error::shape("image", &[images, height, width, self.inputs], image));
        }
        let placed = self.window.place(self.kernel, [height, width])?;
        let output = [images, placed.output[0], placed.output[1], self.outputs];
        elements("output of a convolution", &output)?;
        Ok((output, placed))
    }

    /// `epilogue(Σ (x - x_zero) * (w - w_zero) + bias)` over `[images, height, width, channels]`; the padding is 0.
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
        in_standard_layout(x, out, workspace, |codes, out, workspace| match &self.packed {
            Packed::Groups(groups) => {
                let out = ArrayViewMut2::from_shape((pixels, self.outputs), out).expect("as many as the shape has");
                self.products(groups, codes, x_zero_point, window, epilogue, out, workspace);
            }
            Packed::Depthwise(weights) => {
                let mut space = workspace.depthwise.take();
                weights.run(codes, x_zero_point, window, epilogue, out, &mut space);
                workspace.depthwise.put(space);
            }
        });
        Ok(())
    }

    /// One product of im2col for each group.
    #[allow(clippy::too_many_arguments, reason = "the parts of one call")]
    fn products<X: Int8, E: Epilogue>(
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
            let lhs = if groups.len() == 1 && window.is_pointwise() {
                Lhs::Matrix(ArrayView2::from_shape((pixels, channels), codes).expect("a pixel in, a pixel out"))
            } else {
                Lhs::Im2col(Im2col {
                    codes: X::as_bytes(codes),
                    images: pixels / (window.output[0] * window.output[1]),
                    pixel: self.inputs,
                    first_channel: group * channels,
                    channels,
                    window,
                    fill: zero_point.to_i32() as u8,
                })
            };
            let out = out.slice_mut(s![.., first_col..first_col + per_group]);
            gemm::run(lhs, zero_point, weights, epilogue, first_col, out, workspace);
        }
    }
}
