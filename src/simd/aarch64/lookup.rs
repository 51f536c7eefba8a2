//! Lookup tables of 256 bytes in sixteen registers, by `tbl`.

use core::arch::aarch64::*;

/// Bytes of a register.
const LANES: usize = 16;

/// Implements [`lookup`](crate::simd::lookup).
pub(crate) fn lookup(table: &[u8; 256], codes: (&[u8], usize), to: (&mut [u8], usize)) {
    // SAFETY: the target has NEON.
    unsafe { rows(table, codes, to) }
}

#[target_feature(enable = "neon")]
fn rows(table: &[u8; 256], (codes, len): (&[u8], usize), (to, stride): (&mut [u8], usize)) {
    // SAFETY: the quarters of the table have the size of four registers.
    let table = [0, 1, 2, 3].map(|i| unsafe { vld1q_u8_x4(table.as_ptr().add(4 * i * LANES)) });
    for (codes, to) in codes.chunks_exact(len).zip(to.chunks_mut(stride)) {
        row(table, codes, to);
    }
}

/// Looks up a row; stops at the end of the shorter slice. A remainder is the last register, overlapping, or copied.
#[target_feature(enable = "neon")]
#[inline]
fn row(table: [uint8x16x4_t; 4], codes: &[u8], to: &mut [u8]) {
    let len = codes.len().min(to.len());
    let (codes, to) = (&codes[..len], &mut to[..len]);
    let (mut from, mut buffer) = ([0; LANES], [0; LANES]);
    if len < LANES {
        from[..len].copy_from_slice(codes);
        entries(table, &from, &mut buffer);
        return to.copy_from_slice(&buffer[..len]);
    }
    for (codes, to) in codes.as_chunks().0.iter().zip(to.as_chunks_mut().0) {
        entries(table, codes, to);
    }
    if let (Some(codes), Some(to)) = (codes.last_chunk(), to.last_chunk_mut()) {
        entries(table, codes, to);
    }
}

/// Looks up each quarter of the table. Indices out of range leave the entries of the quarters before.
#[target_feature(enable = "neon")]
#[inline]
fn entries(table: [uint8x16x4_t; 4], codes: &[u8; LANES], to: &mut [u8; LANES]) {
    // SAFETY: both arrays have the size of registers.
    unsafe {
        let (mut codes, quarter) = (vld1q_u8(codes.as_ptr()), vdupq_n_u8(64));
        let mut entries = vqtbl4q_u8(table[0], codes);
        for table in &table[1..] {
            codes = vsubq_u8(codes, quarter);
            entries = vqtbx4q_u8(entries, *table, codes);
        }
        vst1q_u8(to.as_mut_ptr(), entries);
    }
}
