//! Which instruction sets there are, and which one is used.

use core::sync::atomic::{AtomicU8, Ordering};

#[cfg(target_arch = "x86_64")]
use super::{Amx, Avx2, Avx512Vnni, AvxVnni};

/// An instruction set of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isa {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
}

impl Isa {
    /// Every instruction set that this machine has, in ascending order of preference.
    ///
    /// This list is the one place where the choice is made.
    pub(crate) fn available() -> impl DoubleEndedIterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let above = [
            Avx2::new().map(Isa::Avx2),
            AvxVnni::new().map(Isa::AvxVnni),
            Avx512Vnni::new().map(Isa::Avx512Vnni),
            Amx::new().map(Isa::Amx),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let above: [Option<Self>; 0] = [];
        core::iter::once(Isa::Portable).chain(above.into_iter().flatten())
    }

    /// The instruction set that multiplies so few rows with a right side packed for this one.
    pub(crate) fn for_rows(self, _rows: usize) -> Self {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(amx) if _rows <= Amx::FEW_ROWS => Isa::Avx512Vnni(amx.vnni()),
            isa => isa,
        }
    }

    /// The name that `NDARRAY_QUANT_ISA` knows it by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni(_) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Isa::Amx(_) => "amx",
        }
    }

    /// The instruction set in use: the best there is, or the one named by `NDARRAY_QUANT_ISA` if the machine has it.
    ///
    /// Looked up once; later changes of the environment have no effect.
    pub(crate) fn current() -> Self {
        /// One more than the position in `available`, so that 0 means not looked up yet.
        static CHOICE: AtomicU8 = AtomicU8::new(0);
        let choice = match CHOICE.load(Ordering::Relaxed) {
            0 => {
                let choice = Self::choose() + 1;
                CHOICE.store(choice, Ordering::Relaxed);
                choice
            }
            choice => choice,
        };
        Self::available().nth(choice as usize - 1).unwrap_or(Isa::Portable)
    }

    fn choose() -> u8 {
        let best = Self::available().count() - 1;
        #[cfg(feature = "std")]
        if let Ok(name) = std::env::var("NDARRAY_QUANT_ISA") {
            return Self::available().position(|isa| isa.name() == name).unwrap_or(best) as u8;
        }
        best as u8
    }
}
