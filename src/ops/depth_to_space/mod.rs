//! Channels as pixels, and pixels as channels.

#[cfg(feature = "onnx")]
pub(crate) mod onnx;

use ndarray::{ArrayD, ArrayViewD};

use super::movement::Movement;
use super::shape::{NCHW, Shape, ranked};
use crate::error::{Error, Result};
#[cfg(feature = "onnx")]
use crate::io::onnx::export::writer::NodeWriter;
#[cfg(feature = "onnx")]
use alloc::string::String;

/// Moves channels into blocks of pixels: `[batch, c, h, w]` to `[batch, c / (b0 * b1), h * b0, w * b1]` (ONNX:
/// `DepthToSpace`).
///
/// The channels are `[groups, b0, b1, c / (groups * b0 * b1)]`. With one group that is ONNX's mode `DCR`, with a group for
/// each channel of the output `CRD`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DepthToSpace {
    /// Height and width of a block.
    pub block: [usize; 2],
    /// Number of channel groups.
    pub groups: usize,
}

/// Moves blocks of pixels into channels: `[batch, c, h, w]` to `[batch, b0 * b1 * c, h / b0, w / b1]` (ONNX:
/// `SpaceToDepth`).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SpaceToDepth {
    /// Height and width of a block.
    pub block: [usize; 2],
}

impl Movement for DepthToSpace {
    fn name(&self) -> &'static str {
        "DepthToSpace"
    }

    fn infer(&self, x: &[usize]) -> Result<Shape> {
        let [n, c, h, w] = ranked("input", NCHW, x)?;
        let [b0, b1] = self.block;
        let block = b0.saturating_mul(b1);
        let divisor = block.saturating_mul(self.groups);
        if divisor == 0 || !c.is_multiple_of(divisor) {
            let found = alloc::format!("blocks {:?} in {} groups of {c} channels", self.block, self.groups);
            let expected = "a size of blocks, times groups, that divides the channels";
            return Err(Error::Argument { what: "depth to space", expected, found });
        }
        Ok(alloc::vec![n, c / block, h.saturating_mul(b0), w.saturating_mul(b1)])
    }

    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32> {
        let &[n, c, h, w] = x.shape() else { return x.to_owned() };
        let ([b0, b1], groups) = (self.block, self.groups);
        let each = c / (groups * b0 * b1);
        let x = x.to_shape(&[n, groups, b0, b1, each, h, w][..]).expect("checked by shape inference");
        let x = x.view().permuted_axes(&[0, 1, 4, 5, 2, 6, 3][..]);
        x.to_shape(&[n, groups * each, h * b0, w * b1][..]).expect("checked by shape inference").into_owned()
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write(self, node)
    }
}

impl Movement for SpaceToDepth {
    fn name(&self) -> &'static str {
        "SpaceToDepth"
    }

    fn infer(&self, x: &[usize]) -> Result<Shape> {
        let [n, c, h, w] = ranked("input", NCHW, x)?;
        let [b0, b1] = self.block;
        if b0 == 0 || b1 == 0 || !h.is_multiple_of(b0) || !w.is_multiple_of(b1) {
            let found = alloc::format!("blocks {:?} of {h} x {w} pixels", self.block);
            return Err(Error::Argument { what: "space to depth", expected: "blocks that divide the image", found });
        }
        Ok(alloc::vec![n, c.saturating_mul(b0).saturating_mul(b1), h / b0, w / b1])
    }

    fn rearrange(&self, x: ArrayViewD<'_, u32>) -> ArrayD<u32> {
        let &[n, c, h, w] = x.shape() else { return x.to_owned() };
        let [b0, b1] = self.block;
        let x = x.to_shape(&[n, c, h / b0, b0, w / b1, b1][..]).expect("checked by shape inference");
        let x = x.view().permuted_axes(&[0, 3, 5, 1, 2, 4][..]);
        x.to_shape(&[n, b0 * b1 * c, h / b0, w / b1][..]).expect("checked by shape inference").into_owned()
    }

    #[cfg(feature = "onnx")]
    fn write_onnx(&self, node: &mut NodeWriter<'_>) -> Result<String> {
        onnx::write_space_to_depth(self, node)
    }
}
