//! Linear layers with integer weights in a network.

use ndarray::{ArrayRef, Ix2};

use super::{Linear, PreparedLinear};
use crate::error::Result;
use crate::gemm::Workspace;
use crate::ops::Output;
use crate::ops::clamp::Clamp;
use crate::ops::index::map_index;
use crate::ops::integer_layer::{IntegerLayer, view, view_mut};
use crate::ops::kernel::{Kernel, Scratch, Values, ValuesMut};
use crate::qparams::QParams;

impl IntegerLayer for Linear<i8> {
    type Dim = Ix2;
    type Prepared = PreparedLinear<u8, i8, u8>;

    fn dim(images: usize, [h, w, c]: [usize; 3]) -> Ix2 {
        Ix2(images * h * w, c)
    }

    fn prepare(self, x: &QParams<u8>, to: &Output<u8>) -> Result<Self::Prepared> {
        self.prepare(x, to)
    }

    fn check_input(&self, x: &QParams<u8>) -> Result<()> {
        self.check_input(x)
    }

    fn run_prepared(
        layer: &Self::Prepared,
        x: &ArrayRef<u8, Ix2>,
        out: &mut ArrayRef<u8, Ix2>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        layer.forward_into(x, out, workspace)
    }

    fn run_to_f32(
        &self,
        x_params: &QParams<u8>,
        x: &ArrayRef<u8, Ix2>,
        clamp: (f32, f32),
        out: &mut ArrayRef<f32, Ix2>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.forward_clamped_into(x_params, x, clamp, out, workspace)
    }

    fn size_in_bytes(&self) -> usize {
        self.size_in_bytes()
    }

    fn size_of_prepared(layer: &Self::Prepared) -> usize {
        layer.size_in_bytes()
    }
}

/// Floats to floats: quantizes each row on the fly, by its own range.
#[derive(Debug)]
pub(crate) struct RowRanges {
    pub(crate) layer: Linear<i8>,
    /// The number of rows of a sample, and the lengths of a row of the input and of the output.
    pub(crate) rows: usize,
    pub(crate) depth: usize,
    pub(crate) outputs: usize,
    pub(crate) clamp: Clamp,
}

impl Kernel for RowRanges {
    fn size_in_bytes(&self) -> usize {
        self.layer.size_in_bytes()
    }

    fn run(&self, images: usize, inputs: &[Values<'_>], output: ValuesMut<'_>, scratch: &mut Scratch) -> Result<()> {
        let rows = images * self.rows;
        let x = view(inputs[0].as_slice::<f32>(), Ix2(rows, self.depth));
        let mut y = view_mut(output.into_slice(), Ix2(rows, self.outputs));
        let done = self.layer.forward_dynamic_clamped_into(&x, self.clamp.bounds(), &mut y, &mut scratch.gemm);
        done.map_err(|e| map_index(e, |i| alloc::vec![i[0] * self.depth + i[1]]))
    }
}
