//! The instruction sets of x86-64.
//!
//! AMX takes one more step than detection: the operating system grants tiles per process, on request. Only
//! [`Isa::for_gemm`] asks, when the first operand is packed that AMX would multiply. All other code runs on the AVX-512
//! that comes with AMX.

use super::{Amx, Avx2, Avx512, Avx512Vbmi, Avx512Vnni, AvxVnni, Baseline};
#[cfg(test)]
use crate::simd::portable::Portable;
use crate::simd::{Blocking, Gemm};

/// An instruction set that this machine has and the operating system lets it use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(test)]
    Portable(Portable),
    /// The set of every machine of the target.
    Baseline(Baseline),
    Avx2(Avx2),
    AvxVnni(AvxVnni),
    Avx512(Avx512),
    Avx512Vnni(Avx512Vnni),
    Amx(Amx),
}

/// The registers of an instruction set.
pub(crate) enum Vectors {
    Baseline(Baseline),
    Avx2(Avx2),
    Avx512(Avx512),
}

/// Evaluates `$body` with `$v` bound to the vector of an instruction set.
///
/// Sets that only add dot products, which only [`with_gemm!`] needs, are not among them.
macro_rules! with_vector {
    ($isa:expr, $v:ident => $body:expr) => {
        match $isa.vectors() {
            $crate::simd::Vectors::Baseline($v) => $body,
            $crate::simd::Vectors::Avx2($v) => $body,
            $crate::simd::Vectors::Avx512($v) => $body,
        }
    };
}
pub(crate) use with_vector;

/// Evaluates `$body` with `$g` bound to the [`Gemm`](crate::simd::Gemm) of an instruction set, or `$amx_body` with the
/// token of AMX.
macro_rules! with_gemm {
    ($isa:expr, $g:ident => $body:expr, $amx:ident => $amx_body:expr) => {
        match $isa {
            #[cfg(test)]
            $crate::simd::Isa::Portable($g) => $body,
            $crate::simd::Isa::Baseline($g) => $body,
            $crate::simd::Isa::Avx2($g) => $body,
            $crate::simd::Isa::AvxVnni($g) => $body,
            $crate::simd::Isa::Avx512($g) => $body,
            $crate::simd::Isa::Avx512Vnni($g) => $body,
            $crate::simd::Isa::Amx($amx) => $amx_body,
        }
    };
}
pub(crate) use with_gemm;

const AMX: &str = "amx";

