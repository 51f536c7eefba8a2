//! Elementwise loops of fake quantization, compiled for each instruction set as in [`crate::elementwise`].

mod backward;
mod forward;

use core::marker::PhantomData;

use crate::affine::{Settings, SteQuantizer};
use crate::element::Compute;
use crate::simd::{self, Task};

pub(super) use backward::{GradientSums, gradients};
pub(super) use forward::{Bits, forward, select};

/// Scales and zero points of consecutive blocks of `size` elements.
#[derive(Clone, Copy)]
pub(super) struct BlockParams<'a> {
    pub(super) scale: &'a [f32],
    pub(super) zero_point: &'a [f32],
    pub(super) size: usize,
    pub(super) settings: Settings,
}

impl BlockParams<'_> {
    /// Returns the parameters of the blocks from `first` on.
    fn starting_at(self, first: usize) -> Self {
        Self { scale: &self.scale[first..], zero_point: &self.zero_point[first..], ..self }
    }

    #[inline(always)]
    fn quantizer<C: Compute, Q: SteQuantizer<C>>(&self, block: usize) -> SharedQuantizer<Q> {
        let (scale, zero_point) = (C::from_float(self.scale[block]), C::from_float(self.zero_point[block]));
        SharedQuantizer(Q::new(scale, zero_point, &self.settings))
    }

    /// The parameters of the `len <= N` blocks from `first` on, one per element.
    #[inline(always)]
    fn per_element<const N: usize, C: Compute, Q>(&self, first: usize, len: usize) -> PerElement<N, C, Q> {
        let (mut scale, mut zero_point) = ([C::ONE; N], [C::ZERO; N]);
        for i in 0..len {
            scale[i] = C::from_float(self.scale[first + i]);
            zero_point[i] = C::from_float(self.zero_point[first + i]);
        }
        PerElement { scale, zero_point, settings: self.settings, quantizer: PhantomData }
    }
}

/// The quantizer of each element of a chunk.
trait ElementQuantizers<C: Compute> {
    type Quantizer: SteQuantizer<C>;
    fn quantizer(&self, i: usize) -> Self::Quantizer;
}

/// All elements are in one block.
#[derive(Clone, Copy)]
struct SharedQuantizer<Q>(Q);

impl<C: Compute, Q: SteQuantizer<C>> ElementQuantizers<C> for SharedQuantizer<Q> {
    type Quantizer = Q;
    #[inline(always)]
    fn quantizer(&self, _: usize) -> Q {
        self.0
    }
}

/// Every element is in a block of its own.
struct PerElement<const N: usize, C, Q> {
    scale: [C; N],
    zero_point: [C; N],
    settings: Settings,
    quantizer: PhantomData<Q>,
}

impl<const N: usize, C: Compute, Q: SteQuantizer<C>> ElementQuantizers<C> for PerElement<N, C, Q> {
    type Quantizer = Q;
    #[inline(always)]
    fn quantizer(&self, i: usize) -> Q {
        Q::new(self.scale[i], self.zero_point[i], &self.settings)
    }
}

/// Runs a loop compiled for the instruction set in use. Loops on `f64` are compiled once, because they are rare.
fn run<C: Compute, T: Task>(task: T) -> T::Output {
    if const { size_of::<C>() == 4 } { simd::run(task) } else { task.run() }
}
