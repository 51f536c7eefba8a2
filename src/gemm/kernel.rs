//! The one thing that instruction sets do differently: a tile of accumulators.

use super::pack::Layout;

/// Multiplies packed panels. The left side is unsigned, the right side signed; see `pack` for the layout.
pub(crate) trait Kernel: Copy + Send + Sync {
    /// Rows of a tile.
    const MR: usize;
    /// Columns of a tile.
    const NR: usize;
    /// Neighbours in depth that lie side by side.
    const KU: usize;

    /// `acc[i][j] += Σ_k a[k][i] * b[k][j]` for `i < rows`, over `a.len() / (MR * KU)` steps of depth.
    ///
    /// `a` is `[steps][MR][KU]`, unsigned; `b` is `[steps][NR][KU]`, the bits of signed codes; `acc` is `[MR][NR]`.
    /// Sums wrap.
    fn accumulate(self, rows: usize, a: &[u8], b: &[u8], acc: &mut [i32]);

    /// Runs `f` compiled for this instruction set.
    fn run<R>(self, f: impl FnOnce() -> R) -> R;
}

/// The kernels there are, in ascending order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KernelId {
    Portable,
}

impl KernelId {
    /// The best kernel for this machine.
    pub(crate) fn best() -> Self {
        KernelId::Portable
    }

    /// Every kernel that this machine can run.
    #[cfg(test)]
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        [KernelId::Portable].into_iter()
    }

    /// The panels of the right side.
    pub(crate) fn rhs_layout(self) -> Layout {
        fn of<K: Kernel>() -> Layout {
            Layout { width: K::NR, unit: K::KU }
        }
        match self {
            KernelId::Portable => of::<Portable>(),
        }
    }
}

/// Plain Rust, for every target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

impl Kernel for Portable {
    const MR: usize = 4;
    const NR: usize = 8;
    const KU: usize = 2;

    #[inline(always)]
    fn accumulate(self, rows: usize, a: &[u8], b: &[u8], acc: &mut [i32]) {
        let (a, _) = a.as_chunks::<{ Self::MR * Self::KU }>();
        let (b, _) = b.as_chunks::<{ Self::NR * Self::KU }>();
        let (acc, _) = acc.as_chunks_mut::<{ Self::NR }>();
        for (i, acc) in acc.iter_mut().take(rows).enumerate() {
            let mut sums = *acc;
            for (a, b) in a.iter().zip(b) {
                let (a0, a1) = (a[2 * i] as i16, a[2 * i + 1] as i16);
                for (j, sum) in sums.iter_mut().enumerate() {
                    let (b0, b1) = (b[2 * j] as i8 as i16, b[2 * j + 1] as i8 as i16);
                    // A pair of products of a u8 and an i8 fits an i32 with room to spare; the running sum may wrap.
                    let pair = a0 as i32 * b0 as i32 + a1 as i32 * b1 as i32;
                    *sum = sum.wrapping_add(pair);
                }
            }
            *acc = sums;
        }
    }

    #[inline(always)]
    fn run<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }
}
