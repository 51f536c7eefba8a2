//! What the choice of an instruction set asks about hardware tiles, on targets that have none.

use super::Isa;

impl Isa {
    /// Returns the depth of panels, zero-padded.
    pub(crate) fn padded_depth(self, depth: usize) -> usize {
        depth.next_multiple_of(self.blocking().depth_unit)
    }

    /// Returns whether a product reads rows of this depth where they are, whatever follows them.
    pub(crate) fn reads_in_place(self, _depth: usize, _cols: usize) -> bool {
        true
    }

    /// Returns the bytes of scratch for hardware tiles.
    pub(crate) fn tile_bytes(self, _rows: usize, _depth: usize, _beyond_l2: bool) -> usize {
        0
    }

    /// Every instruction set of this machine in ascending order of preference.
    #[cfg(test)]
    pub(crate) fn available() -> impl DoubleEndedIterator<Item = Self> {
        let detected = (0..Self::NAMES.len() as u8).filter_map(Self::detect);
        [Isa::Portable(crate::simd::portable::Portable)].into_iter().chain(detected)
    }

    /// Returns the instruction set to pack a GEMM operand of this depth for.
    pub(crate) fn for_gemm(_depth: usize) -> Self {
        Self::current()
    }

    /// Returns the instruction set that multiplies a product of this size with an RHS packed for `self`.
    pub(crate) fn for_product(self, _rows: usize, _depth: usize, _cols: usize) -> Self {
        self
    }

    /// Returns the name of the best instruction set that GEMM uses.
    pub(crate) fn gemm_name() -> &'static str {
        Self::current().name()
    }
}
