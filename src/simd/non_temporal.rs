//! Non-temporal stores: write results that do not fit in the caches directly to memory.

use core::marker::PhantomData;

/// Calls that read and write at least this number of bytes use non-temporal stores. It exceeds the L3
/// per core of any machine: the first results would be evicted before the last one is written.
#[cfg(target_arch = "x86_64")]
const MIN_BYTES: usize = 32 << 20;

/// Permission for non-temporal stores, valid until the fence behind them; see [`with_non_temporal`].
///
/// Such a store does not read the cache line that it overwrites, and evicts nothing.
#[derive(Clone, Copy)]
pub(crate) struct NonTemporal<'a> {
    /// Bound to the call and to its thread.
    scope: PhantomData<(&'a (), *const ())>,
    #[cfg(not(target_arch = "x86_64"))]
    none: core::convert::Infallible,
}

impl NonTemporal<'_> {
    /// Bytes of a cache line.
    const LINE: usize = 64;

    /// Returns the number of elements before the first whole cache line of a slice.
    pub(crate) fn head<T>(self, to: &[T]) -> usize {
        to.as_ptr().align_offset(Self::LINE).min(to.len())
    }

    /// Stores `from` in `to`, non-temporally if `to` is made of whole cache lines.
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
            // SAFETY: both arrays have this number of registers, `to` is aligned, the token proves AVX, and the fence
            // comes before any other thread can read `to`.
            unsafe { _mm256_stream_si256(to.add(i), _mm256_loadu_si256(from.add(i))) }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn store<T: Copy, const N: usize>(self, _: &mut [T; N], _: [T; N]) {
        match self.none {}
    }
}

/// Calls `f`, with permission for non-temporal stores if it reads and writes `bytes` that do not fit in the caches.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "an intrinsic")]
#[inline]
pub(crate) fn with_non_temporal<R>(bytes: usize, f: impl FnOnce(Option<NonTemporal<'_>>) -> R) -> R {
    struct Fence;
    impl Drop for Fence {
        fn drop(&mut self) {
            // SAFETY: every x86-64 has this instruction.
            unsafe { core::arch::x86_64::_mm_sfence() }
        }
    }
    // Every set above the baseline has AVX.
    if bytes < MIN_BYTES || super::Isa::current() == super::Isa::BASELINE {
        return f(None);
    }
    let _after_all_stores = Fence;
    f(Some(NonTemporal { scope: PhantomData }))
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(crate) fn with_non_temporal<R>(_: usize, f: impl FnOnce(Option<NonTemporal<'_>>) -> R) -> R {
    f(None)
}

/// Calls `f` on two slices of one length: on the elements before the first whole cache line of `to`, and on the others with
/// permission for non-temporal stores, or on all without it if they fit in the caches.
#[inline]
pub(crate) fn with_non_temporal_lines<A, B>(
    from: &[A],
    to: &mut [B],
    mut f: impl FnMut(&[A], &mut [B], Option<NonTemporal<'_>>),
) {
    with_non_temporal(size_of_val(from) + size_of_val(to), |non_temporal| {
        let head = non_temporal.map_or(0, |non_temporal| non_temporal.head(to));
        let ((from_head, from), (to_head, to)) = (from.split_at(head), to.split_at_mut(head));
        if head > 0 {
            f(from_head, to_head, None);
        }
        f(from, to, non_temporal);
    });
}
