//! The choice of an instruction set, and the sizes of blocks.
//!
//! Each architecture lists its sets as [`Isa`]. Detection asks the processor (CPUID) or the operating system (AArch64) and
//! changes nothing in the process. It starts at the set that `NDARRAY_QUANT_ISA` names and goes down from there, so a set
//! that the variable rules out is never detected.

use core::sync::atomic::{AtomicU8, Ordering};

use super::{Baseline, Gemm, Isa, REGISTERS, Vector, with_gemm};
use crate::error::{Error, Result};

/// The sizes of a product's blocks and tiles, by BLIS's names, for an instruction set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blocking {
    /// Rows of a tile.
    pub(crate) mr: usize,
    /// Columns of a panel.
    pub(crate) nr: usize,
    /// Codes of depth that lie side by side in a panel.
    pub(crate) kr: usize,
    /// Codes of depth that are multiplied together: the depth of a panel is a multiple.
    pub(crate) depth_unit: usize,
    /// Bytes of a code of the LHS as tiles read it: 1, or 2 if it is widened beforehand.
    pub(crate) lhs_width: usize,
    /// True if the LHS must be signed, false if unsigned. The tile then adds the sign offset to other codes: XOR 0x80
    /// adds 128 or subtracts it.
    pub(crate) signed_lhs: Option<bool>,
    /// Row strides that are multiples of this make rows of a tile compete for the same cache sets of L1.
    pub(crate) aliasing_stride: usize,
    /// Panels that rows of a tile meet one after the other, so that outputs are written in longer runs.
    pub(crate) group: usize,
    /// True if the LHS is read in hardware tiles, which are slow to load if their rows cross cache lines.
    pub(crate) lhs_tiles: bool,
    /// Bytes of an MC block of the LHS, which stays in L2 while all columns are multiplied with it.
    pub(crate) mc_bytes: usize,
    /// Bytes of an NC block of the RHS, which stays in L2 while all rows of an MC block pass.
    pub(crate) nc_bytes: usize,
    /// Bytes of an MC block beside an RHS of more than `nc_bytes`.
    pub(crate) streamed_bytes: usize,
}

impl Blocking {
    pub(super) const fn of<G: Gemm>() -> Self {
        let bytes = G::KR == 4;
        Self {
            mr: G::MR,
            nr: REGISTERS * <G::V as Vector>::LANES,
            kr: if G::INTERLEAVED { G::KR } else { 1 },
            depth_unit: G::KR,
            lhs_width: if bytes { 1 } else { 2 },
            signed_lhs: if bytes { Some(G::SIGNED_LHS) } else { None },
            aliasing_stride: 4096,
            group: 2,
            lhs_tiles: false,
            mc_bytes: 256 * 1024,
            nc_bytes: 512 * 1024,
            streamed_bytes: 256 * 1024,
        }
    }
}

impl Isa {
    /// The instruction set that every machine of this target has.
    pub(crate) const BASELINE: Self = Isa::Baseline(Baseline);

    /// Returns the sizes of blocks and tiles.
    pub(crate) fn blocking(self) -> Blocking {
        fn of<G: Gemm>(_: G) -> Blocking {
            const { Blocking::of::<G>() }
        }
        with_gemm!(self, g => of(g), _amx => Blocking::AMX)
    }

    /// Returns the instruction set of everything but the AMX micro-kernel: the best that the machine has, capped by
    /// `NDARRAY_QUANT_ISA`.
    #[inline]
    pub(crate) fn current() -> Self {
        Self::detect(Self::level()).unwrap_or(Self::BASELINE)
    }

    /// Returns the level in use. It is chosen once; later changes of the environment have no effect.
    #[inline]
    pub(super) fn level() -> u8 {
        /// The level plus one; 0 means not chosen yet.
        static CHOICE: AtomicU8 = AtomicU8::new(0);
        match CHOICE.load(Ordering::Relaxed) {
            0 => {
                let level = Self::choose_level();
                CHOICE.store(level + 1, Ordering::Relaxed);
                level
            }
            choice => choice - 1,
        }
    }

    #[cold]
    fn choose_level() -> u8 {
        choose_level(Self::cap().unwrap_or(0), |level| Self::detect(level).is_some())
    }

    /// Returns the level that `NDARRAY_QUANT_ISA` names, the highest if it is not set.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name that is not known.
    pub(crate) fn cap() -> Result<u8> {
        #[cfg(feature = "std")]
        if let Some(name) = std::env::var_os("NDARRAY_QUANT_ISA") {
            return cap(&name.to_string_lossy());
        }
        cap("")
    }
}

/// Returns the level of a name in upper or lower case, the highest for an empty name.
fn cap(name: &str) -> Result<u8> {
    if name.is_empty() {
        return Ok(Isa::NAMES.len() as u8 - 1);
    }
    let level = Isa::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
    level.map(|level| level as u8).ok_or_else(|| Error::Argument {
        what: "NDARRAY_QUANT_ISA",
        expected: Isa::ANY_NAME,
        found: alloc::format!("{name:?}"),
    })
}

/// Returns the highest detected level, at most `cap`.
fn choose_level(cap: u8, mut detect: impl FnMut(u8) -> bool) -> u8 {
    (0..=cap).rev().find(|&level| detect(level)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Returns the chosen name and the names that were detected, on a machine that has the first `levels` sets.
    fn choose(name: &str, levels: usize) -> (&'static str, Vec<&'static str>) {
        let mut detected = Vec::new();
        let level = choose_level(cap(name).unwrap(), |level| {
            detected.push(Isa::NAMES[level as usize]);
            (level as usize) < levels
        });
        (Isa::NAMES[level as usize], detected)
    }

    #[test]
    fn ruled_out_sets_are_never_detected() {
        for (cap, name) in Isa::NAMES.iter().enumerate() {
            for levels in 1..=Isa::NAMES.len() {
                let (chosen, detected) = choose(name, levels);
                assert_eq!(chosen, Isa::NAMES[cap.min(levels - 1)], "{name} with {levels} sets");
                assert!(detected.iter().all(|name| Isa::NAMES[..=cap].contains(name)), "{name}: {detected:?}");
            }
        }
        assert_eq!(choose(Isa::NAMES[0], Isa::NAMES.len()), (Isa::NAMES[0], alloc::vec![Isa::NAMES[0]]));
    }

    #[test]
    fn without_a_name_the_best_set_is_chosen() {
        for levels in 1..=Isa::NAMES.len() {
            assert_eq!(choose("", levels).0, Isa::NAMES[levels - 1]);
        }
    }

    #[test]
    fn names_are_known_in_upper_case_and_others_are_errors() {
        for (level, name) in Isa::NAMES.iter().enumerate() {
            assert_eq!(cap(&name.to_uppercase()), Ok(level as u8));
        }
        let error = alloc::string::ToString::to_string(&cap("avx9").unwrap_err());
        assert!(error.contains("NDARRAY_QUANT_ISA") && error.contains("\"avx9\""), "{error}");
        assert!(Isa::NAMES.iter().all(|name| error.contains(name)), "{error}");
    }
}
