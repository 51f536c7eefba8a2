//! Stores past the caches.

use core::marker::PhantomData;

/// The bytes read and written from which on results are stored past the caches: beyond any core's share of them, so that
/// the first results would be gone from there before the last one is written.
#[cfg(target_arch = "x86_64")]
const LARGE: usize = 32 << 20;

/// Stores a piece of a large result straight to memory: a line is not read first, only to be overwritten, and what other
/// code has in the caches stays there. Lives as long as the fence behind all such stores is certain, see [`streaming`].
#[derive(Clone, Copy)]
pub(crate) struct NonTemporal<'a> {
    /// Bound to the call and to its thread.
    scope: PhantomData<(&'a (), *const ())>,
    #[cfg(not(target_arch = "x86_64"))]
    none: core::convert::Infallible,
}

impl NonTemporal<'_> {
    /// A line of the caches.
    const LINE: usize = 64;

    /// How many elements precede the first line that a slice has as a whole.
    pub(crate) fn head<T>(self, to: &[T]) -> usize {
        to.as_ptr().align_offset(Self::LINE).min(to.len())
    }

    /// `*to = from`; past the caches if it is made of whole lines.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    #[allow(unsafe_code, reason = "intrinsics")]
    pub(crate) fn store<T: Copy, const N: usize>(self, to: &mut [T; N], from: [T; N]) {
        use core::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_stream_si256};
        if !size_of::<[T; N]>().is_multiple_of(Self::LINE) || !to.as_ptr().addr().is_multiple_of(Self::LINE) {
            *to = from;
            return;
        }
        let (from, to) = (from.as_ptr().cast::<__m256i>(), to.as_mut_ptr().cast::<__m256i>());
        for i in 0..size_of::<[T; N]>() / size_of::<__m256i>() {
            // SAFETY: both arrays have this many registers, `to` is aligned, the token says that the machine has AVX, and the
            // fence comes before anybody else can see `to`.
            unsafe { _mm256_stream_si256(to.add(i), _mm256_loadu_si256(from.add(i))) }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn store<T: Copy, const N: usize>(self, _: &mut [T; N], _: [T; N]) {
        match self.none {}
    }
}

/// Calls `f` with leave to store past the caches, if a call that reads and writes so many bytes should.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "an intrinsic")]
#[inline]
pub(crate) fn streaming<R>(bytes: usize, f: impl FnOnce(Option<NonTemporal<'_>>) -> R) -> R {
    struct Fence;
    impl Drop for Fence {
        fn drop(&mut self) {
            // SAFETY: every x86-64 has this instruction.
            unsafe { core::arch::x86_64::_mm_sfence() }
        }
    }
    // Every set above the portable one has AVX.
    if bytes < LARGE || super::Isa::current() == super::Isa::Portable {
        return f(None);
    }
    let _behind_all_stores = Fence;
    f(Some(NonTemporal { scope: PhantomData }))
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn streaming<R>(_: usize, f: impl FnOnce(Option<NonTemporal<'_>>) -> R) -> R {
    f(None)
}
