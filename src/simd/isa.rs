//! The list of instruction sets and the choice among them.
//!
//! Detection asks the processor (CPUID) or the operating system (AArch64) and changes nothing in the process. It starts at the set that `NDARRAY_QUANT_ISA` names and
//! goes down from there, so a set that the variable rules out is never detected.
//!
//! AMX takes one more step: the operating system grants tiles per process, on request. Only [`Isa::for_gemm`] asks,
//! when the first operand is packed that AMX would multiply. All other code runs on the AVX-512 that comes with AMX.

use core::sync::atomic::{AtomicU8, Ordering};

#[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
use super::aarch64::{DotProd, I8mm};
#[cfg(test)]
use super::portable::Portable;
#[cfg(target_arch = "x86_64")]
use super::x86_64::{Amx, Avx2, Avx512, Avx512Vbmi, Avx512Vnni, AvxVnni};
use super::{Baseline, Gemm};
use crate::error::{Error, Result};

/// An instruction set that this machine has and the operating system lets it use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(test)]
    Portable(Portable),
    /// The set of every machine of the target.
    Baseline(Baseline),
    #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
    DotProd(DotProd),
    #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
    I8mm(I8mm),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

/// Evaluates `$body` with `$v` bound to the vector of an instruction set.
///
/// Sets that only add dot products, which only [`with_gemm!`] needs, are not among them.
macro_rules! with_vector {
    ($isa:expr, $v:ident => $body:expr) => {
        match $isa.vectors() {
            $crate::simd::Vectors::Baseline($v) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Vectors::Avx2($v) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Vectors::Avx512($v) => $body,
        }
    };
}
pub(crate) use with_vector;

/// Evaluates `$body` with `$g` bound to the [`Gemm`] of an instruction set, or `$amx_body` with the token of AMX.
macro_rules! with_gemm {
    ($isa:expr, $g:ident => $body:expr, $amx:ident => $amx_body:expr) => {
        match $isa {
            #[cfg(test)]
            $crate::simd::Isa::Portable($g) => $body,
            $crate::simd::Isa::Baseline($g) => $body,
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            $crate::simd::Isa::DotProd($g) => $body,
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            $crate::simd::Isa::I8mm($g) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx2($g) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::AvxVnni($g) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx512($g) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Avx512Vnni($g) => $body,
            #[cfg(target_arch = "x86_64")]
            $crate::simd::Isa::Amx($amx) => $amx_body,
        }
    };
}
pub(crate) use with_gemm;

/// The registers of an instruction set.
pub(crate) enum Vectors {
    Baseline(Baseline),
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

/// The values of `NDARRAY_QUANT_ISA` in ascending order of preference. A *level* is an index into this list.
const NAMES: &[&str] = TARGET.0;

/// The names of the target's sets, and the same as a phrase.
const TARGET: (&[&str], &str) = if cfg!(target_arch = "x86_64") {
    (&["sse2", "avx2", "avxvnni", "avx512", "avx512vnni", AMX], "sse2, avx2, avxvnni, avx512, avx512vnni or amx")
} else if cfg!(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon")) {
    (&["neon", "dotprod", "i8mm"], "neon, dotprod or i8mm")
} else if cfg!(all(target_arch = "wasm32", target_feature = "simd128")) {
    (&["simd128"], "simd128")
} else {
    (&["portable"], "portable")
};

const AMX: &str = "amx";

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
    const fn of<G: Gemm>() -> Self {
        use super::{REGISTERS, Vector};
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

    #[cfg(target_arch = "x86_64")]
    const AMX: Self = Self {
        mr: Amx::MR,
        nr: Amx::NR,
        group: 4,
        lhs_tiles: true,
        signed_lhs: None,
        aliasing_stride: 1024,
        // Of 2 MiB. An RHS of 1 MiB stayed in L2 on Emerald Rapids, one of 4 MiB did not.
        nc_bytes: 1536 * 1024,
        streamed_bytes: Amx::STREAMED_BYTES,
        ..Self::of::<Avx512Vnni>()
    };
}

impl Isa {
    /// Detects the instruction set of a level.
    ///
    /// The level of AMX gives AVX512-VNNI: a token for tiles takes permission, see [`Self::for_gemm`].
    #[inline]
    fn detect(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::BASELINE),
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            1 => DotProd::new().map(Isa::DotProd),
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            2 => I8mm::new().map(Isa::I8mm),
            #[cfg(target_arch = "x86_64")]
            1 => Avx2::new().map(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            2 => AvxVnni::new().map(Isa::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            3 => Avx512::new().map(Isa::Avx512),
            #[cfg(target_arch = "x86_64")]
            4 => Avx512Vnni::new().map(Isa::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            5 => Amx::detect().map(Isa::Avx512Vnni),
            _ => None,
        }
    }

    /// The instruction set that every machine of this target has.
    pub(crate) const BASELINE: Self = Isa::Baseline(Baseline);

    #[inline]
    pub(crate) fn vectors(self) -> Vectors {
        match self {
            // Loops that use registers only are not compiled for it a second time.
            #[cfg(test)]
            Isa::Portable(_) => Vectors::Baseline(Baseline),
            Isa::Baseline(baseline) => Vectors::Baseline(baseline),
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            Isa::DotProd(_) | Isa::I8mm(_) => Vectors::Baseline(Baseline),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(avx2) => Vectors::Avx2(avx2),
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(vnni) => Vectors::Avx2(vnni.vector()),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(avx512) => Vectors::Avx512(avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(vnni) => Vectors::Avx512(vnni.vector()),
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(amx) => Vectors::Avx512(amx.vnni().vector()),
        }
    }

    /// Returns the token of AVX512-VBMI if the machine has it and the choice allows AVX-512.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn vbmi(self) -> Option<Avx512Vbmi> {
        match self.vectors() {
            Vectors::Avx512(avx512) => Avx512Vbmi::new(avx512),
            _ => None,
        }
    }

    /// Returns the sizes of blocks and tiles.
    pub(crate) fn blocking(self) -> Blocking {
        fn of<G: Gemm>(_: G) -> Blocking {
            const { Blocking::of::<G>() }
        }
        with_gemm!(self, g => of(g), _amx => Blocking::AMX)
    }

    /// Returns the depth of panels, zero-padded.
    pub(crate) fn padded_depth(self, depth: usize) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => Amx::padded_depth(depth),
            _ => depth.next_multiple_of(self.blocking().depth_unit),
        }
    }

