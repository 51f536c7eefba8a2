//! Elementwise loops of fake quantization, compiled for each instruction set as in [`crate::elementwise`].

mod backward;
mod forward;

use crate::affine::{Settings, SteQuantizer};
use crate::element::Compute;
use crate::simd::{self, Task};

pub(super) use backward::{GradientSums, gradients};
pub(super) use forward::{Bits, forward, select};

/// Scales and zero points of all blocks, in row-major order.
#[derive(Clone, Copy)]
pub(super) struct BlockParams<'a> {
    pub(super) scale: &'a [f32],
    pub(super) zero_point: &'a [f32],
    pub(super) settings: Settings,
}

impl BlockParams<'_> {
    fn quantizer<C: Compute, Q: SteQuantizer<C>>(&self, block: usize) -> Q {
        let (scale, zero_point) = (C::from_float(self.scale[block]), C::from_float(self.zero_point[block]));
        Q::new(scale, zero_point, &self.settings)
    }

    /// The parameters of the `len <= N` blocks from `first` on, one per element.
    #[inline(always)]
    fn per_element<const N: usize, C: Compute>(&self, first: usize, len: usize) -> PerElement<N, C> {
        let mut per_element = PerElement { scale: [C::ONE; N], zero_point: [C::ZERO; N], settings: self.settings };
        for i in 0..len {
            per_element.scale[i] = C::from_float(self.scale[first + i]);
            per_element.zero_point[i] = C::from_float(self.zero_point[first + i]);
        }
        per_element
    }
}

/// The quantizer of each element of a chunk.
trait ElementQuantizers<const N: usize, C: Compute, Q: SteQuantizer<C>> {
    fn quantizer(&self, i: usize) -> Q;
}

/// All elements are in one block.
#[derive(Clone, Copy)]
struct SharedQuantizer<Q>(Q);

impl<const N: usize, C: Compute, Q: SteQuantizer<C>> ElementQuantizers<N, C, Q> for SharedQuantizer<Q> {
    #[inline(always)]
    fn quantizer(&self, _: usize) -> Q {
        self.0
    }
}

/// Every element is in a block of its own.
struct PerElement<const N: usize, C> {
    scale: [C; N],
    zero_point: [C; N],
    settings: Settings,
}

impl<const N: usize, C: Compute, Q: SteQuantizer<C>> ElementQuantizers<N, C, Q> for PerElement<N, C> {
    #[inline(always)]
    fn quantizer(&self, i: usize) -> Q {
        Q::new(self.scale[i], self.zero_point[i], &self.settings)
    }
}

/// Runs a loop compiled for the instruction set in use. Loops on `f64` are compiled once, because they are rare.
fn run<C: Compute, T: Task>(task: T) -> T::Output {
    if size_of::<C>() == 4 { simd::run(task) } else { task.run() }
}
