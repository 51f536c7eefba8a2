//! AMX: the token, the permission of the operating system, the configuration of tiles, and when AMX is used at all.

use core::arch::asm;

use super::Avx512Vnni;
use super::detect::{Presence, has_amx};

/// AMX: tiles of 16 rows of 64 bytes. `tdpbusd` multiplies 16 × 64 by 64 × 16 codes.
///
/// Four tiles of accumulators, two of the LHS and two of the RHS make a block of 32 × 32: four multiplications and four
/// loads per step of depth, see `amx_gemm`. AVX512-VNNI reads the same panels, see [`Self::is_faster`].
///
/// The token proves that the operating system granted tiles, see [`Self::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amx(Avx512Vnni);

/// Rows of a hardware tile.
pub(super) const TILE_ROWS: usize = 16;
/// Bytes of a row of a hardware tile.
pub(super) const TILE_BYTES: usize = 64;

const MR: usize = Amx::MR;
const NR: usize = Amx::NR;

impl Amx {
    /// Rows and columns of a block. Panels are those of AVX512-VNNI, padded to whole tiles of depth.
    pub(crate) const MR: usize = 2 * TILE_ROWS;
    pub(crate) const NR: usize = 32;

    /// Products of at most this many LHS rows go to AVX512-VNNI.
    ///
    /// They read the RHS once and fill a tile in part, so memory bounds them and not the multiplier. Measured on
    /// Emerald Rapids in GOPS: 8 × 768 × 3072 312 by AMX and 324 by AVX512-VNNI; 12 × 768 × 3072 798 and 621.
    const SKINNY_ROWS: usize = 8;

    /// AMX multiplies from this depth on: a whole step.
    ///
    /// A product of tiles takes 16 cycles however shallow they are, and sums that pass through memory take about 100
    /// cycles per block. GOPS on Emerald Rapids, by AMX and by AVX512-VNNI: 3136 × 64 × 64 755 and 497, 784 × 96 × 192
    /// 920 and 491; 12544 × 32 × 64, an earlier kernel, 210 and 346.
    const MIN_DEPTH: usize = 64;

    /// The same for fewer columns than a block has: 3136 × 96 × 24 246 and 300, 3136 × 144 × 24 289 and 317.
    const MIN_DEPTH_OF_FEW_COLUMNS: usize = 192;

    /// AMX multiplies from this many multiply–accumulates on.
    ///
    /// A smaller product pays for the configuration of tiles, and its sums leave while nothing is multiplied:
    /// 12 × 128 × 128 343 and 423, 32 × 256 × 16 235 and 236.
    const MIN_MACS: usize = 1 << 19;

    /// Returns whether AMX multiplies a product of this size faster than AVX512-VNNI.
    ///
    /// Both read the same panels, so the RHS is packed before the number of rows is known. A size that is not known yet
    /// is `usize::MAX`.
    pub(crate) const fn is_faster(rows: usize, depth: usize, cols: usize) -> bool {
        rows > Self::SKINNY_ROWS
            && depth >= if cols < Self::NR { Self::MIN_DEPTH_OF_FEW_COLUMNS } else { Self::MIN_DEPTH }
            && rows.saturating_mul(cols).saturating_mul(depth) >= Self::MIN_MACS
    }

    /// Detects AMX by CPUID and returns the AVX-512 that comes with it. Requests nothing.
    pub(crate) fn detect() -> Option<Avx512Vnni> {
        static PRESENT: Presence = Presence::unknown();
        Avx512Vnni::new().filter(|_| PRESENT.ask_once(has_amx))
    }

    /// Requests the permission for tiles where AMX is detected. The first answer holds for the process.
    pub(crate) fn new() -> Option<Self> {
        let vnni = Self::detect()?;
        PERMITTED.ask_once(request_permission).then_some(Self(vnni))
    }

    /// Returns whether a request was denied.
    pub(crate) fn is_denied() -> bool {
        PERMITTED.known() == Some(false)
    }

    pub(crate) fn vnni(self) -> Avx512Vnni {
        self.0
    }
}

/// Answer of the operating system to [`request_permission`].
static PERMITTED: Presence = Presence::unknown();

/// Requests the state of tiles for all threads of the process (Linux: `arch_prctl(ARCH_REQ_XCOMP_PERM)`).
///
/// From then on signal frames grow by 8 KiB: `sigaltstack` fails for stacks that are too small for them, and the
/// request itself fails if a thread has such a stack. A seccomp filter may deny it or kill the process.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: the system call takes two integers and touches no memory of the program; the kernel may change `rcx` and
    // `r11`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Not tested on other systems.
#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    false
}

impl Amx {
    /// Returns the depth of panels, zero-padded.
    pub(crate) fn padded_depth(depth: usize) -> usize {
        depth.next_multiple_of(TILE_BYTES)
    }

    /// Multiplies in registers only: four independent accumulators.
    pub(crate) fn peak_macs(self, rounds: usize) -> u64 {
        let config = Config::new(MR);
        // SAFETY: the token proves that the machine has AMX and that the operating system granted tiles. The block
        // reads the configuration only and writes no memory.
        unsafe {
            asm!(
                "ldtilecfg [{config}]",
                "2:",
                "tdpbusd tmm0, tmm4, tmm6",
                "tdpbusd tmm1, tmm4, tmm7",
                "tdpbusd tmm2, tmm5, tmm6",
                "tdpbusd tmm3, tmm5, tmm7",
                "dec {rounds}",
                "jnz 2b",
                "tilerelease",
                config = in(reg) &config,
                rounds = inout(reg) rounds.max(1) => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
        (rounds.max(1) * MR * NR * TILE_BYTES) as u64
    }
}

/// Tile configuration. Tiles 0 and 1 accumulate the first 16 rows, 2 and 3 the others; 4 and 5 hold the LHS of these
/// rows, 6 and 7 two times 16 columns of the RHS.
#[repr(C, align(64))]
pub(super) struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes per row.
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    pub(super) fn new(rows: usize) -> Self {
        let low = rows.min(TILE_ROWS) as u8;
        let high = rows as u8 - low;
        let whole = TILE_ROWS as u8;
        let mut config = Self { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        config.bytes[..8].fill(TILE_BYTES as u16);
        config.rows[..8].copy_from_slice(&[low, low, high, high, low, high, whole, whole]);
        if high == 0 {
            // A tile without rows must have no bytes.
            (config.bytes[2], config.bytes[3], config.bytes[5]) = (0, 0, 0);
        }
        config
    }
}
