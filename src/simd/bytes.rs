//! Views of codes as bytes.
#![allow(unsafe_code, reason = "views of the same memory")]

use core::any::TypeId;

use ndarray::ArrayViewMut2;

/// Reinterprets codes as bytes if `T` is `u8` or `i8`.
pub(crate) fn as_bytes<T: 'static>(codes: &[T]) -> Option<&[u8]> {
    // SAFETY: `T` is `u8` or `i8`, which have one size and alignment, and every bit pattern is valid for both.
    is_byte::<T>().then(|| unsafe { core::slice::from_raw_parts(codes.as_ptr().cast(), codes.len()) })
}

/// Reinterprets codes as mutable bytes if `T` is `u8` or `i8`.
pub(crate) fn as_bytes_mut<T: 'static>(codes: &mut [T]) -> Option<&mut [u8]> {
    // SAFETY: `T` is `u8` or `i8`, which have one size and alignment, and every bit pattern is valid for both.
    is_byte::<T>().then(|| unsafe { core::slice::from_raw_parts_mut(codes.as_mut_ptr().cast(), codes.len()) })
}

fn is_byte<T: 'static>() -> bool {
    [TypeId::of::<u8>(), TypeId::of::<i8>()].contains(&TypeId::of::<T>())
}

/// An integer type of codes. A trait, so that both types of a view are known to be integers.
pub(crate) trait Bits: Copy {}
impl Bits for u8 {}
impl Bits for i16 {}
impl Bits for i32 {}

/// Reinterprets a view of integers as integers of the other signedness: `None` unless both have one size.
pub(crate) fn same_size_view_mut<T: crate::element::Code, U: Bits>(
    mut view: ArrayViewMut2<'_, T>,
) -> Option<ArrayViewMut2<'_, U>> {
    if size_of::<T>() != size_of::<U>() || align_of::<T>() != align_of::<U>() {
        return None;
    }
    let raw = view.raw_view_mut().cast::<U>();
    // SAFETY: codes are primitive integers. Both types have one size and alignment, and every bit pattern is valid for
    // both. The view is moved into this function, so nothing else has access for its lifetime.
    Some(unsafe { raw.deref_into_view_mut() })
}
