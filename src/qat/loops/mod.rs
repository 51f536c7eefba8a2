//! The loops of fake quantization, compiled for the instruction set in use, as in [`crate::elementwise`].

mod backward;
mod forward;

use crate::affine::{Grid, Settings};
use crate::arch::{self, Task};
use crate::element::Compute;

pub(super) use backward::{Sums, gradients};
pub(super) use forward::{Bits, forward, select};

/// Scales and zero points of all blocks, in row-major order.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    pub(super) scale: &'a [f32],
    pub(super) zero_point: &'a [f32],
    pub(super) settings: Settings,
}

impl Table<'_> {
    fn grid<C: Compute, G: Grid<C>>(&self, block: usize) -> G {
        let (scale, zero_point) = (C::from_real(self.scale[block]), C::from_real(self.zero_point[block]));
        G::new(scale, zero_point, &self.settings)
    }

    /// The parameters of up to `N` blocks from this one on.
    #[inline(always)]
    fn each<const N: usize, C: Compute>(&self, first: usize, len: usize) -> Each<N, C> {
        let mut each = Each { scale: [C::ONE; N], zero_point: [C::ZERO; N], settings: self.settings };
        for i in 0..len {
            each.scale[i] = C::from_real(self.scale[first + i]);
            each.zero_point[i] = C::from_real(self.zero_point[first + i]);
        }
        each
    }
}

/// The grids of elements that are computed together.
trait Grids<const N: usize, C: Compute, G: Grid<C>> {
    fn grid(&self, i: usize) -> G;
}

/// One grid for all.
#[derive(Clone, Copy)]
struct Same<G>(G);

impl<const N: usize, C: Compute, G: Grid<C>> Grids<N, C, G> for Same<G> {
    #[inline(always)]
    fn grid(&self, _: usize) -> G {
        self.0
    }
}

/// One for each.
struct Each<const N: usize, C> {
    scale: [C; N],
    zero_point: [C; N],
    settings: Settings,
}

impl<const N: usize, C: Compute, G: Grid<C>> Grids<N, C, G> for Each<N, C> {
    #[inline(always)]
    fn grid(&self, i: usize) -> G {
        G::new(self.scale[i], self.zero_point[i], &self.settings)
    }
}

/// Runs a loop compiled for the instruction set in use; those on `f64` are too rare to have several.
fn run<C: Compute, T: Task>(task: T) -> T::Output {
    if size_of::<C>() == 4 { arch::run(task) } else { task.run() }
}