impl Blocking {
    pub(crate) const AMX: Self = Self {
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
    /// The values of `NDARRAY_QUANT_ISA` in ascending order of preference. A *level* is an index into this list.
    pub(crate) const NAMES: &[&str] = &["sse2", "avx2", "avxvnni", "avx512", "avx512vnni", AMX];

    /// The same as a phrase.
    pub(crate) const ANY_NAME: &str = "sse2, avx2, avxvnni, avx512, avx512vnni or amx";

    /// Detects the instruction set of a level.
    ///
    /// The level of AMX gives AVX512-VNNI: a token for tiles takes permission, see [`Self::for_gemm`].
    #[inline]
    pub(crate) fn detect(level: u8) -> Option<Self> {
        match level {
            0 => Some(Self::BASELINE),
            1 => Avx2::new().map(Isa::Avx2),
            2 => AvxVnni::new().map(Isa::AvxVnni),
            3 => Avx512::new().map(Isa::Avx512),
            4 => Avx512Vnni::new().map(Isa::Avx512Vnni),
            5 => Amx::detect().map(Isa::Avx512Vnni),
            _ => None,
        }
    }

    /// Returns the name that `NDARRAY_QUANT_ISA` knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            #[cfg(test)]
            Isa::Portable(_) => "portable",
            Isa::Baseline(_) => Self::NAMES[0],
            Isa::Avx2(_) => "avx2",
            Isa::AvxVnni(_) => "avxvnni",
            Isa::Avx512(_) => "avx512",
            Isa::Avx512Vnni(_) => "avx512vnni",
            Isa::Amx(_) => AMX,
        }
    }

    #[inline]
    pub(crate) fn vectors(self) -> Vectors {
        match self {
            // Loops that use registers only are not compiled for it a second time.
            #[cfg(test)]
            Isa::Portable(_) => Vectors::Baseline(Baseline),
            Isa::Baseline(baseline) => Vectors::Baseline(baseline),
            Isa::Avx2(avx2) => Vectors::Avx2(avx2),
            Isa::AvxVnni(vnni) => Vectors::Avx2(vnni.vector()),
            Isa::Avx512(avx512) => Vectors::Avx512(avx512),
            Isa::Avx512Vnni(vnni) => Vectors::Avx512(vnni.vector()),
            Isa::Amx(amx) => Vectors::Avx512(amx.vnni().vector()),
        }
    }

    /// Returns the token of AVX512-VBMI if the machine has it and the choice allows AVX-512.
    #[inline]
    pub(super) fn vbmi(self) -> Option<Avx512Vbmi> {
        match self.vectors() {
            Vectors::Avx512(avx512) => Avx512Vbmi::new(avx512),
            _ => None,
        }
    }

    /// Returns the depth of panels, zero-padded.
    pub(crate) fn padded_depth(self, depth: usize) -> usize {
        match self {
            Isa::Amx(_) => Amx::padded_depth(depth),
            _ => depth.next_multiple_of(self.blocking().depth_unit),
        }
    }

    /// Returns whether a product reads rows of this depth where they are, whatever follows them.
    pub(crate) fn reads_in_place(self, depth: usize, cols: usize) -> bool {
        match self {
            Isa::Amx(_) => Amx::packs(cols) || Amx::padded_depth(depth) == depth,
            _ => true,
        }
    }

    /// Returns the bytes of scratch for hardware tiles, for an RHS within L2 or beyond it.
    pub(crate) fn tile_bytes(self, rows: usize, depth: usize, beyond_l2: bool) -> usize {
        match self {
            Isa::Amx(_) => Amx::scratch_bytes(rows, depth, beyond_l2),
            _ => 0,
        }
    }

    /// Every instruction set of this machine in ascending order of preference. Requests AMX tiles.
    #[cfg(test)]
    pub(crate) fn available() -> impl DoubleEndedIterator<Item = Self> {
        let simd = Self::NAMES.len() as u8 - 1;
        let detected = (0..simd).filter_map(Self::detect).chain(Amx::new().map(Isa::Amx));
        [Isa::Portable(Portable)].into_iter().chain(detected)
    }

    /// Returns the instruction set to pack a GEMM operand of this depth for.
    ///
    /// It is [`Self::current`], or AMX if the machine has it, it can be faster at this depth and the operating system
    /// grants tiles. The first call that passes the other conditions requests the permission; a denial is remembered.
    pub(crate) fn for_gemm(depth: usize) -> Self {
        for_gemm(Self::level(), depth, Self::current, || Amx::new().map(Isa::Amx))
    }

    /// Returns the instruction set that multiplies a product of this size with an RHS packed for `self`.
    ///
    /// AVX512-VNNI reads the panels of AMX. `cols` is `usize::MAX` for an LHS that is packed for any RHS.
    pub(crate) fn for_product(self, rows: usize, depth: usize, cols: usize) -> Self {
        match self {
            Isa::Amx(amx) if !Amx::is_faster(rows, depth, cols) => Isa::Avx512Vnni(amx.vnni()),
            isa => isa,
        }
    }

    /// Returns the name of the best instruction set that GEMM uses, without requesting AMX tiles.
    pub(crate) fn gemm_name() -> &'static str {
        let name = Self::NAMES[Self::level() as usize];
        if name == AMX && Amx::is_denied() { Self::current().name() } else { name }
    }
}

/// Chooses between AMX, which `amx` requests, and the instruction set of everything else.
fn for_gemm<T>(level: u8, depth: usize, simd: impl FnOnce() -> T, amx: impl FnOnce() -> Option<T>) -> T {
    let faster = Isa::NAMES[level as usize] == AMX && Amx::is_faster(usize::MAX, depth, usize::MAX);
    if faster { amx().unwrap_or_else(simd) } else { simd() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Detection and products that do not use AMX never request tiles; the first deep product does.
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
        for (level, name) in Isa::NAMES.iter().enumerate() {
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
        for level in 0..Isa::NAMES.len() as u8 {
            assert_ne!(Isa::detect(level).map(Isa::name), Some(AMX));
        }
        assert_ne!(Isa::current().name(), AMX);
        assert_ne!(Isa::for_gemm(32).name(), AMX);
    }
}
