use core::arch::asm;
use core::mem::offset_of;

use super::Avx512Vnni;
use super::detect::{Presence, has_amx};
use crate::simd::{LhsRows, Target, Task};

/// AMX: tiles of 16 rows of 64 bytes. `tdpbusd` multiplies 16 × 64 by 64 × 16 codes.
///
/// Four tiles of accumulators, two of the LHS and two of the RHS make a 32 × 32 micro-kernel: four multiplications and
/// four loads per step of depth. Skinny products would leave tiles empty; AVX512-VNNI multiplies them from the same
/// panels.
///
/// The token proves that the operating system granted tiles, see [`Self::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amx(Avx512Vnni);

/// Rows of a hardware tile.
const TILE_ROWS: usize = 16;
/// Bytes of a row of a hardware tile.
const TILE_BYTES: usize = 64;

const MR: usize = Amx::MR;
const NR: usize = Amx::NR;
const KR: usize = Amx::KR;

impl Amx {
    /// Rows and columns of a micro-kernel, and codes of depth of a column that lie side by side. Panels are those of
    /// AVX512-VNNI.
    pub(crate) const MR: usize = 2 * TILE_ROWS;
    pub(crate) const NR: usize = 32;
    pub(crate) const KR: usize = 4;
    /// Panels per `ldtilecfg`.
    pub(crate) const PANELS: usize = 4;

    /// Products of at most this many LHS rows go to AVX512-VNNI.
    ///
    /// They read the RHS once and fill a tile in part, so memory bounds them and not the multiplier: 8 × 768 × 3072
    /// runs at 531 GOPS by AMX and at 554 by AVX512-VNNI on Emerald Rapids; 16 rows are faster by AMX.
    pub(crate) const SKINNY_ROWS: usize = 8;

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

/// Returns the bytes of depth per tile: the depth is cut into equal steps, each a multiple of `KR`.
fn step(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(TILE_BYTES).max(1)).next_multiple_of(KR).max(KR)
}

