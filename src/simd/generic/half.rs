//! Casts between single and half precision.

use crate::simd::{NonTemporal, Task, Vector};

/// Elements of a chunk: a cache line of half precision.
const CHUNK: usize = 32;

/// Rounds to half precision, ties to even. The slices have one length.
pub(crate) struct ToF16<'a, V> {
    pub(crate) v: V,
    pub(crate) from: &'a [f32],
    pub(crate) to: &'a mut [u16],
    pub(crate) non_temporal: Option<NonTemporal<'a>>,
}

impl<V: Vector> Task for ToF16<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { v, from, to, non_temporal } = self;
        let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<CHUNK>(), to.as_chunks_mut::<CHUNK>());
        for (from, to) in from.iter().zip(to) {
            let mut halves = [0; CHUNK];
            for i in (0..CHUNK).step_by(V::LANES) {
                // SAFETY: `LANES` divides the length of both arrays.
                unsafe { v.store_f16(halves.as_mut_ptr().add(i), v.load_f32(from.as_ptr().add(i))) }
            }
            match non_temporal {
                Some(non_temporal) => non_temporal.store(to, halves),
                None => *to = halves,
            }
        }
        to_rest.iter_mut().zip(from_rest).for_each(|(to, &from)| *to = half::f16::from_f32(from).to_bits());
    }
}

/// Converts from half precision. The slices have one length.
pub(crate) struct FromF16<'a, V> {
    pub(crate) v: V,
    pub(crate) from: &'a [u16],
    pub(crate) to: &'a mut [f32],
}

impl<V: Vector> Task for FromF16<'_, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { v, from, to } = self;
        let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<CHUNK>(), to.as_chunks_mut::<CHUNK>());
        for (from, to) in from.iter().zip(to) {
            for i in (0..CHUNK).step_by(V::LANES) {
                // SAFETY: `LANES` divides the length of both arrays.
                unsafe { v.store_f32(to.as_mut_ptr().add(i), v.load_f16(from.as_ptr().add(i))) }
            }
        }
        to_rest.iter_mut().zip(from_rest).for_each(|(to, &from)| *to = half::f16::from_bits(from).to_f32());
    }
}