    /// Returns whether a product reads rows of this depth where they are, whatever follows them.
    pub(crate) fn reads_in_place(self, _depth: usize, _cols: usize) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => Amx::packs(_cols) || Amx::padded_depth(_depth) == _depth,
            _ => true,
        }
    }

    /// Returns the bytes of scratch for hardware tiles, for an RHS within L2 or beyond it.
    pub(crate) fn tile_bytes(self, _rows: usize, _depth: usize, _beyond_l2: bool) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => Amx::scratch_bytes(_rows, _depth, _beyond_l2),
            _ => 0,
        }
    }

    /// Every instruction set of this machine in ascending order of preference. Requests AMX tiles.
    #[cfg(test)]
    pub(crate) fn available() -> impl DoubleEndedIterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let amx = Amx::new().map(Isa::Amx);
        #[cfg(not(target_arch = "x86_64"))]
        let amx = None;
        let detected = (0..NAMES.len() as u8).filter(|&level| NAMES[level as usize] != AMX).filter_map(Self::detect);
        [Isa::Portable(Portable)].into_iter().chain(detected).chain(amx)
    }

    /// Returns the instruction set to pack a GEMM operand of this depth for.
    ///
    /// It is [`Self::current`], or AMX if the machine has it, it can be faster at this depth and the operating system
    /// grants tiles. The first call that passes the other conditions requests the permission; a denial is remembered.
    pub(crate) fn for_gemm(_depth: usize) -> Self {
        #[cfg(target_arch = "x86_64")]
        return for_gemm(Self::level(), _depth, Self::current, || Amx::new().map(Isa::Amx));
        #[cfg(not(target_arch = "x86_64"))]
        return Self::current();
    }

    /// Returns the instruction set that multiplies a product of this size with an RHS packed for `self`.
    ///
    /// AVX512-VNNI reads the panels of AMX. `cols` is `usize::MAX` for an LHS that is packed for any RHS.
    pub(crate) fn for_product(self, _rows: usize, _depth: usize, _cols: usize) -> Self {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(amx) if !Amx::is_faster(_rows, _depth, _cols) => Isa::Avx512Vnni(amx.vnni()),
            isa => isa,
        }
    }

    /// Returns the name that `NDARRAY_QUANT_ISA` knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(test)]
            Isa::Portable(_) => "portable",
            Isa::Baseline(_) => NAMES[0],
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            Isa::DotProd(_) => "dotprod",
            #[cfg(all(target_arch = "aarch64", target_endian = "little", target_feature = "neon"))]
            Isa::I8mm(_) => "i8mm",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => AMX,
        }
    }

    /// Returns the name of the best instruction set that GEMM uses, without requesting AMX tiles.
    pub(crate) fn gemm_name() -> &'static str {
        let name = NAMES[Self::level() as usize];
        #[cfg(target_arch = "x86_64")]
        if name == AMX && Amx::is_denied() {
            return Self::current().name();
        }
        name
    }

    /// Returns the instruction set of everything but the AMX micro-kernel: the best that the machine has, capped by
    /// `NDARRAY_QUANT_ISA`.
    #[inline]
    pub(crate) fn current() -> Self {
        Self::detect(Self::level()).unwrap_or(Self::BASELINE)
    }

    /// Returns the level in use. It is chosen once; later changes of the environment have no effect.
    #[inline]
    fn level() -> u8 {
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
        return Ok(NAMES.len() as u8 - 1);
    }
    let level = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
    level.map(|level| level as u8).ok_or_else(|| Error::Argument {
        what: "NDARRAY_QUANT_ISA",
        expected: TARGET.1,
        found: alloc::format!("{name:?}"),
    })
}