/// The micro-kernel for up to 32 rows (`high`) or up to 16 (`low`) against some panels.
///
/// It is one block of assembly: the compiler knows neither the tile configuration nor the content of tiles. A stride
/// of zero loads the initial accumulators into every row.
macro_rules! micro_kernel {
    ($multiply:literal, high, $($rest:tt)*) => {
        micro_kernel!(@code
            ["tileloadd tmm2, [{start} + {k}]", "tileloadd tmm3, [{start} + {k} + 64]"],
            [
                "tileloadd tmm5, [{a1} + {a_stride}]",
                concat!($multiply, " tmm2, tmm5, tmm6"),
                concat!($multiply, " tmm3, tmm5, tmm7"),
            ],
            ["tilestored [{acc1} + {acc_stride}], tmm2", "tilestored [{acc1} + {acc_stride} + 64], tmm3"],
            $multiply, $($rest)*
        )
    };
    ($multiply:literal, low, $($rest:tt)*) => {
        micro_kernel!(@code [], [], [], $multiply, $($rest)*)
    };
    (@code [$($load:expr),*], [$($step:expr),* $(,)?], [$($store:expr),*], $multiply:literal, $args:expr, $b:expr, $panels:expr) => {
        asm!(
            "ldtilecfg [{args}]",
            "mov {start}, [{args} + {START}]",
            "mov {acc0}, [{args} + {ACC}]",
            "mov {acc1}, [{args} + {ACC} + 8]",
            "mov {a_stride}, [{args} + {A_STRIDE}]",
            "mov {acc_stride}, [{args} + {ACC_STRIDE}]",
            // Each panel.
            "2:",
            "xor {k:e}, {k:e}",
            "tileloadd tmm0, [{start} + {k}]",
            "tileloadd tmm1, [{start} + {k} + 64]",
            $($load,)*
            "mov {k}, [{args} + {STEPS}]",
            "mov {a0}, [{args} + {A}]",
            "mov {a1}, [{args} + {A} + 8]",
            // Each step of depth.
            "3:",
            "tileloadd tmm4, [{a0} + {a_stride}]",
            "tileloadd tmm6, [{b} + {b_stride}]",
            "tileloadd tmm7, [{b} + {b_stride} + 64]",
            concat!($multiply, " tmm0, tmm4, tmm6"),
            concat!($multiply, " tmm1, tmm4, tmm7"),
            $($step,)*
            "add {a0}, [{args} + {A_STEP}]",
            "add {a1}, [{args} + {A_STEP}]",
            "add {b}, [{args} + {B_STEP}]",
            "dec {k}",
            "jnz 3b",
            "tilestored [{acc0} + {acc_stride}], tmm0",
            "tilestored [{acc0} + {acc_stride} + 64], tmm1",
            $($store,)*
            "add {start}, {panel}",
            "add {acc0}, {panel}",
            "add {acc1}, {panel}",
            "dec {panels}",
            "jnz 2b",
            "tilerelease",
            args = in(reg) &$args,
            b = inout(reg) $b => _,
            b_stride = in(reg) NR * KR,
            panels = inout(reg) $panels => _,
            k = out(reg) _,
            start = out(reg) _,
            a0 = out(reg) _,
            a1 = out(reg) _,
            a_stride = out(reg) _,
            acc0 = out(reg) _,
            acc1 = out(reg) _,
            acc_stride = out(reg) _,
            panel = const NR * size_of::<i32>(),
            START = const offset_of!(TileArgs, start),
            ACC = const offset_of!(TileArgs, acc),
            A = const offset_of!(TileArgs, a),
            A_STRIDE = const offset_of!(TileArgs, a_stride),
            ACC_STRIDE = const offset_of!(TileArgs, acc_stride),
            STEPS = const offset_of!(TileArgs, steps),
            A_STEP = const offset_of!(TileArgs, a_step),
            B_STEP = const offset_of!(TileArgs, b_step),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl Amx {
    /// Returns the depth of panels, zero-padded.
    pub(crate) fn padded_depth(depth: usize) -> usize {
        depth.next_multiple_of(step(depth))
    }

    /// Computes `acc[i][j] = start[j] - sums[i] * zero_points[j] + Σ_k a[i][k] * b[k][j]` for up to `MR` rows and up to
    /// `PANELS` panels. `acc` is `[rows][start.len()]` with rows `acc_stride` apart. All arithmetic wraps.
    ///
    /// LHS rows are readable to the padded depth.
    pub(crate) fn multiply(
        self,
        rows: usize,
        a: LhsRows<'_>,
        b: &[u8],
        [start, zero_points]: [&[i32]; 2],
        acc: &mut [i32],
        acc_stride: usize,
    ) {
        let panels = start.len() / NR;
        let (step, depth) = (step(a.len), Self::padded_depth(a.len));
        // The bounds of all reads and writes below.
        assert!(
            (1..=MR).contains(&rows) && a.bytes.len() >= (rows - 1).saturating_mul(a.stride).saturating_add(depth),
            "LHS of a tile"
        );
        assert!(panels > 0 && b.len() >= panels.saturating_mul(NR * depth), "RHS of a tile");
        assert!(
            acc.len() >= (rows - 1).saturating_mul(acc_stride).saturating_add(panels * NR) && acc_stride >= panels * NR,
            "accumulators of a tile"
        );
        let args = TileArgs {
            config: Config::new(rows, step),
            a: [a.bytes.as_ptr(), a.bytes.as_ptr().wrapping_add(TILE_ROWS * a.stride)],
            a_stride: a.stride,
            steps: depth / step,
            a_step: step,
            b_step: NR * step,
            start: start.as_ptr(),
            acc: [acc.as_mut_ptr(), acc.as_mut_ptr().wrapping_add(TILE_ROWS * acc_stride)],
            acc_stride: acc_stride * size_of::<i32>(),
        };
        // Empty sums: a tile cannot have zero bytes per row.
        if depth == 0 {
            acc.chunks_mut(acc_stride).take(rows).for_each(|acc| acc[..start.len()].copy_from_slice(start));
            return;
        }
        // SAFETY: the token proves that the machine has AMX and that the operating system granted tiles. `args` bounds
        // all reads and writes: `rows` rows of `depth` bytes, `panels` panels of `NR * depth` bytes, and `panels * NR`
        // integers of `start` and of each row of `acc`. The assertions above checked them.
        unsafe {
            match (rows > TILE_ROWS, a.signed) {
                (true, false) => micro_kernel!("tdpbusd", high, args, b.as_ptr(), panels),
                (true, true) => micro_kernel!("tdpbssd", high, args, b.as_ptr(), panels),
                (false, false) => micro_kernel!("tdpbusd", low, args, b.as_ptr(), panels),
                (false, true) => micro_kernel!("tdpbssd", low, args, b.as_ptr(), panels),
            }
        }
        // The compensation differs by row and column, so it cannot be loaded as a start.
        if !zero_points.is_empty() {
            self.0.run(SubtractCompensation { sums: &a.sums[..rows], zero_points, acc, acc_stride });
        }
    }

    /// Multiplies in registers only: four independent accumulators.
    pub(crate) fn peak_macs(self, rounds: usize) -> u64 {
        let config = Config::new(MR, TILE_BYTES);
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

/// Subtracts the zero-point compensation of the RHS from a tile.
struct SubtractCompensation<'a> {
    sums: &'a [i32],
    zero_points: &'a [i32],
    acc: &'a mut [i32],
    acc_stride: usize,
}

impl Task for SubtractCompensation<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (acc, &sum) in self.acc.chunks_mut(self.acc_stride).zip(self.sums) {
            for (acc, zero) in acc.iter_mut().zip(self.zero_points) {
                *acc = acc.wrapping_sub(zero.wrapping_mul(sum));
            }
        }
    }
}

/// Tile configuration. Tiles 0 and 1 accumulate the first 16 rows, 2 and 3 the others; 4 and 5 hold the LHS of these
/// rows, 6 and 7 two times 16 columns of the RHS.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes per row.
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Config {
    fn new(rows: usize, step: usize) -> Self {
        let low = rows.min(TILE_ROWS) as u8;
        let high = rows as u8 - low;
        let (whole, step) = (TILE_BYTES as u16, step as u16);
        let depth = (step as usize / KR) as u8;
        let mut config = Self { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        config.bytes[..8].copy_from_slice(&[whole, whole, whole, whole, step, step, whole, whole]);
        config.rows[..8].copy_from_slice(&[low, low, high, high, low, high, depth, depth]);
        if high == 0 {
            // A tile without rows must have no bytes.
            (config.bytes[2], config.bytes[3], config.bytes[5]) = (0, 0, 0);
        }
        config
    }
}

/// Arguments of the micro-kernel. It reads them from memory: they outnumber the registers.
#[repr(C)]
struct TileArgs {
    config: Config,
    /// Rows 0 and 16 of the LHS.
    a: [*const u8; 2],
    a_stride: usize,
    /// Number of steps of depth.
    steps: usize,
    /// Bytes per step, of LHS rows and RHS panels.
    a_step: usize,
    b_step: usize,
    start: *const i32,
    /// Rows 0 and 16 of the accumulators.
    acc: [*mut i32; 2],
    /// In bytes.
    acc_stride: usize,
}
