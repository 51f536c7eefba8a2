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
    /// The places of [`Self::at`].
    const PLACES: u8 = if cfg!(target_arch = "x86_64") { 5 } else { 1 };

    /// The instruction set at this place in ascending order of preference, if this machine has it.
    ///
    /// This list is the one place where the choice is made.
    fn at(place: u8) -> Option<Self> {
        match place {
            0 => Some(Isa::Portable),
            #[cfg(target_arch = "x86_64")]
            1 => Avx2::new().map(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            2 => AvxVnni::new().map(Isa::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            3 => Avx512Vnni::new().map(Isa::Avx512Vnni),
            #[cfg(target_arch = "x86_64")]
            4 => Amx::new().map(Isa::Amx),
            _ => None,
        }
    }

    /// Every instruction set that this machine has, in ascending order of preference.
    #[cfg(test)]
    pub(crate) fn available() -> impl DoubleEndedIterator<Item = Self> {
        (0..Self::PLACES).filter_map(Self::at)
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
    #[inline]
    pub(crate) fn current() -> Self {
        /// One more than the place, so that 0 means not looked up yet.
        static CHOICE: AtomicU8 = AtomicU8::new(0);
        match CHOICE.load(Ordering::Relaxed) {
            0 => {
                let place = Self::choose();
                CHOICE.store(place + 1, Ordering::Relaxed);
                Self::at(place)
            }
            choice => Self::at(choice - 1),
        }
        .unwrap_or(Isa::Portable)
    }

    #[cold]
    fn choose() -> u8 {
        let mut places = (0..Self::PLACES).rev().filter(|&place| Self::at(place).is_some());
        #[cfg(feature = "std")]
        if let Ok(name) = std::env::var("NDARRAY_QUANT_ISA")
            && let Some(named) = places.clone().find(|&place| Self::at(place).is_some_and(|isa| isa.name() == name))
        {
            return named;
        }
        places.next().unwrap_or(0)
    }
}
