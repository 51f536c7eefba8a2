//! Detection of instruction sets by CPUID, without `std`. It reads registers only and requests nothing.

use core::arch::x86_64::{__cpuid_count, _xgetbv, CpuidResult};
use core::sync::atomic::{AtomicU8, Ordering};

/// A cached answer to whether the machine has an instruction set. CPUID is slow in a virtual machine.
pub(super) struct Presence(AtomicU8);

impl Presence {
    const UNKNOWN: u8 = u8::MAX;

    pub(super) const fn unknown() -> Self {
        Self(AtomicU8::new(Self::UNKNOWN))
    }

    /// Returns the cached answer.
    #[inline]
    pub(super) fn known(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::UNKNOWN => None,
            known => Some(known == 1),
        }
    }

    #[inline]
    pub(super) fn ask_once(&self, detect: fn() -> bool) -> bool {
        self.known().unwrap_or_else(|| {
            let present = detect();
            self.0.store(present as u8, Ordering::Relaxed);
            present
        })
    }
}

/// Register state in XCR0: SSE and AVX; with AVX-512 also masks and upper registers.
const AVX_STATE: u64 = 0b110;
const AVX512_STATE: u64 = 0b1110_0110;
/// Tile configuration and tile data.
const TILE_STATE: u64 = 0b11 << 17;

/// Reads a leaf of CPUID.
#[allow(unused_unsafe, reason = "later versions of Rust have a safe function")]
fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    // SAFETY: all processors of the target have the instruction, and it reads any leaf.
    unsafe { __cpuid_count(leaf, subleaf) }
}

/// The feature words of CPUID and the state of the operating system.
struct Features {
    leaf1_ecx: u32,
    leaf7_ebx: u32,
    leaf7_ecx: u32,
    leaf7_edx: u32,
    /// Subleaf 1.
    leaf7_1_eax: u32,
    /// The register state that the operating system saves.
    xcr0: u64,
}

impl Features {
    fn read() -> Self {
        let highest = cpuid(0, 0).eax;
        let leaf1 = cpuid(1, 0);
        let zeros = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
        let leaf7 = if highest >= 7 { cpuid(7, 0) } else { zeros };
        let leaf7_1 = if leaf7.eax >= 1 { cpuid(7, 1) } else { zeros };
        let osxsave = bit(leaf1.ecx, 27);
        // SAFETY: OSXSAVE promises that XGETBV exists and that user code may run it.
        let xcr0 = if osxsave { unsafe { xgetbv() } } else { 0 };
        Self {
            leaf1_ecx: leaf1.ecx,
            leaf7_ebx: leaf7.ebx,
            leaf7_ecx: leaf7.ecx,
            leaf7_edx: leaf7.edx,
            leaf7_1_eax: leaf7_1.eax,
            xcr0,
        }
    }

    fn saves(&self, state: u64) -> bool {
        self.xcr0 & state == state
    }
}

/// # Safety
/// The processor must have XSAVE, and the operating system must have turned it on.
#[target_feature(enable = "xsave")]
unsafe fn xgetbv() -> u64 {
    // SAFETY: the caller promises that XGETBV may run; register 0 always exists then.
    unsafe { _xgetbv(0) }
}

fn bit(word: u32, index: u32) -> bool {
    word >> index & 1 == 1
}

/// Detects AVX, AVX2, FMA and F16C.
pub(super) fn has_avx2() -> bool {
    let f = Features::read();
    let leaf1 = [12, 28, 29].iter().all(|&i| bit(f.leaf1_ecx, i));
    leaf1 && bit(f.leaf7_ebx, 5) && f.saves(AVX_STATE)
}

/// Detects AVX-VNNI on a machine with [`has_avx2`].
pub(super) fn has_avx_vnni() -> bool {
    bit(Features::read().leaf7_1_eax, 4)
}

/// Detects AVX512 F, BW, DQ and VL on top of [`has_avx2`].
pub(super) fn has_avx512() -> bool {
    let f = Features::read();
    let leaf7 = [16, 17, 30, 31].iter().all(|&i| bit(f.leaf7_ebx, i));
    has_avx2() && leaf7 && f.saves(AVX512_STATE)
}

/// Detects AVX512 VNNI on a machine with [`has_avx512`].
pub(super) fn has_avx512_vnni() -> bool {
    bit(Features::read().leaf7_ecx, 11)
}

/// Detects AVX512 VBMI on a machine with [`has_avx512`].
pub(super) fn has_avx512_vbmi() -> bool {
    bit(Features::read().leaf7_ecx, 1)
}

/// Detects AMX TILE and INT8 with tiles of 16 rows of 64 bytes. Using them also takes permission.
pub(super) fn has_amx() -> bool {
    const TILE_INFORMATION: u32 = 0x1d;
    let f = Features::read();
    if !(bit(f.leaf7_edx, 24) && bit(f.leaf7_edx, 25) && f.saves(TILE_STATE)) || cpuid(0, 0).eax < TILE_INFORMATION {
        return false;
    }
    // Palette 1: bytes per row, number of tiles, rows per tile.
    let palette = cpuid(TILE_INFORMATION, 1);
    palette.ebx == 64 | 8 << 16 && palette.ecx & 0xffff == 16
}
