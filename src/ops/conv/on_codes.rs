//! Convolutions with integer weights in a network.

use ndarray::{ArrayRef, Ix4};

use super::{Conv2d, PreparedConv2d};
use crate::error::Result;
use crate::gemm::Workspace;
use crate::ops::Output;
use crate::ops::integer_layer::IntegerLayer;
use crate::qparams::QParams;

impl IntegerLayer for Conv2d<i8> {
    type Dim = Ix4;
    type Prepared = PreparedConv2d<u8, i8, u8>;

    fn dim(images: usize, [h, w, c]: [usize; 3]) -> Ix4 {
        Ix4(images, h, w, c)
    }

    fn prepare(self, x: &QParams<u8>, to: &Output<u8>) -> Result<Self::Prepared> {
        self.prepare(x, to)
    }

    fn check_input(&self, x: &QParams<u8>) -> Result<()> {
        self.check_input(x)
    }

    fn run_prepared(
        layer: &Self::Prepared,
        x: &ArrayRef<u8, Ix4>,
        out: &mut ArrayRef<u8, Ix4>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        layer.forward_into(x, out, workspace)
    }

    fn run_to_f32(
        &self,
        x_params: &QParams<u8>,
        x: &ArrayRef<u8, Ix4>,
        clamp: (f32, f32),
        out: &mut ArrayRef<f32, Ix4>,
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
