use core::arch::asm;
use core::mem::offset_of;

use super::detect::{Presence, has_amx};
use super::{Avx512Vnni, avx512vnni};
use crate::arch::operands::subtract_compensation;
use crate::arch::{Kernel, LhsRows, RhsPanels, Task};

/// AMX: tiles of 16 rows of 64 bytes; one instruction multiplies 16 × 64 by 64 × 16 codes.
///
/// Four tiles of accumulators, two of the left and two of the right side make 32 × 32 products of each step of depth
/// with four multiplications and four loads. Few rows would leave the tiles empty; they are left to VNNI, which reads
/// the same panels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amx(Avx512Vnni);

/// Rows of a tile of the machine.
const TILE_ROWS: usize = 16;
/// The bytes of each row of a tile.
const TILE_BYTES: usize = 64;

const MR: usize = 2 * TILE_ROWS;
const NR: usize = avx512vnni::NR;
const KR: usize = avx512vnni::KR;
/// The tiles are configured once for so many panels.
const PANELS: usize = 4;

impl Amx {
    /// Products of at most this many LHS rows go to AVX512-VNNI.
    ///
    /// They read the RHS once and fill a tile in part, so memory bounds them and not the multiplier: 8 × 768 × 3072 runs at
    /// 531 GOPS by AMX and at 554 by AVX512-VNNI on Emerald Rapids; 16 rows are faster by AMX.
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
/// From then on signal frames grow by 8 KiB: `sigaltstack` fails for stacks that are too small for them, and the request
/// itself fails if a thread has such a stack. A seccomp filter may deny it or kill the process.
#[cfg(target_os = "linux")]
fn request_permission() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: the system call takes two integers and touches no memory of the program; the kernel may change `rcx` and `r11`.
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

/// Other systems save the state of tiles without being asked, or do not say so in XCR0.
#[cfg(not(target_os = "linux"))]
fn request_permission() -> bool {
    true
}

/// The bytes of depth that a tile takes at a time: the depth in equal steps, each a multiple of `KR`.
fn step(depth: usize) -> usize {
    depth.div_ceil(depth.div_ceil(TILE_BYTES).max(1)).next_multiple_of(KR).max(KR)
}

/// The code of a strip: up to 32 rows (`high`), or up to 16 (`low`), against some panels.
///
/// It is one block of assembly, because the configuration of the tiles and what they hold is nothing that the compiler
/// knows of. A stride of zero loads the start of the accumulators into every row.
macro_rules! strip {
    ($multiply:literal, high, $($rest:tt)*) => {
        strip!(@code
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
        strip!(@code [], [], [], $multiply, $($rest)*)
    };
    (@code [$($load:expr),*], [$($step:expr),* $(,)?], [$($store:expr),*], $multiply:literal, $strip:expr, $b:expr, $panels:expr) => {
        asm!(
            "ldtilecfg [{strip}]",
            "mov {start}, [{strip} + {START}]",
            "mov {acc0}, [{strip} + {ACC}]",
            "mov {acc1}, [{strip} + {ACC} + 8]",
            "mov {a_stride}, [{strip} + {A_STRIDE}]",
            "mov {acc_stride}, [{strip} + {ACC_STRIDE}]",
            // Each panel.
            "2:",
            "xor {k:e}, {k:e}",
            "tileloadd tmm0, [{start} + {k}]",
            "tileloadd tmm1, [{start} + {k} + 64]",
            $($load,)*
            "mov {k}, [{strip} + {STEPS}]",
            "mov {a0}, [{strip} + {A}]",
            "mov {a1}, [{strip} + {A} + 8]",
            // Each step of depth.
            "3:",
            "tileloadd tmm4, [{a0} + {a_stride}]",
            "tileloadd tmm6, [{b} + {b_stride}]",
            "tileloadd tmm7, [{b} + {b_stride} + 64]",
            concat!($multiply, " tmm0, tmm4, tmm6"),
            concat!($multiply, " tmm1, tmm4, tmm7"),
            $($step,)*
            "add {a0}, [{strip} + {A_STEP}]",
            "add {a1}, [{strip} + {A_STEP}]",
            "add {b}, [{strip} + {B_STEP}]",
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
            strip = in(reg) &$strip,
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
            START = const offset_of!(Strip, start),
            ACC = const offset_of!(Strip, acc),
            A = const offset_of!(Strip, a),
            A_STRIDE = const offset_of!(Strip, a_stride),
            ACC_STRIDE = const offset_of!(Strip, acc_stride),
            STEPS = const offset_of!(Strip, steps),
            A_STEP = const offset_of!(Strip, a_step),
            B_STEP = const offset_of!(Strip, b_step),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl Kernel for Amx {
    const MR: usize = MR;
    const NR: usize = NR;
    const NR_PANELS: usize = PANELS;
    const KR: usize = KR;
    const UNSIGNED_LHS: bool = false;
    const ALIASING_STRIDE: usize = 1024;

    fn padded_depth(depth: usize) -> usize {
        depth.next_multiple_of(step(depth))
    }

    fn reads_in_place(depth: usize) -> bool {
        Self::padded_depth(depth) == depth
    }

    #[inline(always)]
    fn multiply(self, rows: usize, a: LhsRows<'_>, b: RhsPanels<'_>, acc: &mut [i32], acc_stride: usize) {
        let RhsPanels { panels: b, start, zero_points, .. } = b;
        let panels = start.len() / NR;
        let (step, depth) = (step(a.depth), Self::padded_depth(a.depth));
        // What the instructions below will read and write.
        assert!((1..=MR).contains(&rows) && a.bytes.len() >= (rows - 1) * a.stride + depth, "left side of a tile");
        assert!(panels > 0 && b.len() >= panels * NR * depth, "right side of a tile");
        assert!(acc.len() >= (rows - 1) * acc_stride + panels * NR && acc_stride >= panels * NR, "a tile");
        let strip = Strip {
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
        // Nothing to load: the products are empty sums.
        if depth == 0 {
            acc.chunks_mut(acc_stride).take(rows).for_each(|acc| acc[..start.len()].copy_from_slice(start));
            return;
        }
        // SAFETY: the token says that the machine has these instructions and that the system lets them run. `strip` says
        // what is read and written: `rows` rows of `depth` bytes, `panels` panels of `NR * depth` bytes, `panels * NR`
        // numbers of `start` and of each row of `acc`; that they are there was checked above.
        unsafe {
            match (rows > TILE_ROWS, a.signed) {
                (true, false) => strip!("tdpbusd", high, strip, b.as_ptr(), panels),
                (true, true) => strip!("tdpbssd", high, strip, b.as_ptr(), panels),
                (false, false) => strip!("tdpbusd", low, strip, b.as_ptr(), panels),
                (false, true) => strip!("tdpbssd", low, strip, b.as_ptr(), panels),
            }
        }
        // Tiles cannot start from a product of rows and columns.
        if !zero_points.is_empty() {
            self.run(Correct { sums: &a.sums[..rows], zero_points, acc, acc_stride });
        }
    }

    #[inline(always)]
    fn run<T: Task>(self, task: T) -> T::Output {
        self.0.run(task)
    }

    /// Registers only: four sums that do not wait for one another.
    fn peak_macs(self, rounds: usize) -> u64 {
        let config = Config::new(MR, TILE_BYTES);
        // SAFETY: the token says that the machine has these instructions and that the system lets them run; nothing but
        // the configuration is read, and no memory is written.
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

/// Takes the share of zero points of the right side off a tile.
struct Correct<'a> {
    sums: &'a [i32],
    zero_points: &'a [i32],
    acc: &'a mut [i32],
    acc_stride: usize,
}

impl Task for Correct<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (acc, &sum) in self.acc.chunks_mut(self.acc_stride).zip(self.sums) {
            subtract_compensation(acc, self.zero_points, sum);
        }
    }
}

/// What the tiles 0 to 7 are: 0 and 1 accumulators of the first 16 rows, 2 and 3 of the others, 4 and 5 the left side of
/// these rows, 6 and 7 two times 16 columns of the right side.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    /// Bytes of a row.
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
            // A tile has rows and bytes, or neither.
            (config.bytes[2], config.bytes[3], config.bytes[5]) = (0, 0, 0);
        }
        config
    }
}

/// What the loop over panels reads from memory, because there are more of these than registers.
#[repr(C)]
struct Strip {
    config: Config,
    /// Rows 0 and 16 of the left side.
    a: [*const u8; 2],
    a_stride: usize,
    /// The steps of depth, and the bytes of each on either side.
    steps: usize,
    a_step: usize,
    b_step: usize,
    start: *const i32,
    /// Rows 0 and 16 of the accumulators.
    acc: [*mut i32; 2],
    /// In bytes.
    acc_stride: usize,
}