/// Returns the highest detected level, at most `cap`.
fn choose_level(cap: u8, mut detect: impl FnMut(u8) -> bool) -> u8 {
    (0..=cap).rev().find(|&level| detect(level)).unwrap_or(0)
}

/// Chooses between AMX, which `amx` requests, and the instruction set of everything else.
#[cfg(target_arch = "x86_64")]
fn for_gemm<T>(level: u8, depth: usize, simd: impl FnOnce() -> T, amx: impl FnOnce() -> Option<T>) -> T {
    let faster = NAMES[level as usize] == AMX && Amx::is_faster(usize::MAX, depth, usize::MAX);
    if faster { amx().unwrap_or_else(simd) } else { simd() }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Returns the chosen name and the names that were detected, on a machine that has the first `levels` sets.
    fn choose(name: &str, levels: usize) -> (&'static str, Vec<&'static str>) {
        let mut detected = Vec::new();
        let level = choose_level(cap(name).unwrap(), |level| {
            detected.push(NAMES[level as usize]);
            (level as usize) < levels
        });
        (NAMES[level as usize], detected)
    }

    #[test]
    fn ruled_out_sets_are_never_detected() {
        for (cap, name) in NAMES.iter().enumerate() {
            for levels in 1..=NAMES.len() {
                let (chosen, detected) = choose(name, levels);
                assert_eq!(chosen, NAMES[cap.min(levels - 1)], "{name} with {levels} sets");
                assert!(detected.iter().all(|name| NAMES[..=cap].contains(name)), "{name}: {detected:?}");
            }
        }
        assert_eq!(choose(NAMES[0], NAMES.len()), (NAMES[0], alloc::vec![NAMES[0]]));
    }

    #[test]
    fn without_a_name_the_best_set_is_chosen() {
        for levels in 1..=NAMES.len() {
            assert_eq!(choose("", levels).0, NAMES[levels - 1]);
        }
    }

    #[test]
    fn names_are_known_in_upper_case_and_others_are_errors() {
        for (level, name) in NAMES.iter().enumerate() {
            assert_eq!(cap(&name.to_uppercase()), Ok(level as u8));
        }
        let error = alloc::string::ToString::to_string(&cap("avx9").unwrap_err());
        assert!(error.contains("NDARRAY_QUANT_ISA") && error.contains("\"avx9\""), "{error}");
        assert!(NAMES.iter().all(|name| error.contains(name)), "{error}");
    }

    /// Detection and products that do not use AMX never request tiles; the first deep product does.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn only_deep_products_at_the_level_of_amx_request_tiles() {
        let requests = core::cell::Cell::new(0);
        let gemm = |level: usize, depth, granted: bool| {
            for_gemm(
                level as u8,
                depth,
                || "simd",
                || {
                    requests.set(requests.get() + 1);
                    granted.then_some("amx")
                },
            )
        };
        for (level, name) in NAMES.iter().enumerate() {
            assert_eq!(gemm(level, 32, true), "simd", "{name}");
            assert_eq!(gemm(level, 63, true), "simd", "{name}");
            assert_eq!(requests.get(), 0, "{name}");
            let amx = *name == AMX;
            assert_eq!(gemm(level, 128, true), if amx { "amx" } else { "simd" }, "{name}");
            assert_eq!(gemm(level, 4096, false), "simd", "{name}: a denied request falls back");
            assert_eq!(requests.replace(0), if amx { 2 } else { 0 }, "{name}");
        }
    }

    /// No token of detection stands for tiles.
    #[test]
    fn detection_never_returns_amx() {
        for level in 0..NAMES.len() as u8 {
            assert_ne!(Isa::detect(level).map(Isa::name), Some(AMX));
        }
        assert_ne!(Isa::current().name(), AMX);
        assert_ne!(Isa::for_gemm(32).name(), AMX);
    }
}
