//! Instructions by SysTick under `qemu -icount`, and the greatest depth of the stack.

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;

/// Counts instructions: with `-icount shift=6`, an instruction takes 64 ns of virtual time, and a tick is 40 ns.
pub(crate) struct Meter {
    timer: SYST,
    /// The ticks of an empty measurement.
    empty: u32,
}

const TICK_NS: u32 = 40;
const INSTRUCTION_NS: u32 = 64;
const WRAP: u32 = 1 << 24;

impl Meter {
    pub(crate) fn new(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(WRAP - 1);
        timer.clear_current();
        timer.enable_counter();
        let mut meter = Self { timer, empty: 0 };
        meter.empty = meter.ticks(|| ()).1;
        meter
    }

    fn ticks<T>(&mut self, f: impl FnOnce() -> T) -> (T, u32) {
        self.timer.clear_current();
        let start = SYST::get_current();
        let done = f();
        // It counts down.
        (done, start.wrapping_sub(SYST::get_current()) % WRAP)
    }

    /// Runs `f` and returns the number of its instructions, which must be less than 10 million.
    pub(crate) fn count<T>(&mut self, f: impl FnOnce() -> T) -> (T, u32) {
        let (done, ticks) = self.ticks(f);
        let ns = u64::from(ticks.saturating_sub(self.empty)) * u64::from(TICK_NS);
        (done, (ns / u64::from(INSTRUCTION_NS)) as u32)
    }
}

/// The greatest number of bytes that the stack has had. The runtime fills it with a pattern before `main`.
pub(crate) fn stack_bytes() -> usize {
    const PAINT: u32 = 0xcccc_cccc;
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    let (mut at, top) = (&raw const _stack_end, &raw const _stack_start);
    // SAFETY: both symbols are the ends of the RAM that the linker script gives to the stack, which is aligned for words.
    // Volatile reads of memory that the stack may use at the same time are those of bytes of any value.
    while at < top && unsafe { at.read_volatile() } == PAINT {
        // SAFETY: `at` is below `top`.
        at = unsafe { at.add(1) };
    }
    top as usize - at as usize
}
