//! Lookup tables in plain Rust.

/// Implements [`lookup`](crate::simd::lookup).
pub(crate) fn lookup(table: &[u8; 256], (codes, len): (&[u8], usize), (to, stride): (&mut [u8], usize)) {
    for (codes, to) in codes.chunks_exact(len).zip(to.chunks_mut(stride)) {
        to.iter_mut().zip(codes).for_each(|(to, &code)| *to = table[code as usize]);
    }
}
